"""A run over three families: answers that were generated, scores that were not kept, cells decided early, a history."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import numpy as np

from harness.core.outcomes import UNPARSED, Outcomes
from harness.core.records import SCHEMA_VERSION, Cell, CellRecord, CellRun, Item, TaskInfo, TaskRun
from harness.core.verdicts import POOLED, CellVerdict, Status, Verdict
from harness.report import History, Reference, RunBundle
from harness.report.history import parse_history
from harness.report.pairs import count_changes

N_FACTS, N_TRIVIA, N_CLOZE, N_WORDS = 60, 24, 30, 400

SAID = (
    "I think it is {}.",
    "{}",
    "<script>alert('generated')</script> {}",
    "\u202e{}\u202c backwards",
    "لا أعرف",
    "",
    "a very long answer, " + "and on it goes, " * 400 + "{}",
    "two\nlines: {}\x00\x1b[31m",
)

HOSTILE_GROUP = "<img src=x onerror=alert(1)> \u202egeneral; a=b&c?d#e"

CELLS = {
    "llama": ("decoder", ("none", 16.0, 269_000_000), ("8bit-rtn", 8.25, 166_000_000), ("4bit-gptq", 4.25, 113_000_000)),
    "bert": (
        "encoder",
        ("none", 32.0, 438_000_000),
        ("30pct-magnitude", 32.0, 438_000_000),
        ("8bit-dynamic", 8.0, 181_000_000),
    ),
    "t5": ("seq2seq", ("none", 16.0, 308_000_000), ("4bit-rtn", 4.5, 131_000_000), ("4bit-gptq", 4.5, 131_000_000)),
}


def make_families_bundle(synthetic: ModuleType) -> RunBundle:
    """Three families, a dense cell and three others each; the last cell of each is the one before, recovered."""
    items = make_task_items(synthetic)
    runs, verdicts, baselines, dense = [], [], {}, {}
    for model, (family, *recipes) in CELLS.items():
        known = {name: _answers(synthetic, items[name], f"dense {model}", 0.6) for name in items}
        entries = [*((name, bits, size, "none") for name, bits, size in recipes), (*recipes[-1], "lora")]
        for k, (name, bits, size, recovery) in enumerate(entries):
            cell = Cell(model, name, recovery)
            before = known if k == 0 else {n: _moved(synthetic, items[n], known[n], f"{cell.id} before", 0.14) for n in items}
            after = {n: _moved(synthetic, items[n], before[n], f"{cell.id} now", 0.1 if k else 0.0) for n in items}
            if k == 1:
                after = {n: _first(one, len(one) * 2 // 5) for n, one in after.items()}
            made = synthetic.make_compression(name.partition("-")[2] or name, bits, size)
            reference = _reference(synthetic, cell, made, items, before)
            baselines[cell.id] = replace(reference, outcomes={n: replace(one, texts=None) for n, one in before.items()})
            dense.setdefault(model, reference)
            run = _run(synthetic, reference, family, items, after)
            runs.append(run)
            verdicts.append(_verdict(synthetic, run, before))
    return RunBundle(
        profile="hub <b>models</b>",
        policy="release",
        cells=tuple(runs),
        verdicts=tuple(verdicts),
        started_at="2031-05-07T07:00:00Z",
        ended_at="2031-05-07T09:30:00Z",
        exit_code=1,
        command="pytest suites/ --harness-profile=hub",
        baselines=baselines,
        dense=dense,
        history=make_history(),
    )


def make_history() -> History:
    """Three acceptances of one cell, one of another, one of a cell that is gone, and two lines that are no history."""
    lines = [
        _line("llama_8bit-rtn_none", "added", "first baseline", {"facts": 0.55, "trivia": 0.5}, day=1),
        _line("t5_4bit-rtn_none", "added", "first <b>baseline</b>", {"facts": 0.45}, day=2),
        _line("llama_8bit-rtn_none", "updated", "a better\u202e kernel", {"facts": 0.6, "trivia": 0.5}, day=3),
        _line("llama_8bit-rtn_none", "updated", "more items", {"facts": 0.58}, day=4, n_items=600)
        | {"loosened": "the new items are <i>harder</i>"},
        _line("opt_gone_none", "added", "was here once", {"facts": 0.4}, day=5),
        _line("llama_none_none", "added", "an accuracy of 140 %", {"facts": 1.4}, day=6),
    ]
    text = "\n".join([*map(json.dumps, lines), "<<<<<<< HEAD"])
    return parse_history(text.encode(), "history.jsonl")


def _line(cell: str, written: str, reason: str, accuracy: dict[str, float], *, day: int, n_items: int = N_FACTS) -> dict:
    return {
        "cell": cell,
        "written": written,
        "reason": reason,
        "commit": f"{day:07x}",
        "measured_at": f"2031-04-0{day}T10:00:00Z",
        "weights_digest": "w",
        "record_digest": "r",
        "accuracy": accuracy,
        "n_items": dict.fromkeys(accuracy, n_items),
    }


def make_task_items(synthetic: ModuleType) -> dict[str, tuple[Item, ...]]:
    """``facts`` with a few options, ``trivia`` with many right answers in words, ``cloze`` over a whole vocabulary."""
    words = tuple(f"word{i:03d}" for i in range(N_WORDS))
    trivia = tuple(
        Item(
            f"trivia/{i}",
            HOSTILE_GROUP,
            f"Which town is number {i}?",
            tuple(f"{n} {i}" for n in synthetic.NAMES[:9]),
            tuple(range(9)),
        )
        for i in range(N_TRIVIA)
    )
    cloze = tuple(
        Item(f"cloze/{i}", f"P{i % 4}", f"Town {i} lies in [Y].", words, (i * 13 % N_WORDS,)) for i in range(N_CLOZE)
    )
    return {"facts": synthetic.make_items("facts", N_FACTS, hostile=True), "trivia": trivia, "cloze": cloze}


def make_task_info(synthetic: ModuleType, name: str, items: tuple[Item, ...]) -> TaskInfo:
    made = synthetic.make_info(name, items, pooled=name != "cloze")
    return replace(made, score_class="generation") if name == "trivia" else made


def _answers(synthetic: ModuleType, items: tuple[Item, ...], who: str, level: float) -> Outcomes:
    return _speak(synthetic, items, [synthetic.unit(who, item.id) < level for item in items], who)


def _moved(synthetic: ModuleType, items: tuple[Item, ...], was: Outcomes, who: str, share: float) -> Outcomes:
    if share == 0:
        return was
    right = [bool(r) != (synthetic.unit(who, item.id) < share) for r, item in zip(was.correct, items, strict=True)]
    return _speak(synthetic, items, right, who)


def _speak(synthetic: ModuleType, items: tuple[Item, ...], right: list[bool], who: str) -> Outcomes:
    task = items[0].id.partition("/")[0]
    if task == "facts":
        return synthetic.make_outcomes(items, right.__getitem__, who)
    n = len(items)
    gold = np.array([item.gold[0] for item in items])
    said = [SAID[i % len(SAID)] for i in range(n)]
    wrong = np.array([-1 if text else UNPARSED for text in said]) if task == "trivia" else (gold + 1) % N_WORDS
    texts = None
    if task == "trivia":
        texts = tuple(
            text.format(item.options[0] if r else "Atlantis") for text, item, r in zip(said, items, right, strict=True)
        )
    scores = None
    if task == "cloze" and "now" in who:
        scores = tuple(tuple(round(-3 - 9 * synthetic.unit(who, i, o), 3) for o in range(N_WORDS)) for i in range(n))
    return Outcomes(
        digests=tuple(item.digest for item in items),
        correct=np.array(right),
        answers=np.where(right, gold, wrong).astype(np.int32),
        ranks=np.where(right, 1, 10 if task == "trivia" else 37).astype(np.int32),
        margins_nats=np.zeros(n) if task == "trivia" else np.where(right, 0.5, -0.75),
        near_ties=np.zeros(n, dtype=np.bool_),
        option_logliks_nats=scores,
        texts=texts,
    )


def _first(outcomes: Outcomes, n: int) -> Outcomes:
    """What a run that was decided early has: the first items only."""
    scores = outcomes.option_logliks_nats
    return Outcomes(
        digests=outcomes.digests[:n],
        correct=outcomes.correct[:n],
        answers=outcomes.answers[:n],
        ranks=outcomes.ranks[:n],
        margins_nats=outcomes.margins_nats[:n],
        near_ties=outcomes.near_ties[:n],
        option_logliks_nats=None if scores is None else scores[:n],
        texts=None if outcomes.texts is None else outcomes.texts[:n],
    )


def _reference(synthetic: ModuleType, cell: Cell, made: object, items: dict, before: dict[str, Outcomes]) -> Reference:
    infos = {name: make_task_info(synthetic, name, items[name]) for name in items}
    return Reference(
        cell, "baseline", synthetic.make_provenance(cell.id), made, infos, dict.fromkeys(items, "exact 1"), before
    )


def _run(synthetic: ModuleType, known: Reference, family: str, items: dict, after: dict[str, Outcomes]) -> CellRun:
    cell = known.cell
    record = CellRecord(
        schema_version=SCHEMA_VERSION,
        cell=cell,
        profile="hub",
        family=family,
        compression=known.compression,
        provenance=synthetic.make_provenance(f"{cell.id} again"),
        tasks=dict(known.tasks),
        scorers=dict(known.scorers),
        origins=dict.fromkeys(items, "measured"),
        wall_s=dict.fromkeys(items, 20.0),
    )
    runs = {
        name: TaskRun(cell.id, known.tasks[name], items[name][: len(after[name])], after[name], "exact 1", "measured")
        for name in items
    }
    return CellRun(record, runs)


def _verdict(synthetic: ModuleType, run: CellRun, before: dict[str, Outcomes]) -> CellVerdict:
    cell = run.record.cell
    pairs = {name: (_right(before[name], task.outcomes.digests), task.outcomes.correct) for name, task in run.runs.items()}
    sizes = {name: task.info.n_items for name, task in run.runs.items()}
    tasks = [_judged(synthetic, cell, name, pairs[name], sizes[name]) for name in pairs]
    pool = [name for name, task in run.runs.items() if task.info.pooled]
    was, now = (np.concatenate([pairs[name][side] for name in pool]) for side in (0, 1))
    pooled = _judged(synthetic, cell, POOLED, (was, now), sum(sizes[name] for name in pool))
    return CellVerdict(cell, "hub", tuple(tasks), pooled)


def _right(known: Outcomes, digests: tuple[str, ...]) -> np.ndarray:
    return np.array([known.correct[known.digests.index(digest)] for digest in digests])


def _judged(synthetic: ModuleType, cell: Cell, name: str, pair: tuple[np.ndarray, np.ndarray], n_planned: int) -> Verdict:
    was, now = pair
    evidence = replace(synthetic.make_evidence(count_changes(was, now), int(was.sum()), 0.01, 0.05), n_planned=n_planned)
    red = cell.id == "t5_4bit-rtn_none" and name in ("facts", POOLED)
    status = Status.REGRESSED if red else Status.PASS
    anchor = "release" if cell.id == "t5_4bit-rtn_none" and name == "facts" else "last"
    reason = "more than the tolerated loss is proven lost" if red else "any loss is smaller than the margin"
    return Verdict(cell.id, name, status, False, red, reason, evidence, anchor)
