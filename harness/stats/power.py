"""What a paired comparison can find, and how many items it would need. Losses are in fractions of *all* items.

Levels are one-sided and those of the normal statistic itself; what the gate keeps back for early stopping is the caller's.
"""

from __future__ import annotations

import math

from scipy.special import ndtri

from harness.core.verdicts import PairedCounts
from harness.stats.paired import tango_z, wald_z


def minimal_detectable_loss(
    n_items: int, *, flip_rate: float, margin: float, level: float, power: float, sigma: float = 0.0
) -> float | None:
    """The smallest true loss that "more than ``margin`` is lost" is proven for with probability ``power``.

    ``flip_rate`` is the share of items that flip either way when nothing changed; a loss d adds d of lost items, so the
    variance of the estimate is (f + d - d^2)/N + sigma^2. Normal approximation: d - margin = (z_level + z_power) * SE(d),
    a quadratic in d. None where not even losing every item would be found.

    >>> round(minimal_detectable_loss(1000, flip_rate=0.03, margin=0.01, level=0.05, power=0.8), 4)
    0.029
    """
    k = float(ndtri(1 - level) + ndtri(power))
    share = k * k / n_items
    a, b, c = 1 + share, -(2 * margin + share), margin * margin - share * flip_rate - (k * sigma) ** 2
    loss = (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)
    return loss if loss < 1 else None


def items_to_fail(counts: PairedCounts, margin: float, level: float, sigma: float = 0.0) -> int | None:
    """How many items in all would prove "more than ``margin`` is lost" if items kept flipping at these rates.

    Both statistics, Tango's and Wald's, must pass. None where no number would: the loss is not above the margin, or
    ``sigma``, which more items do not shrink, is too large.

    >>> items_to_fail(PairedCounts(25, 5, 970), 0.01, 0.001)
    2827
    """
    b, c, n = counts.n_lost, counts.n_gained, counts.n_items
    excess = counts.loss - margin
    both = [_items_for(excess, float(z(b, c, n, margin)), n, level, sigma) for z in (tango_z, wald_z)]
    needed = [items for items in both if items is not None]
    return max(needed) if len(needed) == len(both) else None


def items_to_pass(counts: PairedCounts, margin: float, level: float, sigma: float = 0.0) -> int | None:
    """How many items in all would prove "less than ``margin`` is lost" (Tango) if items kept flipping at these rates.

    >>> items_to_pass(PairedCounts(25, 20, 955), 0.01, 0.025)
    7059
    """
    z = float(tango_z(counts.n_lost, counts.n_gained, counts.n_items, margin))
    return _items_for(margin - counts.loss, -z, counts.n_items, level, sigma)


def _items_for(distance: float, z: float, n_items: int, level: float, sigma: float) -> int | None:
    """The N at which a distance from the margin is significant: without sigma, z grows exactly as sqrt(N)."""
    if distance <= 0:
        return None
    item_variance = n_items * (distance / z) ** 2
    allowed = (distance / float(ndtri(1 - level))) ** 2 - sigma * sigma
    return math.ceil(item_variance / allowed) if allowed > 0 else None
