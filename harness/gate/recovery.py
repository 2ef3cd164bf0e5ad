"""Recovery's own rule: whether a recovery still wins back what it did, over the compressed cell that it starts from.

Four records of the same items: the cell and its compressed sibling, each in its baseline and now. Per item
X = (r0 - c0) - (r1 - c1); see ``stats.recovery`` for the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from harness.core.verdicts import Estimate, RecoveryEvidence, Status
from harness.gate.clusters import ALONE, FewRelations, few_relations, together
from harness.gate.comparison import Comparison
from harness.gate.policy import Policy
from harness.stats.clusters import Alone, Scores, clustered_quantile, is_proven, p_mean_above, p_mean_below
from harness.stats.recompression import NO_SPREAD, Spread
from harness.stats.recovery import (
    VALUES,
    anytime_loss_of_gain,
    log_e_fail_recovery,
    loss_of_gain,
    p_recovery_kept,
    p_recovery_worse,
)
from harness.stats.sequential import anytime_p, round_ends

_MOST_TIMES = 2.0**20
"""The multiple of its items beyond which nobody will measure a cell."""


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
    """One task of both cells over the same items, in the order in which the recovered cell was fed."""

    recovered: Comparison
    compressed_before: Bool[np.ndarray, " n"]
    compressed_now: Bool[np.ndarray, " n"]

    @property
    def lost(self) -> Int[np.ndarray, " n"]:
        """X of each item."""
        before = self.recovered.before.astype(np.int64) - self.compressed_before
        return np.asarray(before - (self.recovered.now.astype(np.int64) - self.compressed_now))

    def counts(self, kept: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " 5 rounds"]:
        """How many of the ``kept`` items have X = -2..2, cumulative, at the ends of the rounds that were fed."""
        lost = self.lost
        ends = np.array([end for end in round_ends(self.recovered.n_all) if end <= len(lost)], dtype=np.int64)
        return np.stack([((lost == value) & kept).cumsum()[ends - 1] for value in VALUES])

    @property
    def is_unchanged(self) -> bool:
        """Whether neither cell answered any item otherwise than in its baseline."""
        recovered = np.array_equal(self.recovered.before, self.recovered.now)
        return recovered and np.array_equal(self.compressed_before, self.compressed_now)


@dataclass(frozen=True, slots=True, eq=False)
class RecoveryUnit:
    """What is tested: cumulative counts of X at the rounds' ends, one row a value, and the levels and noise that apply.

    ``gains``: what recovery gained on the fed items in the baseline, and gains now. ``flip_rate``: f_ref of both cells
    together. ``spread``: how far re-compressing alone moves the mean of X; where it does, there are no early verdicts. Nor are
    there where relations stand for others (``at_full_n``): once all items are in, ``clustered`` has X by relation, or
    ``few`` says that too few were asked to prove anything about them.
    """

    counts: Int[np.ndarray, " 5 rounds"]
    gains: tuple[float, float]
    n_planned: int
    flip_rate: float
    level_fail: float
    spread: Spread
    at_full_n: bool = False
    clustered: Scores | None = None
    few: FewRelations | None = None

    @classmethod
    def of(cls, members: Sequence[Gains], cap: int, *, flip_rate: float, level_fail: float, spread: Spread) -> RecoveryUnit:
        """Tasks as one pool, each capped, as far as all of them were fed."""
        kept = [member.recovered.in_pool(cap) for member in members]
        rounds = [member.counts(part) for member, part in zip(members, kept, strict=True)]
        n_rounds = min(part.shape[1] for part in rounds)
        counts = np.sum([part[:, :n_rounds] for part in rounds], axis=0)
        made = cls(
            counts=counts,
            gains=_gains(members, kept, n_rounds),
            n_planned=sum(member.recovered.n_in_pool(cap) for member in members),
            flip_rate=flip_rate,
            level_fail=level_fail,
            spread=spread,
            at_full_n=any(member.recovered.clusters is not None for member in members),
        )
        if not made.at_full_n or not made.is_complete:
            return made
        clusters = together([member.recovered.clusters for member in members], kept)
        few = few_relations(clusters)
        return replace(made, few=few, clustered=None if few is not None else _by_relation(members, kept, clusters))

    @property
    def is_early(self) -> bool:
        """Whether there may be a verdict before all items are in."""
        return self.spread == NO_SPREAD and not self.at_full_n

    @property
    def n_items(self) -> int:
        """The items that were fed."""
        return int(self.counts[:, -1].sum()) if self.counts.shape[1] else 0

    @property
    def is_complete(self) -> bool:
        """Whether every planned item was fed."""
        return self.n_items == self.n_planned


def decide_recovery(unit: RecoveryUnit, policy: Policy) -> tuple[Status, RecoveryEvidence]:
    """What the counts say. REGRESSED wins over PASS; INCONCLUSIVE is the last word at full N only.

    The unit must hold at least one item, and enough relations (``RecoveryUnit.few``).
    """
    m0, m1 = policy.recovery.m0, policy.recovery.m1(unit.n_planned, unit.flip_rate)
    p_fail, p_pass = _p_fail(unit, policy, m0), _p_pass(unit, policy, m1)
    is_last = unit.few is not None or _is_decided(unit, policy, p_fail, p_pass)
    last, level = unit.counts[:, -1], policy.interval_level
    evidence = RecoveryEvidence(
        counts=(int(last[0]), int(last[1]), int(last[2]), int(last[3]), int(last[4])),
        gain_baseline=unit.gains[0],
        gain_candidate=unit.gains[1],
        loss=_interval(unit, level),
        m0=m0,
        m1=m1,
        p_fail=p_fail,
        p_pass=p_pass,
        level_fail=unit.level_fail,
        level_pass=policy.pass_level,
        sigma_recompression=unit.spread.sigma,
        items_needed=None if is_last else _items_needed(unit, policy, m0),
        n_planned=unit.n_planned,
        n_clusters=None if unit.clustered is None else len(unit.clustered.n_items),
        n_clustered=None if unit.clustered is None else int(unit.clustered.n_items.sum()),
    )
    if p_fail < unit.level_fail:
        return Status.REGRESSED, evidence
    return (Status.PASS if p_pass < policy.pass_level else Status.INCONCLUSIVE), evidence


def is_recovery_decided(unit: RecoveryUnit, policy: Policy) -> bool:
    """Whether the unit needs no more items."""
    if not unit.n_items:
        return False
    p_fail = _p_fail(unit, policy, policy.recovery.m0)
    return _is_decided(unit, policy, p_fail, _p_pass(unit, policy, policy.recovery.m1(unit.n_planned, unit.flip_rate)))


def _is_decided(unit: RecoveryUnit, policy: Policy, p_fail: float, p_pass: float) -> bool:
    return p_fail < unit.level_fail or p_pass < policy.pass_level


def _p_fail(unit: RecoveryUnit, policy: Policy, m0: float) -> float:
    """Early evidence, and at full N Wald's; only that where re-compressing moves the gain. Of clusters the larger of Wald's
    and the cluster t's, and 1 of too few."""
    if unit.few is not None:
        return 1.0
    share = policy.early.fail_share if unit.is_early else 0.0
    full = float(p_recovery_worse(unit.counts[:, -1], m0, unit.spread)) if unit.is_complete else None
    if full is not None and unit.clustered is not None:
        full = max(full, float(p_mean_above(unit.clustered, m0, unit.spread)))
    return float(anytime_p(float(log_e_fail_recovery(unit.counts, m0).max()), share, full))


def _p_pass(unit: RecoveryUnit, policy: Policy, m1: float) -> float:
    """The e-value alone: Wald on X passes far too often where X is hardly ever anything but 0. Of clusters at full N only, and
    the larger of that and the cluster t's; 1 of too few."""
    if unit.few is not None or (not unit.is_early and not unit.is_complete):
        return 1.0
    by_items = p_recovery_kept(unit.counts, m1, policy.pass_level, unit.spread)
    return by_items if unit.clustered is None else max(by_items, float(p_mean_below(unit.clustered, m1, unit.spread)))


def _interval(unit: RecoveryUnit, level: float) -> Estimate:
    """Of the mean of X; of clusters the outer one of Wald's and the cluster t's."""
    if not unit.is_complete:
        return anytime_loss_of_gain(unit.counts, level)
    made = loss_of_gain(unit.counts[:, -1], level, unit.spread)
    if unit.clustered is None:
        return made
    half = clustered_quantile(unit.clustered.variance_of(1.0), unit.clustered.df, unit.spread, (1 - level) / 2)
    low, high = min(made.low, made.value - half), max(made.high, made.value + half)
    return Estimate(made.value, max(-2.0, low), min(2.0, high), level, "cluster t")


def _by_relation(members: Sequence[Gains], kept: Sequence[np.ndarray], clusters: np.ndarray) -> Scores:
    """X by relation, of tasks that were fed whole; ``clusters`` are the kept items' numbers."""
    lost = np.concatenate([member.lost[chosen] for member, chosen in zip(members, kept, strict=True)])
    alone = clusters == ALONE
    places = np.unique(clusters[~alone], return_inverse=True)[1]
    apart = Alone(float(lost[alone].sum()), float((lost[alone] ** 2).sum()), int(alone.sum()))
    return Scores(np.bincount(places, weights=lost[~alone]), np.bincount(places), apart)


def _items_needed(unit: RecoveryUnit, policy: Policy, m0: float) -> int | None:
    """How many more items would decide if X came as it has; None where no number that anyone measures would."""
    seen = unit.counts[:, -1]
    full_share = 1 - (policy.early.fail_share if unit.is_early else 0.0)
    mean = float(seen @ np.array(VALUES)) / float(seen.sum())

    def is_far(distance: float, times: float, level: float) -> bool:
        if unit.clustered is None:
            return True
        df = times * len(unit.clustered.n_items) - 1
        return is_proven(distance, unit.clustered.variance_of(times), df, unit.spread, level)

    def decides(times: float) -> bool:
        counts = seen * times
        m1 = policy.recovery.m1(int(counts.sum()), unit.flip_rate)
        fails = float(p_recovery_worse(counts, m0, unit.spread)) / full_share < unit.level_fail
        if fails and is_far(mean - m0, times, unit.level_fail):
            return True
        kept = p_recovery_kept(counts[:, None], m1, policy.pass_level, unit.spread) < policy.pass_level
        return kept and is_far(m1 - mean, times, policy.pass_level)

    low, high = 1.0, 2.0
    while not decides(high):
        low, high = high, 2 * high
        if high > _MOST_TIMES:
            return None
    while high - low > 1 / unit.n_items:
        middle = (low + high) / 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return max(1, round(high * unit.n_items) - unit.n_items)


def _gains(members: Sequence[Gains], kept: Sequence[np.ndarray], n_rounds: int) -> tuple[float, float]:
    """What recovery gained, as a fraction of the fed items of the pool, in the baseline and now."""
    n_items, before, now = 0, 0, 0
    for member, chosen in zip(members, kept, strict=True):
        part = chosen.copy()
        part[round_ends(member.recovered.n_all)[n_rounds - 1] if n_rounds else 0 :] = False
        n_items += int(part.sum())
        before += int((member.recovered.before & part).sum()) - int((member.compressed_before & part).sum())
        now += int((member.recovered.now & part).sum()) - int((member.compressed_now & part).sum())
    return (before / n_items, now / n_items) if n_items else (0.0, 0.0)
