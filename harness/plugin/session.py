"""The gate's side of a pytest run: measures a cell when its first case runs, judges it once, hands verdicts to cases."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from harness.baseline import Baseline, Informative, load_baseline, load_release
from harness.core.errors import EXIT_USAGE, HarnessError
from harness.core.records import CellFailure, CellRun
from harness.core.run_folder import UNFINISHED, write_cell
from harness.core.verdicts import POOLED, CellVerdict, Verdict
from harness.execution.local import MeasureOptions, crashed, measure_cell
from harness.execution.matrix import CellPlan, Matrix
from harness.execution.progress import LogToProgress, Progress
from harness.execution.propose import propose
from harness.execution.store import Store
from harness.gate import Policy, feasibility, judge, noise_spread, read_policy, undecided
from harness.plugin.cases import CaseId
from harness.plugin.settings import Settings
from harness.review import POLICY, family_of
from harness.stats.recompression import NO_SPREAD


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

    def verdicts_of(self, case: CaseId) -> tuple[Verdict, ...]:
        """Every verdict on a case's cell, once it was measured."""
        return self._verdicts[case.plan.cell.id].all

    def _tasks(self, plan: CellPlan) -> tuple[str, ...]:
        return self.selected.get(plan.cell.id, ())

    def _measure_and_judge(self, matrix: Matrix, plan: CellPlan) -> CellVerdict:
        policy = read_policy(matrix.path.parent / POLICY)
        write_cell(self.settings.report_dir, CellFailure(plan.cell, plan.profile, UNFINISHED))
        run = self._measure(matrix, plan, policy)
        write_cell(self.settings.report_dir, run)
        try:
            baseline, release = self._anchors(plan)
        except HarnessError as error:
            baseline, release, run = None, None, CellFailure(plan.cell, plan.profile, str(error))
        declared, family = tuple(plan.tasks), family_of(matrix)
        made = judge(run, baseline, policy, family, mode=self.settings.mode, declared_tasks=declared, release=release)
        return made.said(self.settings.place(matrix.path).complete)

    def _anchors(self, plan: CellPlan) -> tuple[Baseline | None, Baseline | None]:
        """The accepted baseline, and the release anchor."""
        where = (self.settings.baseline_dir, plan.profile, plan.cell)
        return load_baseline(*where), load_release(*where)

    def _measure(self, matrix: Matrix, plan: CellPlan, policy: Policy) -> CellRun | CellFailure:
        """The cell as measured, or why it could not be. What the user asked for wrongly (exit code 4) is raised."""
        settings, store = self.settings, Store.default()
        options = MeasureOptions(device=settings.device, data=settings.data, limit=settings.limit, fresh=settings.fresh)
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
                        informative=Informative(policy.informative_margin, policy.interval_level),
                    )
                baseline, release = self._anchors(plan)
                if baseline is not None:
                    self._warn_if_hopeless(policy, baseline)

                def still_open(so_far: CellRun) -> Collection[str]:
                    declared, family = tuple(plan.tasks), family_of(matrix)
                    return undecided(so_far, baseline, policy, family, declared_tasks=declared, release=release)

                return measure_cell(
                    matrix,
                    plan,
                    self._tasks(plan),
                    options=options,
                    store=store,
                    progress=self.progress,
                    baseline=baseline,
                    undecided=None if settings.full else still_open,
                )
            except HarnessError as error:
                if error.exit_code == EXIT_USAGE:
                    raise
                return CellFailure(cell=plan.cell, profile=plan.profile, reason=str(error))
            except Exception as error:  # noqa: BLE001 - GATE: a crash (out of memory, a library's own error) is INVALID, never a regression
                return crashed(plan, error)

    def _warn_if_hopeless(self, policy: Policy, baseline: Baseline) -> None:
        """Say before measuring that a cell is too small to prove what its policy asks."""
        pooled = [task.info for task in baseline.record.tasks.values() if task.info.pooled]
        n_items = sum(min(self.settings.limit or info.n_items, info.n_items, policy.pool_cap_items) for info in pooled)
        if not n_items:
            return
        moves, noise = baseline.record.compression.stability == "re-compressed", baseline.record.noise
        rate = noise.flip_rate[POOLED] if noise else max(policy.flip_rates.of(info.score_class, moves) for info in pooled)
        spread = noise_spread(noise.runs, {info.name: info.n_items for info in pooled}) if moves and noise else NO_SPREAD
        found = feasibility(policy, policy.cell, n_items, flip_rate=rate, spread=spread)
        if not found.feasible:
            self.progress.say(found.sentence(baseline.record.cell.id))
