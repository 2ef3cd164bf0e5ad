"""The judge: a measured cell, its baselines and the policy in; one verdict per task and one for the pool out.

In this order: what can't be compared is INVALID; what the baseline never knew is UNINFORMATIVE; what did not change is
PASS *identical*; the rest is decided by the tests of ``gate.decision``. Where a release anchor was frozen, every unit is
judged against it too: many small losses, each tolerated against the last baseline, add up against the anchor. Where the
policy sets a floor, the pool is judged against the model's dense cell as well. Each anchor takes an equal part of the
error rate, and the worst verdict counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.baseline import Baseline, forbidden_differences, propose_command
from harness.core.errors import EXIT_INCONCLUSIVE, EXIT_INVALID, EXIT_PASS, EXIT_REGRESSED
from harness.core.records import CellFailure, CellRun
from harness.core.verdicts import POOLED, Anchor, CellVerdict, Status, Verdict
from harness.gate.bench import Bench, Compared, Noise
from harness.gate.comparison import Comparison, Incomparable, again, compare, compare_dense
from harness.gate.decision import decide, is_decided
from harness.gate.dense import Dense, dense_record
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
    dense: Dense | None = None,
) -> CellVerdict:
    """The verdicts on one cell.

    ``family`` counts what the profile declares, so that a verdict does not depend on what else ran. Tasks of the run that
    are not declared are left alone; when a declared one is missing from the run there is no pooled verdict. ``release`` is
    the frozen anchor, where there is one; ``dense`` what there is of the dense cell, asked for where the policy has a floor.
    """
    if isinstance(run, CellFailure):
        return Bench(run.cell, run.profile, policy, family, mode).all_invalid(run.reason, declared_tasks)
    names = [name for name in declared_tasks if name in run.runs]
    anchors = Anchors(baseline, release, dense or Dense())
    sides = list(_sides(run, anchors, policy=policy, family=family, mode=mode, names=names))
    pooled = _worst([side.pool() for side in sides]) if len(names) == len(declared_tasks) else None
    is_red = pooled is not None and pooled.status is Status.REGRESSED
    guards = [side for side in sides if side.bench.anchor != "dense"]
    tasks = tuple(_worst([side.task(name, is_red) for side in guards]) for name in names)
    return CellVerdict(run.record.cell, run.record.profile, tasks, pooled)


def undecided(
    run: CellRun,
    baseline: Baseline | None,
    policy: Policy,
    family: Family,
    *,
    declared_tasks: Sequence[str],
    release: Baseline | None = None,
    dense: Dense | None = None,
) -> frozenset[str]:
    """The tasks of a cell that must be fed further before ``judge`` can decide it.

    A task of the pool is fed while the pool is undecided, whatever the task's own verdict: stopping it at its own PASS would
    select the losers. A REGRESSED pool stops the cell. Where nothing can be decided (no baseline) all tasks are measured.
    """
    names = [name for name in declared_tasks if name in run.runs]
    anchors = Anchors(baseline, release, dense or Dense())
    left: set[str] = set()
    for side in _sides(run, anchors, policy=policy, family=family, mode="commit", names=names):
        found = side.undecided(names, has_pool=len(names) == len(declared_tasks))
        if found is None:
            return frozenset()
        left |= found
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


# ------------------------------------------------------------------------------------------------ one anchor


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """What a cell is judged against: the accepted baseline, the frozen one where there is one, and the dense cell."""

    last: Baseline | None
    release: Baseline | None
    dense: Dense


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A cell's tasks item by item beside an anchor's, and the noise between the two."""

    compared: Compared
    noise: Noise


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """A cell beside one anchor; Incomparable where none of its tasks can be judged by it."""

    bench: Bench
    joined: Joined | Incomparable

    def pool(self) -> Verdict:
        """The verdict on the cell."""
        if isinstance(self.joined, Incomparable):
            return self.bench.invalid(POOLED, self.joined.reason)
        return self.bench.pool(self.joined.compared, self.joined.noise)

    def task(self, name: str, cell_is_red: bool) -> Verdict:
        """The verdict on one task."""
        if isinstance(self.joined, Incomparable):
            return self.bench.invalid(name, self.joined.reason)
        return self.bench.task(name, self.joined.compared[name], self.joined.noise, cell_is_red)

    def undecided(self, names: Sequence[str], *, has_pool: bool) -> frozenset[str] | None:
        """The tasks of ``names`` that this anchor still needs; None when the pool regressed: then nothing more is fed."""
        bench, joined, has_guards = self.bench, self.joined, self.bench.anchor != "dense"
        if isinstance(joined, Incomparable):
            return frozenset(names) if has_guards else frozenset()
        able = {n: c for n, c in joined.compared.items() if isinstance(c, Comparison) and bench.is_informative(c)}
        guarded = able if has_guards else {}
        left = {name for name, c in guarded.items() if not is_decided(bench.task_unit(c, joined.noise), bench.policy)}
        members = bench.members(joined.compared)
        if members and has_pool and not any(isinstance(c, Incomparable) for c in joined.compared.values()):
            pool = bench.pool_unit(members, joined.noise)
            if not is_decided(pool, bench.policy):
                left |= {member.name for member in members}
            elif decide(pool, bench.policy)[0] is Status.REGRESSED:
                return None
        return frozenset(left)


def _sides(
    run: CellRun, anchors: Anchors, *, policy: Policy, family: Family, mode: Mode, names: Sequence[str]
) -> Iterator[Side]:
    """A cell beside each of its anchors. The levels of the pool are shared by all of them, those of the tasks by the last
    baseline and the release anchor."""
    cell, last = run.record.cell, anchors.last
    release = anchors.release if last is not None else None
    floor = policy.floor_of(cell) if last is not None else None
    n_guards = 1 if release is None else 2
    n_anchors = n_guards if floor is None else n_guards + 1

    def bench(anchor: Anchor) -> Bench:
        return Bench(cell, run.record.profile, policy, family, mode, anchor, 1 / n_anchors, 1 / n_guards)

    yield _side(run, last, bench("last"), names)
    if release is not None:
        yield _side(run, release, bench("release"), names)
    if floor is not None:
        pooled = [name for name in names if run.runs[name].info.pooled]
        yield Side(bench("dense"), _join_dense(run, anchors.dense, policy, pooled))


def _side(run: CellRun, baseline: Baseline | None, bench: Bench, names: Sequence[str]) -> Side:
    problem = _cell_problem(run, baseline, bench.policy)
    if problem is not None or baseline is None:
        return Side(bench, Incomparable(problem or ""))
    return Side(bench, Joined({name: compare(run, baseline, name) for name in names}, Noise.of(run, baseline)))


def _join_dense(run: CellRun, dense: Dense, policy: Policy, names: Sequence[str]) -> Joined | Incomparable:
    """A cell beside its dense one. By how much re-compressing alone moves it is no excuse: the floor is for these weights."""
    record = dense_record(run, dense)
    if isinstance(record, Incomparable):
        return record
    known = record.record
    if differing := forbidden_differences(known.provenance, run.record.provenance, policy.require_same):
        what = f"the policy requires the {', '.join(differing)} of {known.cell.id}"
        return Incomparable(f"{what}: {again(known.cell)}, or take the part out of require_same.")
    compared = {name: compare_dense(run, record, name) for name in names}
    broken = [f"{name}: {found.reason}" for name, found in compared.items() if isinstance(found, Incomparable)]
    return Incomparable(broken[0]) if broken else Joined(compared, Noise(False, record))


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


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of the verdicts on one unit; where none is bad, the first, that against the last baseline."""
    for status in _WORST_FIRST:
        for verdict in verdicts:
            if verdict.status is status:
                return verdict
    return verdicts[0]
