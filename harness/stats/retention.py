"""Retention: the share of an earlier accuracy that is still there, on the same items."""

from __future__ import annotations

import math

from scipy.special import ndtri

from harness.core.verdicts import Estimate, NotEstimable, PairedCounts
from harness.stats.paired import tango_interval


def retention(counts: PairedCounts, n_correct_before: int, level: float) -> Estimate | NotEstimable:
    """Accuracy now / accuracy before, in [0, inf), 1 = all kept; ``n_correct_before`` items were right before.

    A log-normal interval with SE(log) = sqrt((b + c) / (n_now * n_before)), n in right answers (the delta method for a
    paired ratio; GATE.md). Without one flip that error would be a false 0: the interval is then that of the loss (Tango)
    over the accuracy. NotEstimable where nothing was right before or nothing is now. Chance is not taken out.

    >>> made = retention(PairedCounts(n_lost=30, n_gained=10, n_unchanged=960), 400, 0.95)
    >>> round(made.value, 3), round(made.low, 3), round(made.high, 3)
    (0.95, 0.92, 0.981)
    """
    n_now = n_correct_before - counts.n_lost + counts.n_gained
    if not counts.n_lost <= n_correct_before <= counts.n_items - counts.n_gained:
        raise ValueError(f"{n_correct_before} right before does not fit {counts}")
    if n_correct_before == 0:
        return NotEstimable("nothing was right before, so there is nothing to retain")
    if n_now == 0:
        return NotEstimable("nothing is right any more: the ratio is 0 and its error can't be estimated")
    flips = counts.n_lost + counts.n_gained
    if flips == 0:
        low, high = tango_interval(0, 0, counts.n_items, level)
        accuracy = n_correct_before / counts.n_items
        return Estimate(1.0, max(0.0, 1 - high / accuracy), 1 - low / accuracy, level, "tango/accuracy")
    ratio = n_now / n_correct_before
    half = float(ndtri((1 + level) / 2)) * math.sqrt(flips / (n_now * n_correct_before))
    return Estimate(ratio, ratio * math.exp(-half), ratio * math.exp(half), level, "log-ratio")
