"""Which answers count as changed when the same thing is measured twice: a flip between two near-ties is noise, and none."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from harness.core.outcomes import Outcomes


def settled(before: Outcomes, places: Int[np.ndarray, " n"], now: Outcomes) -> Bool[np.ndarray, " n"]:
    """Whether each item of ``now``, measured again on what ``before`` was measured on, counts as right; item i stands in row
    ``places[i]`` there.

    Where both are near-ties, the stored outcome breaks the new one. The same weights in other batches so never flip an
    item: a change of sign by less than the tolerance leaves both margins below it. A near-tie beside a clear stored answer
    counts as it came. Not for other weights: there, flips between near-ties are evidence like all others.
    """
    both = now.near_ties & before.near_ties[places]
    return np.asarray(np.where(both, before.correct[places], now.correct))
