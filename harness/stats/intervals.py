"""Intervals of one proportion."""

from __future__ import annotations

import math

from scipy.special import ndtri

from harness.core.verdicts import Estimate


def wilson(n_correct: int, n_items: int, level: float) -> Estimate:
    """An accuracy with Wilson's score interval at confidence ``level``; fractions in [0, 1].

    It never leaves [0, 1] and is not of zero width at 0 or ``n_items`` right answers. Source: Wilson 1927, JASA 22:209.
    Raises ValueError without items: an accuracy of nothing is no number.

    >>> made = wilson(420, 1000, 0.95)
    >>> made.value, round(made.low, 4), round(made.high, 4)
    (0.42, 0.3898, 0.4508)
    """
    if not 0 <= n_correct <= n_items or n_items == 0:
        raise ValueError(f"0 <= n_correct <= n_items and n_items > 0 are needed, got {n_correct} of {n_items}")
    z = float(ndtri((1 + level) / 2))
    value = n_correct / n_items
    scale = 1 + z * z / n_items
    centre = (value + z * z / (2 * n_items)) / scale
    half = z * math.sqrt(value * (1 - value) / n_items + z * z / (4 * n_items * n_items)) / scale
    # At the ends the interval touches 0 or 1 exactly; rounding must not lift it off.
    low = 0.0 if n_correct == 0 else centre - half
    high = 1.0 if n_correct == n_items else centre + half
    return Estimate(value, low, high, level, "wilson")
