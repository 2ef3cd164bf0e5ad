"""The judge: a measured cell, its baselines and the policy in; one verdict per task and one for the pool out.

In this order: what can't be compared is INVALID; what the baseline never knew is UNINFORMATIVE; what did not change is
PASS *identical*; the rest is decided by the tests of ``gate.decision``. Where a release anchor was frozen, every unit is
judged against it too, at half the error rate each, and the worse verdict counts: many small losses, each tolerated against
the last baseline, add up against the anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.baseline import Baseline, forbidden_differences, propose_command
from harness.core.errors import EXIT_INCONCLUSIVE, EXIT_INVALID, EXIT_PASS, EXIT_REGRESSED
from harness.core.records import CellFailure, CellRun
from harness.core.verdicts import Anchor, CellVerdict, Status, Verdict
from harness.gate.bench import Bench, Noise
from harness.gate.comparison import Comparison, Incomparable, compare
from harness.gate.decision import decide, is_decided
from harness.gate.policy import Family, Mode, Policy

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
) -> CellVerdict:
    """The verdicts on one cell.

    ``family`` counts what the profile declares, so that a verdict does not depend on what else ran. Tasks of the run that
    are not declared are left alone; when a declared one is missing from the run there is no pooled verdict. ``release`` is
    the frozen anchor, where there is one.
    """
    if isinstance(run, CellFailure):
        return Bench(run.cell, run.profile, policy, family, mode).all_invalid(run.reason, declared_tasks)
    by = judgings(policy, family, mode, has_release=release is not None)
    last = _judge_by(run, baseline, by[0], declared_tasks)
    if release is None or baseline is None:
        return last
    return _worse(last, _judge_by(run, release, by[1], declared_tasks))


def undecided(
    run: CellRun,
    baseline: Baseline | None,
    policy: Policy,
    family: Family,
    *,
    declared_tasks: Sequence[str],
    release: Baseline | None = None,
) -> frozenset[str]:
    """The tasks of a cell that must be fed further before ``judge`` can decide it.

    A task of the pool is fed while the pool is undecided, whatever the task's own verdict: stopping it at its own PASS would
    select the losers. A REGRESSED pool stops the cell. Where nothing can be decided (no baseline) all tasks are measured.
    """
    by = judgings(policy, family, "commit", has_release=release is not None)
    by_last = _undecided_by(run, baseline, by[0], declared_tasks)
    if release is None or by_last is None:
        return by_last or frozenset()
    by_release = _undecided_by(run, release, by[1], declared_tasks)
    return frozenset() if by_release is None else by_last | by_release


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


# ------------------------------------------------------------------------------------------------ one anchor


@dataclass(frozen=True, slots=True)
class Judging:
    """By what a cell is judged: policy, family, and which anchor at which share of the error rates."""

    policy: Policy
    family: Family
    mode: Mode
    anchor: Anchor
    share: float

    def bench(self, run: CellRun) -> Bench:
        """The bench of one cell."""
        cell, profile = run.record.cell, run.record.profile
        return Bench(cell, profile, self.policy, self.family, self.mode, self.anchor, self.share)


def judgings(policy: Policy, family: Family, mode: Mode, *, has_release: bool) -> tuple[Judging, ...]:
    """By what a cell is judged, the last baseline first: alone, or with the release anchor at half the error rates each."""
    if not has_release:
        return (Judging(policy, family, mode, "last", 1.0),)
    return Judging(policy, family, mode, "last", 0.5), Judging(policy, family, mode, "release", 0.5)


def _judge_by(run: CellRun, baseline: Baseline | None, by: Judging, declared_tasks: Sequence[str]) -> CellVerdict:
    bench = by.bench(run)
    names = [name for name in declared_tasks if name in run.runs]
    if not names:
        reason = (
            f"the run of {run.record.cell.id} holds {', '.join(run.runs) or 'no task'}, and the matrix declares "
            f"{', '.join(declared_tasks)}: nothing was compared; measure it again."
        )
        return bench.all_invalid(reason, declared_tasks)
    whole = len(names) == len(declared_tasks)
    problem = _cell_problem(run, baseline, by.policy)
    if problem is not None or baseline is None:
        return bench.all_invalid(problem or "", names, pooled=whole)
    noise = Noise.of(run, baseline)
    compared = {name: compare(run, baseline, name) for name in names}
    pooled = bench.pool(compared, noise) if whole else None
    is_red = pooled is not None and pooled.status is Status.REGRESSED
    tasks = tuple(bench.task(name, found, noise, is_red) for name, found in compared.items())
    return CellVerdict(bench.cell, bench.profile, tasks, pooled)


def _undecided_by(
    run: CellRun, baseline: Baseline | None, by: Judging, declared_tasks: Sequence[str]
) -> frozenset[str] | None:
    """The tasks that this anchor still needs; None when the pool regressed, so that nothing more is fed."""
    names = [name for name in declared_tasks if name in run.runs]
    if baseline is None or _cell_problem(run, baseline, by.policy) is not None:
        return frozenset(names)
    bench, noise = by.bench(run), Noise.of(run, baseline)
    found = {name: compare(run, baseline, name) for name in names}
    able = {name: c for name, c in found.items() if isinstance(c, Comparison) and bench.is_informative(c)}
    left = {name for name, c in able.items() if not is_decided(bench.task_unit(c, noise), by.policy)}
    members = bench.members(found)
    has_pool = len(names) == len(declared_tasks) and not any(isinstance(c, Incomparable) for c in found.values())
    if members and has_pool:
        pool = bench.pool_unit(members, noise)
        if not is_decided(pool, by.policy):
            left |= {member.name for member in members}
        elif decide(pool, by.policy)[0] is Status.REGRESSED:
            return None
    return frozenset(left)


def _cell_problem(run: CellRun, baseline: Baseline | None, policy: Policy) -> str | None:
    cell = run.record.cell
    if baseline is None:
        return f"{cell.id} has no baseline to be compared with: {propose_command(cell.id)} makes one for review."
    known = baseline.record
    if (known.cell, known.profile) != (cell, run.record.profile):
        mine = f"{run.record.profile}/{cell.id}"
        return f"the baseline is that of {known.profile}/{known.cell.id}, not of {mine}: load the right one."
    if Noise.of(run, baseline).unknown:
        return (
            f"{cell.id} was compressed again, which moves it although nothing regressed, and its baseline does not know "
            f"by how much: {propose_command(cell.id)} measures that."
        )
    differing = forbidden_differences(known.provenance, run.record.provenance, policy.require_same)
    if differing:
        return (
            f"the policy requires the baseline's {', '.join(differing)}: measure there, take the part out of require_same, or "
            f"accept a baseline measured here ({propose_command(cell.id)})."
        )
    return None


def _worse(last: CellVerdict, release: CellVerdict) -> CellVerdict:
    """Unit by unit the worse of two verdicts; where neither is bad, that against the last baseline."""
    tasks = tuple(_worse_of(one, other) for one, other in zip(last.tasks, release.tasks, strict=True))
    pools = (last.pooled, release.pooled)
    pooled = None if pools[0] is None or pools[1] is None else _worse_of(pools[0], pools[1])
    return CellVerdict(last.cell, last.profile, tasks, pooled)


def _worse_of(last: Verdict, release: Verdict) -> Verdict:
    for status in _WORST_FIRST:
        for verdict in (last, release):
            if verdict.status is status:
                return verdict
    return last
