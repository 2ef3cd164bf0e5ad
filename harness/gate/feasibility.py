"""Told before anything runs: whether a cell or task of this size could pass at all, and which size would do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import ndtri

from harness.baseline import Baseline, Informative
from harness.core.verdicts import POOLED
from harness.gate.bench import noise_spread
from harness.gate.clusters import has_clusters
from harness.gate.policy import Margins, Policy
from harness.gate.reasons import in_relations
from harness.stats.clusters import FEWEST_CLUSTERS, clustered_quantile
from harness.stats.paired import tango_variance
from harness.stats.recompression import NO_SPREAD, Spread

_LARGEST_N = 10**12
"""Items that nobody will ever measure."""

_STEP = 1.05
"""How finely numbers of items are tried while m1 still shrinks with them."""


@dataclass(frozen=True, slots=True)
class Feasibility:
    """Whether ``n_items`` can prove that less than ``m1`` is lost where nothing is, with the policy's power.

    ``n_needed``: the fewest items, ``n_items`` or more, that can prove it of their own m1; None when none can.
    ``spreads``: whether re-compressing alone moves the loss, which no number of items helps against. ``n_clusters``: the
    relations that stand for others, ``n_clustered`` the items in them; where they do not move together at all, which nobody
    knows before.
    """

    feasible: bool
    n_items: int
    m1: float
    n_needed: int | None
    spreads: bool
    n_clusters: int | None = None
    n_clustered: int | None = None

    def sentence(self, name: str) -> str:
        """The warning for a unit that is too small; for one that is not, that it is not."""
        margin = f"a loss below {100 * self.m1:.3g} pt"
        if self.feasible:
            return f"{name}: {self.n_items:,} items are enough to prove {margin}."
        if self.n_needed is not None:
            what = f"{self.n_items:,} items{self._of()} can hardly prove {margin} even if nothing changed"
            return f"{name}: {what}; {self.n_needed:,} would do."
        if self.spreads:
            what = "so much do re-compressions spread: use a reproducible method, or raise m1_floor in the policy"
            return f"{name}: {margin} can hardly be proven by {self.n_items:,} items or any larger number, {what}."
        return (
            f"{name}: {margin} can't be proven by any number of items that anyone would measure: raise m1_floor in the policy."
        )

    def _of(self) -> str:
        """Which of the items are in relations that stand for others."""
        if self.n_clusters is None or self.n_clustered is None:
            return ""
        what = in_relations(min(self.n_clusters, self.n_clustered), self.n_clustered, self.n_items)
        return f" {what}" if self.n_clustered == self.n_items else f", {what},"


def feasibility(
    policy: Policy,
    margins: Margins,
    n_items: int,
    *,
    flip_rate: float,
    chance: float = 0.0,
    spread: Spread = NO_SPREAD,
    n_clusters: int | None = None,
    n_clustered: int | None = None,
) -> Feasibility:
    """Whether an unchanged unit of ``n_items`` would pass with probability >= ``policy.power``.

    ``margins`` is ``policy.cell`` or ``policy.task``; ``flip_rate`` is f_ref of the change class, ``chance`` that of the
    task (0 for a cell), ``spread`` that of re-compressions, ``n_clusters`` how many relations stand for others,
    ``n_clustered`` how many of the items are in them (None: all): fewer than ten of these prove nothing.
    """
    n_clustered = n_items if n_clusters is not None and n_clustered is None else n_clustered
    early_share = policy.early.pass_share if spread == NO_SPREAD and n_clusters is None else 0.0
    df = math.inf if n_clusters is None else n_clusters - 1.0
    level, z_power = policy.pass_level * (1 - early_share), float(ndtri(policy.power))

    def passes(n: int) -> bool:
        if n_clustered is not None and n_clustered * n < FEWEST_CLUSTERS * n_items:
            return False
        flips, m1 = n * flip_rate / 2, margins.m1(n, flip_rate) * (1 - chance)
        variance = float(tango_variance(flips, flips, n, m1)) / n
        return clustered_quantile(variance, df, spread, level) + z_power * math.sqrt(variance + spread.sigma**2) <= m1

    def has_least_m1(n: int) -> bool:
        return margins.m1(n, flip_rate) <= margins.m1_floor

    m1, n_needed = margins.m1(n_items, flip_rate) * (1 - chance), _fewest(n_items, passes, has_least_m1)
    return Feasibility(n_needed == n_items, n_items, m1, n_needed, spread != NO_SPREAD, n_clusters, n_clustered)


def cell_feasibility(policy: Policy, baseline: Baseline, limit: int | None = None) -> Feasibility | None:
    """Whether an unchanged cell would pass against its baseline, from what is known of that before anything is measured.

    Of the pool as the gate makes it: tasks that can show a loss, each capped, or cut to ``limit``; None without a pool.
    Baselines do not hold which relations tasks share, and a shared one is one cluster: so there are at least as many as the
    task with the most has, and no more are counted on.
    """
    known, informative = baseline.record, Informative(policy.informative_margin, policy.interval_level)
    pooled = [task for task in known.tasks.values() if task.info.pooled]
    members = [task.info for task in pooled if informative.holds(task)]
    sizes = [min(info.n_items, policy.pool_cap_items, limit or info.n_items) for info in members]
    if not members:
        return None
    moves, noise = known.compression.stability == "re-compressed", known.noise
    rates = [noise.flip_rate[i.name] if noise else policy.flip_rates.of(i.score_class, moves) for i in members]
    rate = sum(size * rate for size, rate in zip(sizes, rates, strict=True)) / sum(sizes)
    if noise is not None and len(members) == len(pooled):
        rate = noise.flip_rate[POOLED]
    spread = noise_spread(noise.runs, {info.name: info.n_items for info in members}) if moves and noise else NO_SPREAD
    clustered = [(info.n_clusters or 0, size) for info, size in zip(members, sizes, strict=True) if has_clusters(info, info)]
    return feasibility(
        policy,
        policy.cell,
        sum(sizes),
        flip_rate=rate,
        spread=spread,
        n_clusters=max(n for n, _ in clustered) if clustered else None,
        n_clustered=sum(size for _, size in clustered) if clustered else None,
    )


def _fewest(n_items: int, passes: Callable[[int], bool], has_least_m1: Callable[[int], bool]) -> int | None:
    """The fewest items, ``n_items`` or more, that pass.

    More items do not always help: m1 shrinks with them, and a spread of re-compressions does not. So there may be a window of
    numbers that pass, with none above it; one narrower than a step is not found. With m1 at its floor, more items only help.
    """
    low = high = n_items
    while not passes(high):
        low, high = high, 2 * high if has_least_m1(high) else max(high + 1, int(_STEP * high))
        if high > _LARGEST_N:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
