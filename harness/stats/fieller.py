"""Intervals of ratios of two means over the same items, by Fieller's theorem: honest where the denominator is uncertain.

Source: Fieller 1954, JRSS-B 16:175. The interval is all ratios r at which the mean of u - r v is not significantly off 0.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri

from harness.core.verdicts import Estimate, NotEstimable, PairedCounts
from harness.stats.paired import tango_interval

CHANCE_STANDARD_ERRORS = 4.0
"""How far above chance the dense accuracy must lie, in its standard errors, for a chance-corrected ratio to be shown."""


def ratio_interval(
    means: tuple[float, float], covariance: Float[np.ndarray, "2 2"], critical: float, level: float
) -> Estimate | NotEstimable:
    """u/v for means u, v with the covariance matrix *of the means*; unitless, unbounded.

    ``critical`` is the two-sided quantile that belongs to ``level``: normal for items, Student's with C - 1 degrees of
    freedom for C clusters. NotEstimable where the denominator's own interval holds 0: any ratio would do.

    >>> made = ratio_interval((0.04, 0.08), np.array([[1e-4, 2e-5], [2e-5, 1e-4]]), 1.96, 0.95)
    >>> round(made.value, 3), round(made.low, 3), round(made.high, 3)
    (0.5, 0.26, 0.779)
    """
    u, v = means
    uu, uv, vv = float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])
    square = critical * critical
    a = v * v - square * vv
    if a <= 0:
        return NotEstimable(f"the denominator is {v:.3g} and its {100 * level:g} % interval holds 0")
    b, c = u * v - square * uv, u * u - square * uu
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Estimate(u / v, (b - root) / a, (b + root) / a, level, "fieller")


def gap_closed(counts: Int[np.ndarray, "2 2 2"], level: float) -> Estimate | NotEstimable:
    """(recovered - compressed)/(dense - compressed): 0 = nothing won back, 1 = all, beyond 1 = better than dense.

    ``counts[d, c, r]``: items by right (1) or wrong (0) when dense, compressed, recovered. Where recovered answers differ
    from the compressed (or from the dense) ones on no item at all, Fieller's width would be a false 0: the interval is then
    that of a loss without flips (Tango) over the gap.

    >>> table = np.array([[[300, 20], [10, 20]], [[40, 60], [15, 535]]])
    >>> made = gap_closed(table, 0.95)
    >>> round(made.value, 3), round(made.low, 3), round(made.high, 3)
    (0.786, 0.556, 1.071)
    """
    d, c, r = np.indices((2, 2, 2))
    n_items = int(counts.sum())
    if n_items < 1:
        raise ValueError("at least one item is needed, got none")
    won_back, gap = (r - c).ravel(), (d - c).ravel()
    found = ratio_interval(*_moments(won_back, gap, counts.ravel()), float(ndtri((1 + level) / 2)), level)
    if isinstance(found, NotEstimable):
        return NotEstimable(f"the gap between dense and compressed is too uncertain: {found.reason}")
    if not np.any(counts[r != c]) or not np.any(counts[r != d]):
        low, high = tango_interval(0, 0, n_items, level)
        size = abs(float(gap @ counts.ravel()) / n_items)
        return Estimate(found.value, found.value + low / size, found.value + high / size, level, "tango/gap")
    return found


def chance_corrected_retention(
    counts: PairedCounts, n_correct_before: int, chance: float, level: float
) -> Estimate | NotEstimable:
    """(accuracy now - chance)/(accuracy before - chance), paired; 1 = all kept, 0 = only guessing is left.

    NotEstimable where the accuracy before is less than four standard errors above chance (GATE.md).

    >>> made = chance_corrected_retention(PairedCounts(30, 10, 960), 500, 0.25, 0.95)
    >>> round(made.value, 3), round(made.low, 3), round(made.high, 3)
    (0.92, 0.871, 0.969)
    """
    n = counts.n_items
    if not counts.n_lost <= n_correct_before <= n - counts.n_gained:
        raise ValueError(f"{n_correct_before} right before does not fit {counts}")
    before = n_correct_before / n
    error = math.sqrt(before * (1 - before) / n)
    if before - chance < CHANCE_STANDARD_ERRORS * error or before <= chance:
        few = f"less than {CHANCE_STANDARD_ERRORS:g} standard errors"
        return NotEstimable(f"the accuracy before, {before:.3f}, is {few} above chance ({chance:.3f})")
    if counts.n_lost == counts.n_gained == 0:
        low, high = tango_interval(0, 0, n, level)
        return Estimate(1.0, 1 - high / (before - chance), 1 - low / (before - chance), level, "tango/accuracy")
    kinds = np.array([n_correct_before - counts.n_lost, counts.n_lost, counts.n_gained, 0])
    kinds[3] = n - kinds.sum()
    now_right, before_right = np.array([1, 0, 1, 0]), np.array([1, 1, 0, 0])
    return ratio_interval(*_moments(now_right - chance, before_right - chance, kinds), float(ndtri((1 + level) / 2)), level)


def _moments(
    u: Float[np.ndarray, " kinds"] | Int[np.ndarray, " kinds"],
    v: Float[np.ndarray, " kinds"] | Int[np.ndarray, " kinds"],
    counts: Int[np.ndarray, " kinds"],
) -> tuple[tuple[float, float], Float[np.ndarray, "2 2"]]:
    """The means of u and v over items of these kinds, and the covariance of the two means."""
    values = np.stack([u, v]).astype(np.float64)
    n_items = counts.sum()
    means = values @ counts / n_items
    covariance = (values * counts) @ values.T / n_items - np.outer(means, means)
    return (float(means[0]), float(means[1])), covariance / n_items
