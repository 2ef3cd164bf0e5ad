"""Decisions that hang on less than the scorer's numerical noise."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def is_near_tie(scores: Sequence[float], gold: Collection[int], noise: Sequence[float]) -> bool:
    """Whether some change of every score by at most its ``noise`` could put the best right option and the best wrong one the
    other way round; never where all options are right, or all wrong. ``noise`` is in the units of the scores.

    Whoever is told False may rely on it: no such change turns right into wrong, whichever options then are the best ones.

    >>> is_near_tie([-2.0, -2.00005], {0}, [5e-5, 5e-5]), is_near_tie([-2.0, -2.001], {0}, [5e-5, 5e-5])
    (True, False)
    """
    bounds = [(score - width, score + width) for score, width in zip(scores, noise, strict=True)]
    right = [bound for i, bound in enumerate(bounds) if i in gold]
    wrong = [bound for i, bound in enumerate(bounds) if i not in gold]
    if not right or not wrong:
        return False
    (right_low, right_high), (wrong_low, wrong_high) = (tuple(map(max, zip(*some, strict=True))) for some in (right, wrong))
    return bool(right_low < wrong_high and wrong_low < right_high)
