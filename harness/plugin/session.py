"""The gate's side of a pytest run: measures a cell when its first case runs, judges it once, hands verdicts to cases."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from harness.baseline import Baseline, Informative, load_baseline, load_release
from harness.core.errors import EXIT_USAGE, HarnessError
from harness.core.records import Cell, CellFailure, CellRun
from harness.core.run_folder import UNFINISHED, write_cell
from harness.core.verdicts import POOLED, RECOVERED, CellVerdict, Verdict
from harness.execution.local import MeasureOptions, crashed, measure_cell
from harness.execution.matrix import CellPlan, Matrix
from harness.execution.progress import LogToProgress, Progress
from harness.execution.propose import propose
from harness.execution.store import Store
from harness.gate import Dense, Policy, Sibling, cell_feasibility, judge, undecided
from harness.plugin.cases import CaseId
from harness.plugin.settings import Settings
from harness.review import family_of, policy_of, sibling_of, why_no_recovery

_WHOLE = {POOLED: "pool", RECOVERED: "recovery"}


@dataclass(frozen=True, slots=True)
class Against:
    """What a cell is judged against."""

    baseline: Baseline | None = None
    release: Baseline | None = None
    dense: Dense | None = None
    sibling: Sibling | None = None


@dataclass(slots=True)
class GateSession:
    """One per pytest process. ``selected`` holds, per cell id, the tasks that this run's selection measures; ``recovered`` the
    cells whose recovery is to be judged: where it leaves out what these are judged beside, that is measured along, and counts.
    """

    settings: Settings
    progress: Progress
    selected: dict[str, tuple[str, ...]] = field(default_factory=dict)
    recovered: frozenset[str] = frozenset()
    _verdicts: dict[str, CellVerdict] = field(default_factory=dict)
    _shared: dict[str, CellRun | CellFailure] = field(default_factory=dict)

    def case(self, case: CaseId) -> tuple[Verdict | None, str]:
        """A case's verdict, or why it has none: a pool and a recovery need every task, a recovery also its sibling.

        The first case of a cell measures and judges the whole cell; a verdict is final when it is given.
        Raises ConfigError and other HarnessErrors that no cell can answer for (policy, disk).
        """
        plan = case.plan
        left_out = tuple(task for task in plan.tasks if task not in self.selected.get(plan.cell.id, ()))
        if case.task in (POOLED, RECOVERED) and left_out:
            return (
                None,
                f"the {_WHOLE[case.task]} of {case} needs every task of the cell; left out here: {', '.join(left_out)}",
            )
        found = self._verdicts.get(plan.cell.id)
        if found is None:
            along = self._along(case.matrix, plan)
            if along is not None and along.cell.id not in self._verdicts:
                self._verdicts[along.cell.id] = self._measure_and_judge(case.matrix, along)
            found = self._verdicts[plan.cell.id] = self._measure_and_judge(case.matrix, plan)
        return next((v for v in found.all if v.task == case.task), None), why_no_recovery(found) or ""

    def verdicts_of(self, case: CaseId) -> tuple[Verdict, ...]:
        """Every verdict on a case's cell, and on the sibling that was measured along with it, once they were measured."""
        along = self._along(case.matrix, case.plan)
        cells = [plan.cell.id for plan in (case.plan, along) if plan is not None]
        return tuple(verdict for cell in cells for verdict in self._verdicts[cell].all)

    def _along(self, matrix: Matrix, plan: CellPlan) -> CellPlan | None:
        """The compressed sibling that this run does not select, and a selected recovery can't be judged without."""
        cell, sibling = plan.cell.id, plan.cell.sibling
        if sibling is None or sibling.id in self.selected or cell not in self.recovered:
            return None
        is_whole = set(plan.tasks) <= set(self.selected.get(cell, ()))
        return matrix.cells.get(sibling.id) if is_whole else None

    def _tasks(self, matrix: Matrix, plan: CellPlan) -> tuple[str, ...]:
        """What is measured of a cell: what was selected, or what the recoveries that it is measured along with are asked."""
        if plan.cell.id in self.selected:
            return self.selected[plan.cell.id]
        asked = {t for cell in self.recovered if self._along(matrix, matrix.plan(cell)) == plan for t in self.selected[cell]}
        return tuple(task for task in plan.tasks if task in asked)

    def _measure_and_judge(self, matrix: Matrix, plan: CellPlan) -> CellVerdict:
        policy = policy_of(matrix)
        write_cell(self.settings.report_dir, CellFailure(plan.cell, plan.profile, UNFINISHED))
        run = self._run_of(matrix, plan, policy)
        write_cell(self.settings.report_dir, run)
        try:
            against = self._against(matrix, plan, policy)
        except HarnessError as error:
            sibling = Sibling(None, None) if plan.cell.sibling is not None else None
            against, run = Against(sibling=sibling), CellFailure(plan.cell, plan.profile, str(error))
        made = judge(
            run,
            against.baseline,
            policy,
            family_of(matrix),
            mode=self.settings.mode,
            declared_tasks=tuple(plan.tasks),
            release=against.release,
            dense=against.dense,
            sibling=against.sibling,
        )
        return made.said(self.settings.place(matrix.path).complete)

    def _run_of(self, matrix: Matrix, plan: CellPlan, policy: Policy) -> CellRun | CellFailure:
        """The cell's own run; kept where other cells of this run need it, taken over where one needed it before."""
        cell = plan.cell.id
        if cell in self._shared and self.settings.baselines == "check":
            return self._shared[cell]
        run = self._measure(matrix, plan, policy, propose_first=cell in self.selected)
        if any(plan in self._needed(matrix, matrix.plan(other), policy) for other in self.selected if other in matrix.cells):
            self._shared[cell] = run
        return run

    def _needed(self, matrix: Matrix, plan: CellPlan, policy: Policy) -> list[CellPlan]:
        """The other cells of this run that the verdict on one cell needs."""
        dense = plan.cell.dense.id if policy.floor_of(plan.cell) is not None else None
        sibling = plan.cell.sibling.id if plan.cell.sibling is not None else None
        along = self._along(matrix, plan)
        chosen = [
            matrix.cells[cell] for cell in dict.fromkeys((dense, sibling)) if cell in matrix.cells and cell in self.selected
        ]
        return chosen if along is None else [*chosen, along]

    def _against(self, matrix: Matrix, plan: CellPlan, policy: Policy) -> Against:
        """What a cell is judged against; cells of this run that it needs and that were not measured yet are measured now.

        Under xdist another worker may measure them too: the store hands out what is there, and only a cell's own case writes.
        """
        root, profile = self.settings.baseline_dir, plan.profile
        runs: dict[str, CellRun | CellFailure] = {}
        for needed in self._needed(matrix, plan, policy):
            if needed.cell.id not in self._shared:
                self._shared[needed.cell.id] = self._measure(matrix, needed, policy, propose_first=False)
            runs[needed.cell.id] = self._shared[needed.cell.id]
        dense = None
        if policy.floor_of(plan.cell) is not None:
            found = runs.get(plan.cell.dense.id)
            dense = Dense(found if isinstance(found, CellRun) else None, load_baseline(root, profile, plan.cell.dense))
        sibling = None
        if plan.cell.sibling is not None:
            sibling = sibling_of(matrix, plan, runs.get(plan.cell.sibling.id), root)
        return Against(load_baseline(root, profile, plan.cell), load_release(root, profile, plan.cell), dense, sibling)

    def _is_reference(self, plan: CellPlan) -> bool:
        """Whether recovered cells of this run are judged beside this one, item by item: then it is measured whole."""
        return any(Cell.parse(other).sibling == plan.cell for other in self.selected)

    def _measure(self, matrix: Matrix, plan: CellPlan, policy: Policy, *, propose_first: bool = True) -> CellRun | CellFailure:
        """The cell as measured, or why it could not be. What the user asked for wrongly (exit code 4) is raised."""
        settings, store = self.settings, Store.default()
        options = MeasureOptions(
            device=settings.device,
            data=settings.data,
            limit=settings.limit,
            fresh=settings.fresh,
            baseline_dir=settings.baseline_dir,
        )
        with LogToProgress(self.progress):
            try:
                if propose_first:
                    propose(
                        matrix,
                        plan,
                        options=options,
                        store=store,
                        progress=self.progress,
                        root=settings.baseline_dir,
                        mode=settings.baselines,
                        reason=settings.reason or "first baseline of this cell",
                        informative=Informative(policy.informative_margin, policy.interval_level),
                    )
                against = self._against(matrix, plan, policy)
                if against.baseline is not None:
                    self._warn_if_hopeless(policy, against.baseline)

                def still_open(so_far: CellRun) -> Collection[str]:
                    return undecided(
                        so_far,
                        against.baseline,
                        policy,
                        family_of(matrix),
                        declared_tasks=tuple(plan.tasks),
                        release=against.release,
                        dense=against.dense,
                        sibling=against.sibling,
                    )

                return measure_cell(
                    matrix,
                    plan,
                    self._tasks(matrix, plan),
                    options=options,
                    store=store,
                    progress=self.progress,
                    baseline=against.baseline,
                    undecided=None if settings.full or self._is_reference(plan) else still_open,
                )
            except HarnessError as error:
                if error.exit_code == EXIT_USAGE:
                    raise
                return CellFailure(cell=plan.cell, profile=plan.profile, reason=str(error))
            except Exception as error:  # noqa: BLE001 - GATE: a crash (out of memory, a library's own error) is INVALID, never a regression
                return crashed(plan, error)

    def _warn_if_hopeless(self, policy: Policy, baseline: Baseline) -> None:
        """Say before measuring that a cell is too small to prove what its policy asks."""
        found = cell_feasibility(policy, baseline, self.settings.limit)
        if found is not None and not found.feasible:
            self.progress.say(found.sentence(baseline.record.cell.id))
