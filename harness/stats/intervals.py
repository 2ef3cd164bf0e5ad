"""Intervals and limits of one proportion."""

from __future__ import annotations

import math

from scipy.special import betaincinv, ndtri

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


def exact_limits(n_found: int, n_trials: int, error: float) -> tuple[float, float]:
    """The lower and the upper limit of a chance, each missing it with probability at most ``error``.

    Never too narrow, whatever the chance (Clopper & Pearson 1934, Biometrika 26:404). Raises ValueError without trials.

    >>> low, high = exact_limits(0, 2000, 0.001)
    >>> low, round(high, 5)
    (0.0, 0.00345)
    """
    if not 0 <= n_found <= n_trials or n_trials == 0:
        raise ValueError(f"0 <= n_found <= n_trials and n_trials > 0 are needed, got {n_found} of {n_trials}")
    low = float(betaincinv(n_found, n_trials - n_found + 1, error)) if n_found else 0.0
    high = float(betaincinv(n_found + 1, n_trials - n_found, 1 - error)) if n_found < n_trials else 1.0
    return low, high
