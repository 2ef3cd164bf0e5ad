"""Judge and report a run on disk: what both doors, pytest and the command line, do after measuring.

Needs no torch. The same records, baselines and policy give the same verdicts, whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from harness.baseline import Baseline, load_baseline, load_release
from harness.baseline.store import HISTORY_FILE
from harness.core.command import Place
from harness.core.errors import BaselineError, ConfigError
from harness.core.latency import read_latencies
from harness.core.records import Cell, CellFailure, CellRun, Origin
from harness.core.regimes import read_regimes
from harness.core.run_folder import read_run
from harness.core.shelf import unknown_name
from harness.core.verdicts import RECOVERED, CellVerdict
from harness.execution.matrix import CellPlan, Matrix, declared_cells
from harness.gate import Dense, Family, Mode, Policy, Sibling, cell_feasibility, judge, read_policy, sibling_left_out
from harness.report import NotRun, Reference, RunBundle, early_warnings, read_history, write_report

POLICY = "policy.toml"
"""The policy's file, beside the matrix."""

NOT_SELECTED = "not selected in this run"


def family_of(matrix: Matrix) -> Family:
    """The family of tests: every cell and task that the profile declares, whatever a run selects."""
    return Family(n_cells=len(matrix.cells), n_tasks=matrix.n_tasks)


def policy_of(matrix: Matrix) -> Policy:
    """The policy beside a matrix. Raises ConfigError, also for a floor that no cell of any profile has."""
    path = matrix.path.parent / POLICY
    policy = read_policy(path)
    cells = declared_cells(matrix.path) if policy.dense_floor else frozenset()
    for floor in policy.dense_floor:
        if not any(fnmatchcase(cell, floor.cells) for cell in cells):
            raise ConfigError(f"{path}: dense_floor: {unknown_name('cell or pattern', floor.cells, cells)}")
    return policy


def size_warning(matrix: Matrix, plan: CellPlan, baseline_dir: Path, limit: int | None) -> str | None:
    """Said before a cell is measured: that it is too small to prove what its policy asks, and which N would do.

    None where it is not, and where nothing is known yet: no policy beside the matrix, no baseline. One that can't be read is
    said instead.
    """
    if not (matrix.path.parent / POLICY).exists():
        return None
    try:
        baseline = load_baseline(baseline_dir, plan.profile, plan.cell)
    except BaselineError as error:
        return str(error)
    found = None if baseline is None else cell_feasibility(policy_of(matrix), baseline, limit)
    return None if found is None or found.feasible else found.sentence(plan.cell.id)


def sibling_of(matrix: Matrix, plan: CellPlan, run: CellRun | CellFailure | None, baseline_dir: Path) -> Sibling | None:
    """What a cell's recovery is judged beside, ``run`` being its sibling's.

    None for a cell that is not recovered, and where this run left the sibling out, or a task of it that the cell has. Raises
    BaselineError.
    """
    cell = plan.cell.sibling
    if cell is None:
        return None
    declared = matrix.cells.get(cell.id)
    if declared is None:
        return Sibling(None, None)
    if run is None or (isinstance(run, CellRun) and any(t in declared.tasks and t not in run.runs for t in plan.tasks)):
        return None
    return Sibling(run, load_baseline(baseline_dir, plan.profile, cell))


def why_no_recovery(verdict: CellVerdict) -> str | None:
    """Why a recovered cell has no verdict on its recovery; None where it has one, or is not recovered."""
    if verdict.cell.sibling is None or verdict.recovery is not None:
        return None
    return sibling_left_out(verdict.cell) if verdict.pooled is not None else "a task of the cell was left out"


@dataclass(frozen=True, slots=True)
class Review:
    """One run folder beside its matrix, policy and baselines."""

    folder: Path
    matrix: Matrix
    mode: Mode
    baseline_dir: Path

    def judge(self) -> list[tuple[CellRun | CellFailure, CellVerdict]]:
        """Every cell of the run with its verdicts, in matrix order. Raises FileFormatError, ConfigError, UnknownNameError."""
        return [(run, verdict) for run, verdict, _ in self._judged(policy_of(self.matrix))]

    def write_report(self, *, started_at: str, ended_at: str, exit_code: int, command: str) -> tuple[Path, tuple[str, ...]]:
        """Judge the run and write its report into the run folder; returns the page's path, and a line an early warning."""
        bundle = self.bundle(started_at=started_at, ended_at=ended_at, exit_code=exit_code, command=command)
        return write_report(self.folder, bundle), early_warnings(bundle)

    def bundle(self, *, started_at: str, ended_at: str, exit_code: int, command: str) -> RunBundle:
        """Judge the run: all that a report is drawn from."""
        policy = policy_of(self.matrix)
        judged = list(self._judged(policy))
        runs = [run for run, _, _ in judged]
        baselines = {_cell(run).id: Reference.of_baseline(known) for run, _, known in judged if known is not None}
        (regimes, unreadable), latencies = read_regimes(self.folder), read_latencies(self.folder)
        return RunBundle(
            profile=self.matrix.profile,
            policy=self.mode,
            cells=tuple(runs),
            verdicts=tuple(verdict for _, verdict, _ in judged),
            started_at=started_at,
            ended_at=ended_at,
            exit_code=exit_code,
            command=command,
            baselines=baselines,
            dense=self._dense(runs, baselines),
            not_run=tuple(self._not_run([(run, verdict) for run, verdict, _ in judged])),
            history=read_history(self.baseline_dir / self.matrix.profile / HISTORY_FILE),
            pool_cap=policy.pool_cap_items,
            groups={
                name: entry.group
                for plan in self.matrix.cells.values()
                for name, entry in plan.tasks.items()
                if entry.group is not None
            },
            regimes=tuple(sorted(regimes, key=lambda made: self._place(made.cell.id))),
            unreadable_regimes=unreadable,
            latencies=latencies[0],
            unreadable_latencies=latencies[1],
        )

    def _runs(self) -> list[CellRun | CellFailure]:
        return sorted(read_run(self.folder), key=lambda run: self._place(_cell(run).id))

    def _place(self, cell: str) -> int:
        """Where a cell stands in the matrix; what it does not name comes last."""
        order = list(self.matrix.cells)
        return order.index(cell) if cell in order else len(order)

    def _judged(self, policy: Policy) -> Iterator[tuple[CellRun | CellFailure, CellVerdict, Baseline | None]]:
        """Every cell with its verdict and its baseline; None where there is none, or it can't be used."""
        family, place = family_of(self.matrix), Place(self.matrix.profile, self.matrix.path, self.baseline_dir)
        runs = self._runs()
        measured = {_cell(run).id: run for run in runs}
        for run in runs:
            plan, entry = self.matrix.plan(_cell(run).id), run
            baseline = release = dense = None
            sibling = Sibling(None, None) if plan.cell.sibling is not None else None
            try:
                baseline = self._baseline(plan.cell)
                release = load_release(self.baseline_dir, self.matrix.profile, plan.cell)
                dense = self._floor(policy, plan.cell, measured)
                sibling = sibling_of(self.matrix, plan, measured.get(_sibling_id(plan)), self.baseline_dir)
            except BaselineError as error:
                entry = CellFailure(plan.cell, plan.profile, str(error))
            verdict = judge(
                entry,
                baseline,
                policy,
                family,
                mode=self.mode,
                declared_tasks=tuple(plan.tasks),
                release=release,
                dense=dense,
                sibling=sibling,
            )
            yield run, verdict.said(place.complete), baseline

    def _baseline(self, cell: Cell) -> Baseline | None:
        return load_baseline(self.baseline_dir, self.matrix.profile, cell)

    def _floor(self, policy: Policy, cell: Cell, measured: Mapping[str, CellRun | CellFailure]) -> Dense | None:
        """What there is of a cell's dense one, where the policy holds the cell against it."""
        if policy.floor_of(cell) is None:
            return None
        found = measured.get(cell.dense.id)
        return Dense(found if isinstance(found, CellRun) else None, self._baseline(cell.dense))

    def _dense(self, runs: list[CellRun | CellFailure], baselines: Mapping[str, Reference]) -> dict[str, Reference]:
        measured = {
            run.record.cell.model: Reference.of_run(run, _source(run))
            for run in runs
            if isinstance(run, CellRun) and run.record.cell.is_dense
        }
        cells = {_cell(run).model: Cell(_cell(run).model, "none", "none") for run in runs}
        stored = {model: baselines.get(cell.id) or self._stored(cell) for model, cell in cells.items()}
        known = {model: reference for model, reference in stored.items() if reference is not None}
        whole = {model: reference for model, reference in measured.items() if reference.is_whole}
        return {**measured, **known, **whole}

    def _stored(self, cell: Cell) -> Reference | None:
        try:
            baseline = self._baseline(cell)
        except BaselineError:  # said by the cell's INVALID verdict
            return None
        return None if baseline is None else Reference.of_baseline(baseline)

    def _not_run(self, judged: list[tuple[CellRun | CellFailure, CellVerdict]]) -> list[NotRun]:
        by_id = {_cell(run).id: run for run, _ in judged}
        reasons = {verdict.cell.id: why_no_recovery(verdict) for _, verdict in judged}
        left: list[NotRun] = []
        for cell_id, plan in self.matrix.cells.items():
            run = by_id.get(cell_id)
            if run is None:
                left.append(NotRun(plan.cell, None, NOT_SELECTED))
            elif isinstance(run, CellRun):
                left += [NotRun(plan.cell, task, NOT_SELECTED) for task in plan.tasks if task not in run.runs]
                reason = reasons[cell_id]
                left += [NotRun(plan.cell, RECOVERED, reason)] if reason is not None else []
        return left


def _cell(run: CellRun | CellFailure) -> Cell:
    return run.cell if isinstance(run, CellFailure) else run.record.cell


def _sibling_id(plan: CellPlan) -> str:
    return plan.cell.sibling.id if plan.cell.sibling is not None else ""


def _source(run: CellRun) -> Origin:
    """Where most of a run's numbers came from: forward passes, if there were any."""
    origins = set(run.record.origins.values())
    return "measured" if "measured" in origins else "stored" if "stored" in origins else "baseline"
