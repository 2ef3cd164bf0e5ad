"""Judge and report a run on disk: what both doors, pytest and the command line, do after measuring.

Needs no torch. The same records, baselines and policy give the same verdicts, whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.baseline import Baseline, Place, load_baseline, load_release
from harness.baseline.store import HISTORY_FILE
from harness.core.errors import BaselineError
from harness.core.records import Cell, CellFailure, CellRun, Origin
from harness.core.run_folder import read_run
from harness.core.verdicts import CellVerdict
from harness.execution.matrix import Matrix
from harness.gate import Family, Mode, Policy, judge, read_policy
from harness.report import NotRun, Reference, RunBundle, read_history, write_report

POLICY = "policy.toml"
"""The policy's file, beside the matrix."""

NOT_SELECTED = "not selected in this run"


def family_of(matrix: Matrix) -> Family:
    """The family of tests: every cell and task that the profile declares, whatever a run selects."""
    return Family(n_cells=len(matrix.cells), n_tasks=matrix.n_tasks)


@dataclass(frozen=True, slots=True)
class Review:
    """One run folder beside its matrix, policy and baselines."""

    folder: Path
    matrix: Matrix
    mode: Mode
    baseline_dir: Path

    def judge(self) -> list[tuple[CellRun | CellFailure, CellVerdict]]:
        """Every cell of the run with its verdicts, in matrix order. Raises FileFormatError, ConfigError, UnknownNameError."""
        return [(run, verdict) for run, verdict, _ in self._judged(self._policy())]

    def write_report(self, *, started_at: str, ended_at: str, exit_code: int, command: str) -> Path:
        """Judge the run and write its report into the run folder; returns the page's path."""
        policy = self._policy()
        judged = list(self._judged(policy))
        runs = [run for run, _, _ in judged]
        baselines = {_cell(run).id: Reference.of_baseline(known) for run, _, known in judged if known is not None}
        bundle = RunBundle(
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
            not_run=tuple(self._not_run(runs)),
            history=read_history(self.baseline_dir / self.matrix.profile / HISTORY_FILE),
            pool_cap=policy.pool_cap_items,
        )
        return write_report(self.folder, bundle)

    def _runs(self) -> list[CellRun | CellFailure]:
        order = {cell_id: index for index, cell_id in enumerate(self.matrix.cells)}
        return sorted(read_run(self.folder), key=lambda run: order.get(_cell(run).id, len(order)))

    def _policy(self) -> Policy:
        return read_policy(self.matrix.path.parent / POLICY)

    def _judged(self, policy: Policy) -> Iterator[tuple[CellRun | CellFailure, CellVerdict, Baseline | None]]:
        """Every cell with its verdict and its baseline; None where there is none, or it can't be used."""
        family, place = family_of(self.matrix), Place(self.matrix.profile, self.matrix.path, self.baseline_dir)
        for run in self._runs():
            plan, entry = self.matrix.plan(_cell(run).id), run
            baseline = release = None
            try:
                baseline = self._baseline(plan.cell)
                release = load_release(self.baseline_dir, self.matrix.profile, plan.cell)
            except BaselineError as error:
                entry = CellFailure(plan.cell, plan.profile, str(error))
            declared = tuple(plan.tasks)
            verdict = judge(entry, baseline, policy, family, mode=self.mode, declared_tasks=declared, release=release)
            yield run, verdict.said(place.complete), baseline

    def _baseline(self, cell: Cell) -> Baseline | None:
        return load_baseline(self.baseline_dir, self.matrix.profile, cell)

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

    def _not_run(self, runs: list[CellRun | CellFailure]) -> list[NotRun]:
        by_id = {_cell(run).id: run for run in runs}
        left: list[NotRun] = []
        for cell_id, plan in self.matrix.cells.items():
            run = by_id.get(cell_id)
            if run is None:
                left.append(NotRun(plan.cell, None, NOT_SELECTED))
            elif isinstance(run, CellRun):
                left += [NotRun(plan.cell, task, NOT_SELECTED) for task in plan.tasks if task not in run.runs]
        return left


def _cell(run: CellRun | CellFailure) -> Cell:
    return run.cell if isinstance(run, CellFailure) else run.record.cell


def _source(run: CellRun) -> Origin:
    """Where most of a run's numbers came from: forward passes, if there were any."""
    origins = set(run.record.origins.values())
    return "measured" if "measured" in origins else "stored" if "stored" in origins else "baseline"
