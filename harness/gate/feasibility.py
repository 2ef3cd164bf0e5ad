"""Told before anything runs: whether a cell or task of this size could pass at all, and which size would do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import ndtri

from harness.gate.policy import Margins, Policy
from harness.stats.paired import tango_variance
from harness.stats.recompression import NO_SPREAD, Spread, combined_quantile

_LARGEST_N = 100_000_000


@dataclass(frozen=True, slots=True)
class Feasibility:
    """Whether ``n_items`` can prove that less than ``m1`` is lost where nothing is, with the policy's power.

    ``n_needed``: the smallest number of items that can; None when none can (too wide a spread of re-compressions).
    """

    feasible: bool
    n_items: int
    m1: float
    n_needed: int | None

    def sentence(self, name: str) -> str:
        """The warning for a unit that is too small; for one that is not, that it is not."""
        margin = f"a loss below {100 * self.m1:.3g} pt"
        if self.feasible:
            return f"{name}: {self.n_items:,} items are enough to prove {margin}."
        if self.n_needed is None:
            return f"{name}: {margin} can hardly be proven by any number of items, so much do re-compressions spread."
        return f"{name}: {self.n_items:,} items can hardly prove {margin} even if nothing changed; {self.n_needed:,} would do."


def feasibility(
    policy: Policy, margins: Margins, n_items: int, *, flip_rate: float, chance: float = 0.0, spread: Spread = NO_SPREAD
) -> Feasibility:
    """Whether an unchanged unit of ``n_items`` would pass with probability >= ``policy.power``.

    ``margins`` is ``policy.cell`` or ``policy.task``; ``flip_rate`` is f_ref of the change class, ``chance`` that of the
    task (0 for a cell), ``spread`` that of re-compressions.
    """
    early_share = policy.early.pass_share if spread == NO_SPREAD else 0.0
    level, z_power = policy.pass_level * (1 - early_share), float(ndtri(policy.power))

    def passes(n: int) -> bool:
        flips, m1 = n * flip_rate / 2, margins.m1(n, flip_rate) * (1 - chance)
        variance = float(tango_variance(flips, flips, n, m1)) / n
        return combined_quantile(variance, spread, level) + z_power * math.sqrt(variance + spread.sigma**2) <= m1

    m1 = margins.m1(n_items, flip_rate) * (1 - chance)
    return Feasibility(passes(n_items), n_items, m1, _smallest(passes))


def _smallest(passes: Callable[[int], bool]) -> int | None:
    """The smallest n that passes, where all larger ones do too."""
    high = 1
    while not passes(high):
        high *= 2
        if high > _LARGEST_N:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
