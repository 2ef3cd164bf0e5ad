"""The gate's side of a pytest run: measures a cell when its first case runs, judges it once, hands verdicts to cases."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.baseline import load_baseline
from harness.core.errors import HarnessError
from harness.core.records import CellFailure, CellRun
from harness.core.run_folder import write_cell
from harness.core.verdicts import POOLED, CellVerdict, Verdict
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import CellPlan, Matrix
from harness.execution.progress import LogToProgress, Progress
from harness.execution.propose import propose
from harness.execution.store import Store
from harness.gate import judge, read_policy
from harness.plugin.cases import CaseId
from harness.plugin.settings import Settings
from harness.review import POLICY, family_of


@dataclass(slots=True)
class GateSession:
    """One per pytest process. ``selected`` holds, per cell id, the tasks that this run's selection measures."""

    settings: Settings
    progress: Progress
    selected: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _verdicts: dict[str, CellVerdict] = field(default_factory=dict)

    def case(self, case: CaseId) -> tuple[Verdict | None, tuple[str, ...]]:
        """A case's verdict, and the tasks of its cell that this run leaves out (then a pool has no verdict).

        The first case of a cell measures and judges the whole cell; a verdict is final when it is given.
        Raises ConfigError and other HarnessErrors that no cell can answer for (policy, disk).
        """
        plan = case.plan
        left_out = tuple(task for task in plan.tasks if task not in self._tasks(plan))
        if case.task == POOLED and left_out:
            return None, left_out
        found = self._verdicts.get(plan.cell.id)
        if found is None:
            found = self._verdicts[plan.cell.id] = self._measure_and_judge(case.matrix, plan)
        return next((v for v in found.all if v.task == case.task), None), left_out

    def _tasks(self, plan: CellPlan) -> tuple[str, ...]:
        return self.selected.get(plan.cell.id, ())

    def _measure_and_judge(self, matrix: Matrix, plan: CellPlan) -> CellVerdict:
        policy = read_policy(matrix.path.parent / POLICY)
        run = self._measure(matrix, plan)
        write_cell(self.settings.report_dir, run)
        try:
            baseline = load_baseline(self.settings.baseline_dir, plan.profile, plan.cell)
        except HarnessError as error:
            baseline, run = None, CellFailure(plan.cell, plan.profile, str(error))
        return judge(run, baseline, policy, family_of(matrix), mode=self.settings.mode, declared_tasks=tuple(plan.tasks))

    def _measure(self, matrix: Matrix, plan: CellPlan) -> CellRun | CellFailure:
        settings = self.settings
        options = MeasureOptions(device=settings.device, data=settings.data, limit=settings.limit, fresh=settings.fresh)
        store = Store.default()
        with LogToProgress(self.progress):
            try:
                if settings.baselines != "check":
                    propose(
                        matrix,
                        plan,
                        options=options,
                        store=store,
                        progress=self.progress,
                        root=settings.baseline_dir,
                        mode=settings.baselines,
                        reason=settings.reason or "first baseline of this cell",
                    )
                baseline = load_baseline(settings.baseline_dir, plan.profile, plan.cell)
                return measure_cell(
                    matrix, plan, self._tasks(plan), options=options, store=store, progress=self.progress, baseline=baseline
                )
            except HarnessError as error:
                return CellFailure(cell=plan.cell, profile=plan.profile, reason=str(error))
