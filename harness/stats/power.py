"""What a paired comparison can find, and how many items it would need. Losses are in fractions of *all* items.

Levels are one-sided and those of the normal statistic itself; what the gate keeps back for early stopping is the caller's.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import ndtri

from harness.core.verdicts import PairedCounts
from harness.stats.paired import tango_variance, wald_variance
from harness.stats.recompression import Spread, combined_quantile, combined_tail


def minimal_detectable_loss(
    n_items: int,
    *,
    flip_rate: float,
    margin: float,
    level: float,
    power: float,
    sigma: float = 0.0,
    df: float = math.inf,
) -> float | None:
    """The smallest true loss that "more than ``margin`` is lost" is proven for with probability ``power``.

    ``flip_rate`` is the share of items that flip either way when nothing changed; a loss d adds d of lost items, so the
    variance of the estimate is (f + d - d^2)/N + sigma^2. Normal approximation: d - margin = (z_level + z_power) * SE(d),
    a quadratic in d. With ``df`` degrees of freedom of sigma, z_level * SE is the quantile of the combined tail
    (``recompression``). None where not even losing every item would be found.

    >>> round(minimal_detectable_loss(1000, flip_rate=0.03, margin=0.01, level=0.05, power=0.8), 4)
    0.029
    """
    k = float(ndtri(1 - level) + ndtri(power))
    share = k * k / n_items
    a, b, c = 1 + share, -(2 * margin + share), margin * margin - share * flip_rate - (k * sigma) ** 2
    loss = (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)
    if sigma > 0 and not math.isinf(df):
        spread, z_power = Spread(sigma, df), float(ndtri(power))

        def short_of(loss: float) -> float:
            variance = (flip_rate + loss - loss * loss) / n_items
            threshold = combined_quantile(variance, spread, level)
            return margin + threshold + z_power * math.sqrt(variance + sigma * sigma) - loss

        return float(brentq(short_of, min(loss, 1.0), 1.0, xtol=1e-9)) if short_of(1.0) < 0 else None
    return loss if loss < 1 else None


def items_to_fail(counts: PairedCounts, margin: float, level: float, sigma: float = 0.0, df: float = math.inf) -> int | None:
    """How many items in all would prove "more than ``margin`` is lost" if items kept flipping at these rates.

    Both statistics, Tango's and Wald's, must pass. None where no number would: the loss is not above the margin, or
    ``sigma``, which more items do not shrink, is too large.

    >>> items_to_fail(PairedCounts(25, 5, 970), 0.01, 0.001)
    2827
    """
    b, c, n = counts.n_lost, counts.n_gained, counts.n_items
    variance = max(float(tango_variance(b, c, n, margin)), float(wald_variance(b, c, n)))
    return _items_for(counts.loss - margin, variance, level, Spread(sigma, df))


def items_to_pass(counts: PairedCounts, margin: float, level: float, sigma: float = 0.0, df: float = math.inf) -> int | None:
    """How many items in all would prove "less than ``margin`` is lost" (Tango) if items kept flipping at these rates.

    >>> items_to_pass(PairedCounts(25, 20, 955), 0.01, 0.025)
    7059
    """
    variance = float(tango_variance(counts.n_lost, counts.n_gained, counts.n_items, margin))
    return _items_for(margin - counts.loss, variance, level, Spread(sigma, df))


def _items_for(distance: float, item_variance: float, level: float, spread: Spread) -> int | None:
    """The N at which a distance from the margin is significant: the items' variance shrinks as 1/N, the spread does not."""
    if distance <= 0:
        return None
    known = (distance / float(ndtri(1 - level))) ** 2  # all the variance that this distance allows if sigma were known
    allowed = known - spread.sigma**2
    if spread.sigma > 0 and not math.isinf(spread.df):
        if float(combined_tail(distance, 0.0, spread)) >= level:
            return None
        allowed = float(brentq(lambda v: float(combined_tail(distance, v, spread)) - level, 0.0, known, xtol=1e-12 * known))
    return math.ceil(item_variance / allowed) if allowed > 0 else None
