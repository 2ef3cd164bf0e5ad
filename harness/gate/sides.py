"""A cell beside each of its anchors: the accepted baseline, the release anchor, the dense cell where there is a floor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.baseline import Baseline, forbidden_differences
from harness.core.command import propose_command
from harness.core.records import CellRun
from harness.core.verdicts import POOLED, Anchor, ChoiceShift, Status, Verdict
from harness.gate.bench import Bench, Compared, Noise
from harness.gate.choice import choice_shift
from harness.gate.comparison import Comparison, Incomparable, again, compare, compare_dense
from harness.gate.decision import decide, is_decided
from harness.gate.dense import Dense, dense_record
from harness.gate.policy import Family, Mode, Policy


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

    def choice_shift(self, name: str) -> ChoiceShift | None:
        """How the choice among prompts moved on one task; None where nothing was chosen."""
        return None if isinstance(self.joined, Incomparable) else choice_shift(self.joined.compared[name])

    def undecided(self, names: Sequence[str], *, has_pool: bool) -> frozenset[str] | None:
        """The tasks of ``names`` that this anchor still needs; None when the pool regressed: then nothing more is fed."""
        bench, joined, has_guards = self.bench, self.joined, self.bench.anchor != "dense"
        if isinstance(joined, Incomparable):
            return frozenset(names) if has_guards else frozenset()
        able = {n: c for n, c in joined.compared.items() if isinstance(c, Comparison) and bench.is_informative(c)}
        guarded = able if has_guards else {}
        left = {name for name, c in guarded.items() if not is_decided(bench.task_unit(c, joined.noise), bench.policy)}
        if has_guards:  # of the texts, too, every one is wanted, though nothing is decided by them
            left |= {n for n, c in joined.compared.items() if isinstance(c, Comparison) and _is_cut_perplexity(c)}
        members = bench.members(joined.compared)
        if members and has_pool and not any(isinstance(c, Incomparable) for c in joined.compared.values()):
            pool = bench.pool_unit(members, joined.noise)
            if not is_decided(pool, bench.policy):
                left |= {member.name for member in members}
            elif decide(pool, bench.policy)[0] is Status.REGRESSED:
                return None
        return frozenset(left)


def _is_cut_perplexity(found: Comparison) -> bool:
    return found.info.score_class == "perplexity" and not found.is_complete


def sides_of(
    run: CellRun, anchors: Anchors, *, policy: Policy, family: Family, mode: Mode, names: Sequence[str]
) -> Iterator[Side]:
    """A cell beside each of its anchors, the last baseline first.

    The cell's level is shared equally by all of them, and by its recovery where it has one; a task's by the last baseline and
    the release anchor.
    """
    last = anchors.last
    release = anchors.release if last is not None else None
    by = benches(run, policy, family, mode, has_last=last is not None, has_release=release is not None)
    yield _side(run, last, by["last"], names)
    if release is not None:
        yield _side(run, release, by["release"], names)
    if "dense" in by:
        pooled = [name for name in names if run.runs[name].info.pooled]
        yield Side(by["dense"], _join_dense(run, anchors.dense, policy, pooled))


def benches(
    run: CellRun, policy: Policy, family: Family, mode: Mode, *, has_last: bool, has_release: bool
) -> dict[Anchor, Bench]:
    """The bench of a cell for each of its anchors, with its part of the levels."""
    cell = run.record.cell
    anchors: list[Anchor] = ["last"]
    if has_release:
        anchors.append("release")
    n_guards = len(anchors)
    if has_last and policy.floor_of(cell) is not None:
        anchors.append("dense")
    n_tests = len(anchors) + (cell.sibling is not None)
    return {
        anchor: Bench(cell, run.record.profile, policy, family, mode, anchor, 1 / n_tests, 1 / n_guards) for anchor in anchors
    }


def _side(run: CellRun, baseline: Baseline | None, bench: Bench, names: Sequence[str]) -> Side:
    problem = cell_problem(run, baseline, bench.policy)
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


def cell_problem(run: CellRun, baseline: Baseline | None, policy: Policy) -> str | None:
    """Why nothing of a run can be judged by a baseline: a sentence with what to do; None where it can."""
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
