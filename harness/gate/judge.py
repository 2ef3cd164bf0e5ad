"""The judge: a measured cell, its baselines and the policy in; one verdict per task and one for the pool out.

In this order: what can't be compared is INVALID; what the baseline never knew is UNINFORMATIVE; what did not change is
PASS *identical*; the rest is decided by the tests of ``gate.decision``. Where a release anchor was frozen, every unit is
judged against it too: many small losses, each tolerated against the last baseline, add up against the anchor. Where the
policy sets a floor, the pool is judged against the model's dense cell as well. The worst verdict counts. Where a cell was
recovered, its recovery is judged by its own rule beside the compressed sibling. Each of these tests takes an equal part of
the cell's error rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.baseline import Baseline
from harness.core.errors import EXIT_INCONCLUSIVE, EXIT_INVALID, EXIT_PASS, EXIT_REGRESSED
from harness.core.records import Cell, CellFailure, CellRun
from harness.core.verdicts import CellVerdict, Status, Verdict
from harness.gate.bench import Bench
from harness.gate.comparison import Incomparable
from harness.gate.dense import Dense
from harness.gate.policy import Family, Mode, Policy
from harness.gate.recovery import is_recovery_decided
from harness.gate.sibling import Sibling, join_siblings, judge_recovery, recovery_unit
from harness.gate.sides import Anchors, Side, sides_of

_WORST_FIRST = (Status.REGRESSED, Status.INVALID, Status.INCONCLUSIVE)


def judge(
    run: CellRun | CellFailure,
    baseline: Baseline | None,
    policy: Policy,
    family: Family,
    *,
    mode: Mode,
    declared_tasks: Sequence[str],
    release: Baseline | None = None,
    dense: Dense | None = None,
    sibling: Sibling | None = None,
) -> CellVerdict:
    """The verdicts on one cell.

    ``family`` counts what the profile declares, so that a verdict does not depend on what else ran. Tasks of the run that
    are not declared are left alone; when a declared one is missing from the run there is no pooled verdict. ``release`` is
    the frozen anchor, where there is one; ``dense`` what there is of the dense cell, asked for where the policy has a floor;
    ``sibling`` the compressed cell that a recovered one starts from, None where this run left it out.
    """
    if isinstance(run, CellFailure):
        bench = Bench(run.cell, run.profile, policy, family, mode)
        return bench.all_invalid(run.reason, declared_tasks, has_recovery=sibling is not None)
    names = [name for name in declared_tasks if name in run.runs]
    if not names:
        reason = (
            f"the run of {run.record.cell.id} holds {', '.join(run.runs) or 'no task'}, and the matrix declares "
            f"{', '.join(declared_tasks)}: nothing was compared; measure it again."
        )
        bench = Bench(run.record.cell, run.record.profile, policy, family, mode)
        return bench.all_invalid(reason, declared_tasks, has_recovery=sibling is not None)
    anchors = Anchors(baseline, release, dense or Dense())
    sides = list(sides_of(run, anchors, policy=policy, family=family, mode=mode, names=names))
    pooled = _worst([side.pool() for side in sides]) if len(names) == len(declared_tasks) else None
    is_red = pooled is not None and pooled.status is Status.REGRESSED
    guards = [side for side in sides if side.bench.anchor != "dense"]
    tasks = tuple(
        replace(_worst([side.task(name, is_red) for side in guards]), choice=sides[0].choice_shift(name)) for name in names
    )
    recovery = None
    if sibling is not None and run.record.cell.sibling is not None and pooled is not None:
        recovery = judge_recovery(run.record.cell.sibling, sides[0], sibling, is_red)
    return CellVerdict(run.record.cell, run.record.profile, tasks, pooled, recovery)


def undecided(
    run: CellRun,
    baseline: Baseline | None,
    policy: Policy,
    family: Family,
    *,
    declared_tasks: Sequence[str],
    release: Baseline | None = None,
    dense: Dense | None = None,
    sibling: Sibling | None = None,
) -> frozenset[str]:
    """The tasks of a cell that must be fed further before ``judge`` can decide it.

    A task of the pool is fed while the pool is undecided, whatever the task's own verdict: stopping it at its own PASS would
    select the losers; and while the recovery is. A REGRESSED pool stops the cell. Where nothing can be decided (no
    baseline) all tasks are measured.
    """
    names = [name for name in declared_tasks if name in run.runs]
    anchors = Anchors(baseline, release, dense or Dense())
    left: set[str] = set()
    has_pool = len(names) == len(declared_tasks)
    sides = list(sides_of(run, anchors, policy=policy, family=family, mode="commit", names=names))
    for side in sides:
        found = side.undecided(names, has_pool=has_pool)
        if found is None:
            return frozenset()
        left |= found
    if sibling is not None and run.record.cell.sibling is not None and has_pool:
        left |= _undecided_by_recovery(run.record.cell.sibling, sides[0], sibling)
    return frozenset(left)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """What a run ends with: 1 if anything regressed, else 11 if anything is invalid, else 10 if something inconclusive
    fails under the mode, else 0. That nothing was judged at all is for the caller to notice."""
    failing = {verdict.status for verdict in verdicts if verdict.fails}
    for status, code in (
        (Status.REGRESSED, EXIT_REGRESSED),
        (Status.INVALID, EXIT_INVALID),
        (Status.INCONCLUSIVE, EXIT_INCONCLUSIVE),
    ):
        if status in failing:
            return code
    return EXIT_PASS


def _undecided_by_recovery(cell: Cell, side: Side, sibling: Sibling) -> frozenset[str]:
    """The tasks that the recovery's own rule still needs; none where it can't be judged at all."""
    members = join_siblings(cell, side, sibling)
    if isinstance(members, Incomparable) or not members:
        return frozenset()
    if is_recovery_decided(recovery_unit(side, sibling, members), side.bench.policy):
        return frozenset()
    return frozenset(member.recovered.name for member in members)


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of the verdicts on one unit; where none is bad, the first, that against the last baseline."""
    for status in _WORST_FIRST:
        for verdict in verdicts:
            if verdict.status is status:
                return verdict
    return verdicts[0]
