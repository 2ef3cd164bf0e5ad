"""A recovered cell beside its compressed sibling: four records joined by item, and the verdict on what recovery wins back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.baseline import Baseline
from harness.core.digest import places_of
from harness.core.records import Cell, CellFailure, CellRun
from harness.core.verdicts import RECOVERED, Status, Verdict
from harness.gate.bench import Noise
from harness.gate.comparison import Comparison, Incomparable, compare
from harness.gate.reasons import (
    explain_cut_off,
    explain_few_relations_of_recovery,
    explain_recovery,
    explain_stopped,
    explain_unchanged_recovery,
)
from harness.gate.recovery import Gains, RecoveryUnit, decide_recovery
from harness.gate.sides import Joined, Side, cell_problem
from harness.stats.recompression import NO_SPREAD, Spread


@dataclass(frozen=True, slots=True, eq=False)
class Sibling:
    """The compressed cell that a recovered one starts from: as this run measured it, whole, and as accepted.

    ``run`` is None where the matrix does not declare the sibling. Where it is declared and this run left it out, there is no
    ``Sibling`` and no verdict on the recovery.
    """

    run: CellRun | CellFailure | None
    baseline: Baseline | None


def sibling_left_out(cell: Cell) -> str:
    """Why a recovered cell has no verdict on its recovery in this run, and what gives one."""
    kind = f"{cell.model}_{cell.compression}"
    return f"its compressed sibling {kind}_none was not measured whole in this run: measure both (-k {kind})"


def judge_recovery(cell: Cell, side: Side, sibling: Sibling, cell_is_red: bool) -> Verdict:
    """The verdict on a recovery; ``cell`` is the sibling's, ``side`` the recovered cell beside its last baseline."""
    bench = side.bench
    members = join_siblings(cell, side, sibling)
    if isinstance(members, Incomparable):
        return bench.recovery(Status.INVALID, members.reason, None)
    if not members:
        return bench.recovery(Status.UNINFORMATIVE, "none of the cell's pooled tasks can show a loss on these items.", None)
    unit = recovery_unit(side, sibling, members)
    if not unit.n_items:
        return bench.recovery(Status.INVALID, explain_cut_off(RECOVERED, 0, unit.n_planned), None)
    if unit.few is not None and not _is_unchanged(members):
        return bench.recovery(Status.INCONCLUSIVE, explain_few_relations_of_recovery(cell.id, unit.n_items, unit.few), None)
    status, gain = decide_recovery(unit, bench.policy)
    if unit.is_complete and _is_unchanged(members):
        return bench.recovery(Status.PASS, explain_unchanged_recovery(cell.id, unit.n_items), gain, identical=True)
    reason = explain_recovery(bench.cell.id, cell.id, status, gain)
    if status is Status.INCONCLUSIVE and not unit.is_complete:
        status = status if cell_is_red else Status.INVALID
        reason = (explain_stopped if cell_is_red else explain_cut_off)(RECOVERED, unit.n_items, unit.n_planned)
    return bench.recovery(status, reason, gain)


def _is_unchanged(members: Sequence[Gains]) -> bool:
    """Whether neither cell flipped an item; of a sample that proves nothing unless nothing was measured at all."""
    tasks = [member.recovered for member in members]
    is_sample = any(task.limited for task in tasks) and not all(task.reused for task in tasks)
    return not is_sample and all(member.is_unchanged for member in members)


def join_siblings(cell: Cell, side: Side, sibling: Sibling) -> list[Gains] | Incomparable:
    """The tasks of the recovered cell's pool beside its sibling's, [] where none can show a loss."""
    if sibling.run is None:
        return Incomparable(
            f'the matrix declares no {cell.id}, over which recovery wins something back: add the recovery "none" to the grid.'
        )
    if isinstance(sibling.run, CellFailure):
        return Incomparable(f"its compressed sibling {cell.id} could not be measured: {sibling.run.reason}")
    if isinstance(side.joined, Incomparable):
        return side.joined
    problem = cell_problem(sibling.run, sibling.baseline, side.bench.policy)
    if problem is not None or sibling.baseline is None:
        return Incomparable(f"its compressed sibling can't be compared: {problem}")
    broken = [name for name, found in side.joined.compared.items() if isinstance(found, Incomparable)]
    if broken:
        return Incomparable(f"nothing is judged without {', '.join(broken)}, INVALID for the reason given there.")
    joined = [_join_task(cell, task, sibling.run, sibling.baseline) for task in side.bench.members(side.joined.compared)]
    reasons = [found for found in joined if isinstance(found, Incomparable)]
    return reasons[0] if reasons else [found for found in joined if isinstance(found, Gains)]


def _join_task(cell: Cell, recovered: Comparison, run: CellRun, baseline: Baseline) -> Gains | Incomparable:
    name = recovered.name
    if name not in run.runs:
        return Incomparable(f"{cell.id} is not asked {name}: list the task in its grid too.")
    compressed = compare(run, baseline, name)
    if isinstance(compressed, Incomparable):
        return Incomparable(f"{name} of {cell.id}: {compressed.reason}")
    place = places_of(compressed.digests)
    missing = sum(digest not in place for digest in recovered.digests)
    if missing:
        return Incomparable(
            f"{cell.id} lacks {missing:,} of the {len(recovered.digests):,} items of {name} that were measured here: measure "
            "it whole in the same run (--harness-full)."
        )
    order = np.fromiter((place[digest] for digest in recovered.digests), np.intp, len(recovered.digests))
    return Gains(recovered, compressed.before[order], compressed.now[order])


def recovery_unit(side: Side, sibling: Sibling, members: Sequence[Gains]) -> RecoveryUnit:
    """What is tested of a recovery: the pool, with the noise of both cells."""
    bench, policy = side.bench, side.bench.policy
    tasks = [member.recovered for member in members]
    noises = [joined.noise for joined in (side.joined,) if isinstance(joined, Joined)]
    if isinstance(sibling.run, CellRun) and sibling.baseline is not None:
        noises.append(Noise.of(sibling.run, sibling.baseline))
    return RecoveryUnit.of(
        members,
        policy.pool_cap_items,
        flip_rate=sum(noise.pooled_flip_rate(tasks, policy) for noise in noises),
        level_fail=bench.cell_share * bench.family.cell_level(policy),
        spread=_together([noise.spread(tasks) for noise in noises]),
    )


def _together(spreads: Sequence[Spread]) -> Spread:
    """At most so far re-compressing moves a difference of two cells, however much they move together."""
    known = [spread for spread in spreads if spread != NO_SPREAD]
    return Spread(sum(one.sigma for one in known), min(one.df for one in known)) if known else NO_SPREAD
