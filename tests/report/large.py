"""A run as large as a nightly one: many cells and tasks, thousands of items a cell, made in a few seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np

from harness.core.outcomes import Outcomes
from harness.core.records import SCHEMA_VERSION, Cell, CellRecord, CellRun, Item, TaskInfo, TaskRun
from harness.core.verdicts import POOLED, CellVerdict, Status, Verdict
from harness.report import Reference, RunBundle
from harness.report.pairs import count_changes

N_OPTIONS = 12
FAMILIES = {"llama": "decoder", "bert": "encoder", "t5": "seq2seq"}

Answers = dict[str, Outcomes]


@dataclass
class LargeMaker:
    """Cells over the same tasks; about one item in eight flips against the dense model, and again against the baseline."""

    synthetic: ModuleType
    items: dict[str, tuple[Item, ...]]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    infos: dict[str, TaskInfo] = field(init=False)
    scorers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.infos = {name: self.synthetic.make_info(name, made, pooled=True) for name, made in self.items.items()}
        self.scorers = dict.fromkeys(self.items, "exact 1")

    def answers(self, task: str) -> Outcomes:
        n = len(self.items[task])
        scores = self.rng.normal(-40, 6, (n, N_OPTIONS)).astype(np.float32).astype(np.float64)
        return self._with_right(
            Outcomes(
                digests=tuple(item.digest for item in self.items[task]),
                correct=np.zeros(n, dtype=np.bool_),
                answers=np.zeros(n, dtype=np.int32),
                ranks=np.ones(n, dtype=np.int32),
                margins_nats=np.zeros(n),
                near_ties=self.rng.random(n) < 0.02,
                option_logliks_nats=tuple(map(tuple, scores.tolist())),
            ),
            self.rng.random(n) < 0.6,
        )

    def moved(self, was: Answers) -> Answers:
        return {name: self._with_right(one, one.correct ^ (self.rng.random(len(one)) < 0.12)) for name, one in was.items()}

    def _with_right(self, was: Outcomes, right: np.ndarray) -> Outcomes:
        gold = np.arange(len(right)) % N_OPTIONS
        return replace(
            was,
            correct=right,
            answers=np.where(right, gold, (gold + 1) % N_OPTIONS).astype(np.int32),
            ranks=np.where(right, 1, 3).astype(np.int32),
            margins_nats=np.where(right, 1.0, -1.0) * self.rng.exponential(2.0, len(right)),
        )

    def reference(self, cell: Cell, bits: float, outcomes: Answers) -> Reference:
        made = self.synthetic.make_compression("none" if cell.is_dense else "rtn", bits, int(bits * 17e6))
        provenance = self.synthetic.make_provenance(cell.id)
        return Reference(cell, "baseline", provenance, made, self.infos, self.scorers, outcomes)

    def run(self, known: Reference, outcomes: Answers) -> CellRun:
        cell = known.cell
        record = CellRecord(
            schema_version=SCHEMA_VERSION,
            cell=cell,
            profile="gpu",
            family=FAMILIES[cell.model],
            compression=known.compression,
            provenance=self.synthetic.make_provenance(f"{cell.id} again"),
            tasks=self.infos,
            scorers=self.scorers,
            origins=dict.fromkeys(self.items, "measured"),
            wall_s=dict.fromkeys(self.items, 60.0),
        )
        runs = {n: TaskRun(cell.id, self.infos[n], self.items[n], outcomes[n], "exact 1", "measured") for n in self.items}
        return CellRun(record, runs)

    def verdict(self, cell: Cell, before: Answers, after: Answers) -> CellVerdict:
        tasks = tuple(self._one(cell, name, [before[name]], [after[name]]) for name in before)
        return CellVerdict(cell, "gpu", tasks, self._one(cell, POOLED, list(before.values()), list(after.values())))

    def _one(self, cell: Cell, name: str, before: list[Outcomes], after: list[Outcomes]) -> Verdict:
        was, now = (np.concatenate([one.correct for one in part]) for part in (before, after))
        evidence = self.synthetic.make_evidence(count_changes(was, now), int(was.sum()), 0.005, 0.02)
        status = Status.REGRESSED if "4bit" in cell.compression else Status.PASS
        is_bad = status is Status.REGRESSED
        return Verdict(cell.id, name, status, False, is_bad, "made for a test of the report", evidence)


def make_large_bundle(synthetic: ModuleType, n_cells: int = 24, n_tasks: int = 13, n_items: int = 13_658) -> RunBundle:
    """``n_items`` are those of one cell, over all of its tasks."""
    sizes = np.diff(np.linspace(0, n_items, n_tasks + 1).astype(int))
    maker = LargeMaker(synthetic, {f"task-{t:02d}": make_items(f"task-{t:02d}", int(n)) for t, n in enumerate(sizes)})
    models = list(FAMILIES)[: min(n_cells, len(FAMILIES))]
    dense = {model: {name: maker.answers(name) for name in maker.items} for model in models}
    runs, baselines, verdicts = [], {}, []
    for c in range(n_cells):
        model, step = models[c % len(models)], c // len(models)
        cell = Cell(model, f"{16 - 2 * step}bit-rtn" if step else "none", "none")
        known = maker.reference(cell, 16.0 - 2 * step, maker.moved(dense[model]) if step else dense[model])
        after = maker.moved(dict(known.outcomes))
        runs.append(maker.run(known, after))
        baselines[cell.id] = known
        verdicts.append(maker.verdict(cell, dict(known.outcomes), after))
    return RunBundle(
        profile="gpu",
        policy="release",
        cells=tuple(runs),
        verdicts=tuple(verdicts),
        started_at="2031-05-06T07:00:00Z",
        ended_at="2031-05-06T11:00:00Z",
        exit_code=1,
        command="pytest suites/",
        baselines=baselines,
        dense={model: baselines[f"{model}_none_none"] for model in models},
    )


def make_items(task: str, n: int) -> tuple[Item, ...]:
    words = [f"answer {i} of {task}" for i in range(60)]
    return tuple(
        Item(
            id=f"{task}/{i}",
            group=f"relation {i % 30:02d}",
            prompt=f"The thing number {i} of {task} that is asked for here is [Y].",
            options=tuple(words[(i * 7 + k * 5) % 60] for k in range(N_OPTIONS)),
            gold=(i % N_OPTIONS,),
        )
        for i in range(n)
    )
