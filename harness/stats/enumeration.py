"""How often a rule fails and passes, exactly: every way that the counts can take, weighed by its chance; no simulation.

Items are independent of each other and each is lost, gained or unchanged with fixed chances. What rounding or cutting
off the tails leaves out (below 1e-12) is added to both chances, so that they err upwards.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import fftconvolve
from scipy.special import bdtrc, gammaln, stdtrit, xlogy

from harness.stats.boundaries import Bounds
from harness.stats.recompression import Spread

_TAIL = 1e-16
_NODES = 401


def chances_of_verdicts(bounds: Bounds, chance_lost: float, chance_gained: float) -> tuple[float, float]:
    """The chances that a unit, however long it is fed, ever proves a FAIL and ever proves a PASS.

    The two may exclude each other (FAIL wins, and a decided unit may stop), so each is at least the chance of the verdict.

    >>> from harness.stats.boundaries import find_bounds
    >>> from harness.stats.sequential import Rule
    >>> rule = Rule(300, m0=0.005, m1=0.05, level_fail=0.01, level_pass=0.05, fail_share=0.2, pass_share=0.5)
    >>> bounds = find_bounds(rule, np.array([100, 200, 300]), 40)
    >>> [round(chance, 4) for chance in chances_of_verdicts(bounds, 0.010, 0.005)]
    [0.0009, 0.9951]
    """
    return (
        _ever(bounds, chance_lost, chance_gained, fails=True),
        _ever(bounds, chance_lost, chance_gained, fails=False),
    )


def chances_at_full_n(bounds: Bounds, chance_lost: float, chance_gained: float, spread: Spread) -> tuple[float, float]:
    """The same for a unit that only its last round decides, and whose loss re-compressing alone moves by ``spread``.

    Averaged over the shift, a Student T with ``spread.df`` degrees of freedom; a shift never takes more than can be lost
    or gained. ``chance_lost`` and ``chance_gained`` are without it.
    """
    cut = (np.arange(_NODES) + 0.5) / _NODES
    at = cut * cut * (3 - 2 * cut)  # more nodes in the tails, where verdicts are rare
    weights = 6 * cut * (1 - cut) / _NODES
    shifts = spread.sigma * stdtrit(spread.df, at)
    found = [_at_end(bounds, *shifted(chance_lost, chance_gained, float(shift))) for shift in shifts]
    fail, passed = (float(np.dot(weights, column)) / float(weights.sum()) for column in zip(*found, strict=True))
    return fail, passed


def shifted(chance_lost: float, chance_gained: float, shift: float) -> tuple[float, float]:
    """The chances of an item to be lost and gained, once the loss is moved by ``shift``.

    >>> [round(chance, 3) for chance in shifted(0.02, 0.01, 0.05)], shifted(0.02, 0.01, -2.0)
    ([0.07, 0.01], (0.02, 0.98))
    """
    if shift >= 0:
        return min(chance_lost + shift, 1 - chance_gained), chance_gained
    return chance_lost, min(chance_gained - shift, 1 - chance_lost)


def _ever(bounds: Bounds, chance_lost: float, chance_gained: float, *, fails: bool) -> float:
    """The chance of crossing one bound at any round, by following the counts that have not."""
    left, low_b, low_c, crossed, fed = np.ones((1, 1)), 0, 0, 0.0, 0
    for index, end in enumerate(bounds.n_fed):
        step, fed = int(end) - fed, int(end)
        if step:
            added, add_b, add_c = _increments(step, chance_lost, chance_gained)
            left, low_b, low_c = np.maximum(fftconvolve(left, added), 0.0), low_b + add_b, low_c + add_c
        lost, gained = low_b + np.arange(left.shape[0])[:, None], low_c + np.arange(left.shape[1])[None, :]
        known = np.minimum(gained, bounds.fail_from.shape[1] - 1)
        ends = lost >= bounds.fail_from[index][known] if fails else lost <= bounds.pass_to[index][known]
        ends = ends | (gained > known)  # beyond the table, whose tail is out of reach: counted upwards
        crossed += float(left[ends].sum())
        left = np.where(ends, 0.0, left)
        if left.sum() < _TAIL:
            return min(crossed, 1.0)
        left, low_b, low_c, cut = _trimmed(left, low_b, low_c)
        crossed += cut
    return min(crossed, 1.0)


def _increments(n_items: int, chance_lost: float, chance_gained: float) -> tuple[np.ndarray, int, int]:
    """The chances of so many lost and gained among ``n_items``, and where their table begins."""
    lost, gained = _range(n_items, chance_lost), _range(n_items, chance_gained)
    b, c = lost[:, None], gained[None, :]
    same = n_items - b - c
    kept = np.maximum(same, 0)
    log_p = gammaln(n_items + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(kept + 1)
    log_p = log_p + xlogy(b, chance_lost) + xlogy(c, chance_gained) + xlogy(kept, max(1 - chance_lost - chance_gained, 0.0))
    return np.where(same >= 0, np.exp(log_p), 0.0), int(lost[0]), int(gained[0])


def _range(n_items: int, chance: float) -> Int[np.ndarray, " counts"]:
    """The counts that matter: all but those of a chance below about 1e-16."""
    mean = n_items * chance
    half = 9 * math.sqrt(mean * (1 - chance)) + 25
    low, high = max(0, math.floor(mean - half)), min(n_items, math.ceil(mean + half))
    return np.arange(low, high + 1)


def _trimmed(left: np.ndarray, low_b: int, low_c: int) -> tuple[np.ndarray, int, int, float]:
    """The table without its empty margins, and the chance that was cut off with them."""
    rows, columns = np.flatnonzero(left.sum(1) > _TAIL), np.flatnonzero(left.sum(0) > _TAIL)
    kept = left[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return kept, low_b + int(rows[0]), low_c + int(columns[0]), max(0.0, float(left.sum() - kept.sum()))


def _at_end(bounds: Bounds, chance_lost: float, chance_gained: float) -> tuple[float, float]:
    """The chances of FAIL and PASS by the counts at full N alone."""
    n = int(bounds.n_fed[-1])
    gained = _range(n, chance_gained)
    known = np.minimum(gained, bounds.fail_from.shape[1] - 1)
    log_c = gammaln(n + 1) - gammaln(gained + 1) - gammaln(n - gained + 1)
    p_c = np.exp(log_c + xlogy(gained, chance_gained) + xlogy(n - gained, 1 - chance_gained))
    if_lost = chance_lost / (1 - chance_gained) if chance_gained < 1 else 0.0
    above = _at_least(bounds.fail_from[-1][known], n - gained, if_lost)
    below = 1 - _at_least(bounds.pass_to[-1][known] + 1, n - gained, if_lost)
    return float(p_c @ above), float(p_c @ below)


def _at_least(counts: Int[np.ndarray, " n"], n_items: Int[np.ndarray, " n"], chance: float) -> Float[np.ndarray, " n"]:
    """P(X >= counts) of a binomial."""
    inside = np.clip(counts - 1, 0, n_items)
    tail = bdtrc(inside.astype(np.float64), n_items, chance)
    return np.where(counts <= 0, 1.0, np.where(counts > n_items, 0.0, tail))
