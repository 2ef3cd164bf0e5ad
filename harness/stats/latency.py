"""How many times longer one side takes than another, from rounds in which both were timed."""

from __future__ import annotations

import numpy as np

from harness.core.latency import Timing
from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.bootstrap import ratio_of_medians

LEVEL = 0.95
LEAST_ROUNDS = 3


def time_ratio(timing: Timing, side: str, over: str, level: float = LEVEL) -> Estimate | NotEstimable:
    """The ratio of the two sides' median seconds, 1 = as long, with its bootstrap interval over rounds.

    >>> times_s = {"none": (1.0, 1.1, 0.9, 5.0), "idp": (1.02, 1.12, 0.92, 5.1)}
    >>> made = time_ratio(Timing("prefill", 1, times_s), "idp", "none")
    >>> round(made.value, 3), made.low > 1
    (1.019, True)
    """
    if side not in timing.seconds or over not in timing.seconds:
        return NotEstimable(f"{side if side not in timing.seconds else over} was not timed")
    ours, theirs = (np.array(timing.seconds[name]) for name in (side, over))
    if len(ours) < LEAST_ROUNDS or len(ours) != len(theirs) or not (np.all(ours > 0) and np.all(theirs > 0)):
        return NotEstimable(f"it takes at least {LEAST_ROUNDS} rounds in which both were timed")
    return ratio_of_medians(ours, theirs, level, np.random.default_rng(0))
