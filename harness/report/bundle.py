"""What a report is drawn from: the records of one run, whole and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.baseline.record import Baseline
from harness.core.latency import Latency
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellFailure, CellRun, CompressionRecord, Origin, Provenance, TaskInfo
from harness.core.regimes import Regimes
from harness.core.verdicts import CellVerdict
from harness.report.format import parse_moment
from harness.report.history import History


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What a cell is compared with: its own baseline, or the dense cell of its model.

    ``source`` says where the outcomes come from: forward passes of this run, the run store, or a committed baseline.
    """

    cell: Cell
    source: Origin
    provenance: Provenance
    compression: CompressionRecord
    tasks: Mapping[str, TaskInfo]
    scorers: Mapping[str, str]
    outcomes: Mapping[str, Outcomes]

    @property
    def is_whole(self) -> bool:
        """Whether every item of every task was measured."""
        return all(len(self.outcomes[n]) == info.n_items and info.limit is None for n, info in self.tasks.items())

    @classmethod
    def of_run(cls, run: CellRun, source: Origin = "measured") -> Reference:
        """A measured cell as a reference for others."""
        made = run.record
        outcomes = {name: task.outcomes for name, task in run.runs.items()}
        return cls(made.cell, source, made.provenance, made.compression, made.tasks, made.scorers, outcomes)

    @classmethod
    def of_baseline(cls, baseline: Baseline) -> Reference:
        """A committed baseline as a reference: of its own cell, or, where it is the dense cell's, of its model."""
        made = baseline.record
        infos = {name: task.info for name, task in made.tasks.items()}
        scorers = {name: task.scorer for name, task in made.tasks.items()}
        return cls(made.cell, "baseline", made.provenance, made.compression, infos, scorers, baseline.outcomes)


@dataclass(frozen=True, slots=True)
class NotRun:
    """A cell, or one task of it (``task`` is None for all of them), that the profile declares and this run left out."""

    cell: Cell
    task: str | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class RunBundle:
    """One run of the gate.

    ``cells`` stand in matrix order; each measured one has its verdict in ``verdicts`` (a failed one may have).
    ``baselines`` are keyed by cell id, ``dense`` by model name. ``started_at`` and ``ended_at`` are ISO 8601. ``exit_code``
    is what the run ended with, pytest's own codes included. ``command`` is what a reader types to see the same again.
    ``history`` holds every baseline of the profile that was ever accepted, ``pool_cap`` how many items of one task the gate
    takes into a cell's pool (None: all), ``groups`` to which group of knowledge each task belongs, where the matrix says so.
    ``regimes``: what `harness analyze` left of some cells, in matrix order, and a sentence for each of its files that can't
    be read; ``latencies`` what `pytest suites/ -m latency` left, likewise.
    """

    profile: str
    policy: Literal["commit", "release"]
    cells: tuple[CellRun | CellFailure, ...]
    verdicts: tuple[CellVerdict, ...]
    started_at: str
    ended_at: str
    exit_code: int
    command: str
    baselines: Mapping[str, Reference] = field(default_factory=dict)
    dense: Mapping[str, Reference] = field(default_factory=dict)
    not_run: tuple[NotRun, ...] = ()
    history: History = field(default_factory=History)
    pool_cap: int | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    regimes: tuple[Regimes, ...] = ()
    unreadable_regimes: tuple[str, ...] = ()
    latencies: tuple[Latency, ...] = ()
    unreadable_latencies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if parse_moment(self.ended_at) < parse_moment(self.started_at):
            raise ValueError(f"the run ended ({self.ended_at}) before it started ({self.started_at})")
        ids = [cell_of(entry).id for entry in self.cells]
        judged = [verdict.cell.id for verdict in self.verdicts]
        for name, found in (("cells", ids), ("verdicts", judged)):
            if len(set(found)) != len(found):
                raise ValueError(f"{name} hold a cell twice: {sorted(found)}")
        measured = {cell_of(entry).id for entry in self.cells if isinstance(entry, CellRun)}
        if missing := sorted(measured - set(judged)):
            raise ValueError(f"measured but not judged: {missing}; judge them first (a report shows verdicts)")
        if unknown := sorted(set(judged) - set(ids)):
            raise ValueError(f"judged but neither measured nor failed: {unknown}")

    @property
    def wall_s(self) -> float:
        """Seconds from start to end."""
        return (parse_moment(self.ended_at) - parse_moment(self.started_at)).total_seconds()

    @property
    def task_names(self) -> tuple[str, ...]:
        """Every task of the run, measured or not, in the order in which the cells declare them."""
        names: dict[str, None] = {}
        for verdict in self.verdicts:
            names.update(dict.fromkeys(task.task for task in verdict.tasks))
        for entry in self.cells:
            names.update(dict.fromkeys(entry.runs if isinstance(entry, CellRun) else ()))
        names.update(dict.fromkeys(left.task for left in self.not_run if left.task is not None))
        return tuple(names)

    def verdict_of(self, cell_id: str) -> CellVerdict | None:
        """The verdict of a cell; None for a failed cell that was not judged."""
        return next((verdict for verdict in self.verdicts if verdict.cell.id == cell_id), None)

    def why_not_run(self, cell_id: str, task: str) -> str | None:
        """Why a declared task of a cell did not run; None when nothing was said about it."""
        return next((left.reason for left in self.not_run if left.cell.id == cell_id and left.task in (None, task)), None)


def cell_of(entry: CellRun | CellFailure) -> Cell:
    """The cell of a measured or failed entry."""
    return entry.record.cell if isinstance(entry, CellRun) else entry.cell
