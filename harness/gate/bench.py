"""Everything that one cell is judged with against one anchor: its levels, margins and noise, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.baseline import Baseline, NoiseRun, pooled_differences
from harness.core.records import Cell, CellRun
from harness.core.verdicts import POOLED, RECOVERED, Anchor, CellVerdict, Estimate, Evidence, RecoveryEvidence, Status, Verdict
from harness.gate.clusters import ClusteredItems, together
from harness.gate.comparison import Comparison, Incomparable
from harness.gate.decision import Unit, decide, weigh
from harness.gate.policy import Family, Margins, Mode, Policy
from harness.gate.reasons import (
    explain,
    explain_cut_off,
    explain_few_relations,
    explain_identical,
    explain_perplexity,
    explain_stopped,
    explain_uninformative,
)
from harness.gate.trail import Trail
from harness.stats.intervals import wilson
from harness.stats.recompression import NO_SPREAD, Spread, spread_of_loss
from harness.stats.sequential import round_ends

Compared = Mapping[str, Comparison | Incomparable]


@dataclass(frozen=True, slots=True)
class Noise:
    """Whether the cell was compressed again, and what its baseline knows of the spread that this alone makes."""

    recompressed: bool
    baseline: Baseline

    @classmethod
    def of(cls, run: CellRun, baseline: Baseline) -> Noise:
        """The noise between a run and its baseline."""
        same_weights = run.record.provenance.weights_digest == baseline.record.provenance.weights_digest
        moves = "re-compressed" in (run.record.compression.stability, baseline.record.compression.stability)
        return cls(moves and not same_weights, baseline)

    @property
    def unknown(self) -> bool:
        """Whether the cell moved by itself and nobody measured by how much."""
        return self.recompressed and self.baseline.record.noise is None

    def flip_rate(self, member: Comparison, policy: Policy) -> float:
        """f_ref: measured with the baseline, else the policy's for this kind of score."""
        measured = self._measured().get(member.name)
        return measured if measured is not None else policy.flip_rates.of(member.info.score_class, self.recompressed)

    def pooled_flip_rate(self, members: Sequence[Comparison], policy: Policy) -> float:
        """f_ref of tasks together: as measured where they are the baseline's whole pool, else weighted by their items."""
        pool = {name for name, task in self.baseline.record.tasks.items() if task.info.pooled}
        if POOLED in self._measured() and pool == {member.name for member in members}:
            return self._measured()[POOLED]
        sizes = [member.n_in_pool(policy.pool_cap_items) for member in members]
        rates = [self.flip_rate(member, policy) for member in members]
        return sum(rate * size for rate, size in zip(rates, sizes, strict=True)) / sum(sizes)

    def _measured(self) -> Mapping[str, float]:
        """The flip rates that the baseline measured, where they are of the kind of change at hand."""
        known = self.baseline.record
        moves = known.compression.stability == "re-compressed"
        return known.noise.flip_rate if known.noise is not None and self.recompressed == moves else {}

    def spread(self, members: Sequence[Comparison]) -> Spread:
        """How far re-compressing alone moves the loss of these tasks together; none where the weights are the same."""
        noise = self.baseline.record.noise
        if not self.recompressed or noise is None:
            return NO_SPREAD
        return noise_spread(noise.runs, {member.name: member.n_all for member in members})


def noise_spread(runs: Sequence[NoiseRun], n_items: Mapping[str, int]) -> Spread:
    """The spread of the loss of tasks of so many items together, from re-compressions."""
    return spread_of_loss(pooled_differences(runs, n_items))


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything of a verdict that is the same for all units of a cell.

    ``cell_share`` and ``task_share``: of the levels of the cell and of a task, for this anchor (a half where there are two).
    """

    cell: Cell
    profile: str
    policy: Policy
    family: Family
    mode: Mode
    anchor: Anchor = "last"
    cell_share: float = 1.0
    task_share: float = 1.0

    def all_invalid(self, reason: str, names: Sequence[str], *, has_recovery: bool) -> CellVerdict:
        """INVALID for all of the cell."""
        tasks = tuple(self.invalid(name, reason) for name in names)
        recovery = self.invalid(RECOVERED, reason) if has_recovery else None
        return CellVerdict(self.cell, self.profile, tasks, self.invalid(POOLED, reason), recovery)

    def invalid(self, name: str, reason: str) -> Verdict:
        """INVALID for one unit."""
        return self._verdict(name, Status.INVALID, reason)

    def recovery(self, status: Status, reason: str, gain: RecoveryEvidence | None, *, identical: bool = False) -> Verdict:
        """The verdict on the cell's recovery."""
        return replace(self._verdict(RECOVERED, status, reason, identical=identical), gain=gain)

    def task(self, name: str, found: Comparison | Incomparable, noise: Noise, cell_is_red: bool) -> Verdict:
        """The guard on one task. A task that the cell's own FAIL cut off is INCONCLUSIVE."""
        if isinstance(found, Incomparable):
            return self._verdict(name, Status.INVALID, found.reason)
        if found.info.score_class == "perplexity":
            return self._verdict(name, Status.UNINFORMATIVE, explain_perplexity(name))
        if not self.is_informative(found):
            floor = max(found.info.chance, found.info.majority)
            reason = explain_uninformative(name, self._accuracy_before(found), floor, self.policy.informative_margin)
            return self._verdict(name, Status.UNINFORMATIVE, reason)
        return self._decide(name, self.task_unit(found, noise), found.reused, found.limited, cell_is_red)

    def task_unit(self, found: Comparison, noise: Noise) -> Unit:
        """What is tested of one task."""
        everything, trail = np.ones(len(found.digests), dtype=np.bool_), found.trail()
        return Unit(
            trail=trail,
            n_correct_before=int(found.before.sum()),
            margins=self.policy.task if self.anchor == "last" else self.policy.release_task,
            flip_rate=noise.flip_rate(found, self.policy),
            chance=found.info.chance,
            level_fail=self.task_share * self.family.task_level(self.policy),
            spread=noise.spread([found]),
            at_full_n=found.clusters is not None,
            clustered=_by_relation([found], [everything]) if trail.is_complete else None,
        )

    def pool(self, compared: Compared, noise: Noise) -> Verdict:
        """The cell's own verdict: the items of its informative pooled tasks, each task capped, taken together."""
        broken = [name for name, found in compared.items() if isinstance(found, Incomparable)]
        if broken:
            return self._verdict(
                POOLED, Status.INVALID, f"no pool without {', '.join(broken)}, INVALID for the reason given there."
            )
        members = self.members(compared)
        if not members:
            return self._verdict(
                POOLED, Status.UNINFORMATIVE, "none of the cell's pooled tasks can show a loss on these items."
            )
        reused = all(member.reused for member in members)
        return self._decide(POOLED, self.pool_unit(members, noise), reused, any(member.limited for member in members))

    def members(self, compared: Compared) -> list[Comparison]:
        """The tasks whose items make up the pool: those that count as evidence and can show a loss.

        Of a limited run's items, more than the cap, the pool's sample may hold none.
        """
        able = [found for found in compared.values() if isinstance(found, Comparison)]
        pooled = [found for found in able if found.info.pooled and self.is_informative(found)]
        return [found for found in pooled if found.n_in_pool(self.policy.pool_cap_items)]

    def pool_unit(self, members: Sequence[Comparison], noise: Noise) -> Unit:
        """What is tested of a cell: its informative pooled tasks, each capped, as far as all of them were fed."""
        cap = self.policy.pool_cap_items
        kept = [member.in_pool(cap) for member in members]
        sizes = [member.n_in_pool(cap) for member in members]
        trail = Trail.pooled([m.trail(k) for m, k in zip(members, kept, strict=True)], sum(sizes))
        return Unit(
            trail=trail,
            n_correct_before=_right_before(members, kept, len(trail.n_fed)),
            margins=self._cell_margins(),
            flip_rate=noise.pooled_flip_rate(members, self.policy),
            chance=0.0,
            level_fail=self.cell_share * self.family.cell_level(self.policy),
            spread=noise.spread(members),
            at_full_n=any(member.clusters is not None for member in members),
            clustered=_by_relation(members, kept) if trail.is_complete else None,
        )

    def _cell_margins(self) -> Margins:
        if self.anchor == "dense" and (floor := self.policy.floor_of(self.cell)) is not None:
            return floor.margins
        return self.policy.cell if self.anchor == "last" else self.policy.release_cell

    def _decide(self, name: str, unit: Unit, reused: bool, limited: bool, cell_is_red: bool = False) -> Verdict:
        if not unit.counts.n_items:
            return self._verdict(name, Status.INVALID, explain_cut_off(name, 0, unit.trail.n_planned))
        is_whole = unit.trail.is_complete
        if is_whole and unit.counts.n_lost == unit.counts.n_gained == 0 and (reused or not limited):
            evidence = weigh(unit, self.policy)
            if reused:  # the same machine on the same items: nothing can differ on any other item either
                nothing = Estimate(0.0, 0.0, 0.0, evidence.loss.level, "identity")
                evidence = replace(evidence, loss=nothing, proven_margin=0.0)
            return self._verdict(name, Status.PASS, explain_identical(name, evidence, reused), evidence, identical=True)
        if unit.few is not None:
            return self._verdict(name, Status.INCONCLUSIVE, explain_few_relations(name, unit.counts, unit.few))
        status, evidence = decide(unit, self.policy)
        if status is Status.INCONCLUSIVE and not is_whole:
            n_fed, n_all = unit.counts.n_items, unit.trail.n_planned
            if not cell_is_red:
                return self._verdict(name, Status.INVALID, explain_cut_off(name, n_fed, n_all), evidence)
            return self._verdict(name, status, explain_stopped(name, n_fed, n_all), evidence)
        return self._verdict(name, status, explain(self.cell.id, name, status, evidence, self.anchor), evidence)

    def is_informative(self, found: Comparison) -> bool:
        """Whether the baseline knows clearly more than chance and the commonest answer do."""
        floor = max(found.info.chance, found.info.majority) + self.policy.informative_margin
        return self._accuracy_before(found).low > floor

    def _accuracy_before(self, found: Comparison) -> Estimate:
        """On all of the baseline's items: the first few that a limited run was fed must not end it."""
        return wilson(found.n_right_before, len(found.known), self.policy.interval_level)

    def _verdict(
        self, task: str, status: Status, reason: str, evidence: Evidence | None = None, identical: bool = False
    ) -> Verdict:
        fails = self.policy.fails_in(self.mode, status)
        against = {"last": "", "release": "against the frozen release anchor: ", "dense": f"against {self.cell.dense.id}: "}
        return Verdict(self.cell.id, task, status, identical, fails, against[self.anchor] + reason, evidence, self.anchor)


def _by_relation(members: Sequence[Comparison], kept: Sequence[np.ndarray]) -> ClusteredItems | None:
    """The kept items of tasks that were fed whole, where relations of any of them stand for others."""
    if all(member.clusters is None for member in members):
        return None
    clusters = together([member.clusters for member in members], kept)
    before, now = (
        np.concatenate([side[chosen] for side, chosen in zip(sides, kept, strict=True)])
        for sides in ([member.before for member in members], [member.now for member in members])
    )
    return ClusteredItems(before, now, clusters)


def _right_before(members: Sequence[Comparison], kept: Sequence[np.ndarray], n_rounds: int) -> int:
    """How many of the pool's items were right in the baseline, as far as all members were fed."""
    total = 0
    for member, chosen in zip(members, kept, strict=True):
        end = round_ends(member.n_all)[n_rounds - 1] if n_rounds else 0
        total += int((member.before & chosen)[:end].sum())
    return total
