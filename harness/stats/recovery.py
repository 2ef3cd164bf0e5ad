"""Whether recovery wins back less than it did: per item X = (r0 - c0) - (r1 - c1), in -2..2, positive when it wins back less.

c is right or wrong when compressed, r when recovered, 0 in the baseline and 1 now. Counts are those of X = -2, -1, 0, 1, 2
along the first axis; further axes are many comparisons at once. Rates and margins are fractions of all items.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from harness.core.verdicts import Estimate
from harness.stats.recompression import NO_SPREAD, Spread, combined_quantile, combined_tail
from harness.stats.sequential import BETS, log_mixture

VALUES = (-2, -1, 0, 1, 2)
"""The values of X, in the order in which their counts stand."""

_LARGEST = 2 - 1e-9
"""The largest margin that is looked at; no mean of X is above 2."""

_COLUMN = np.array(VALUES, dtype=np.float64)


def count_losses_of_gain(
    compressed_before: Bool[np.ndarray, " n"],
    recovered_before: Bool[np.ndarray, " n"],
    compressed_now: Bool[np.ndarray, " n"],
    recovered_now: Bool[np.ndarray, " n"],
) -> Int[np.ndarray, " 5"]:
    """How many items have X = -2, -1, 0, 1, 2. The same items in the same order four times.

    With a dense model's recovered and dense answers as "before" it counts what recovery gains beyond the dense model's gain,
    with the sign turned: X is then (dense recovered - dense) - (recovered - compressed).

    >>> yes, no = np.array([True]), np.array([False])
    >>> count_losses_of_gain(no, yes, yes, no).tolist(), count_losses_of_gain(no, yes, no, yes).tolist()
    ([0, 0, 0, 0, 1], [0, 0, 1, 0, 0])
    """
    gain_before = recovered_before.astype(np.int64) - compressed_before
    lost = gain_before - (recovered_now.astype(np.int64) - compressed_now)
    return np.bincount(lost + 2, minlength=5)


def log_e_fail_recovery(counts: Real[np.ndarray, " 5 ..."], margin: float) -> Float[np.ndarray, " ..."]:
    """The log e-value against "recovery wins back at most ``margin`` less"; large when it wins back less than that.

    mean_k prod (1 + l (Y - m/2)), Y = X/2 and l = BETS_k/(1 + m/2), which keeps each factor positive (GATE.md). Its
    expectation is 1 where the mean of X is ``margin``, in (-2, 2). Stop whenever you like (see ``sequential``).

    >>> round(float(log_e_fail_recovery(np.array([0, 5, 900, 85, 10]), 0.01)), 3)
    28.719
    """
    half = _half(margin)
    bets = BETS / (1 + half)
    return log_mixture([bets * (value / 2 - half) for value in VALUES], [np.asarray(count) for count in counts])


def log_e_pass_recovery(counts: Real[np.ndarray, " 5 ..."], margin: float) -> Float[np.ndarray, " ..."]:
    """The log e-value against "recovery wins back less by ``margin`` or more". Mirrors ``log_e_fail_recovery``.

    >>> round(float(log_e_pass_recovery(np.array([0, 15, 970, 15, 0]), 0.05)), 3)
    17.61
    """
    return log_e_fail_recovery(np.asarray(counts)[::-1], -margin)


def p_recovery_worse(
    counts: Real[np.ndarray, " 5 ..."], margin: float, spread: Spread = NO_SPREAD
) -> Float[np.ndarray, " ..."]:
    """The one-sided p-value at full N of "recovery wins back at most ``margin`` less"; small when it wins back less.

    ``spread``: how far re-compressing alone moves the mean of X.

    Wald on X, with one imagined item of X = -2 added. Plain Wald is up to 3.4 times too liberal at 0.04/24 where such items
    are rare: by chance there is none, and both mean and variance look better than they are. With it the exact size stays
    below the level down to 0.02/24 (``tests/stats/test_recovery.py``), for 2/N of loss. There is no such test for PASS:
    use the e-value alone.

    >>> round(float(p_recovery_worse(np.array([0, 15, 945, 38, 2]), 0.01)), 4)
    0.0309
    """
    padded = np.array(counts, dtype=np.float64)
    _check_items(padded)
    padded[0] += 1
    n_items, mean, variance = _moments(padded)
    return combined_tail(mean - margin, variance / n_items, spread)


def p_recovery_kept(rounds: Real[np.ndarray, " 5 rounds"], margin: float, level: float, spread: Spread = NO_SPREAD) -> float:
    """The p-value, to be compared with ``level``, of "recovery wins back less by ``margin`` or more", however the run stopped.

    ``rounds``: cumulative counts at the ends of the rounds so far. 1/max E. Where re-compressing alone moves the mean of X,
    half of the level goes to how far it may have moved (Student's quantile, taken off the margin), half to the e-value, and
    only the last of the rounds counts: hand in complete ones.

    >>> rounds = np.array([[0, 0], [2, 4], [296, 992], [2, 4], [0, 0]])
    >>> round(p_recovery_kept(rounds[:, :1], 0.03, 0.05), 3), round(p_recovery_kept(rounds, 0.03, 0.05), 5)
    (0.116, 2e-05)
    >>> round(p_recovery_kept(rounds, 0.03, 0.05, Spread(0.003, 8.0)), 4)
    0.0008
    """
    if spread == NO_SPREAD:
        logs = log_e_pass_recovery(rounds, margin)
        return min(1.0, math.exp(-float(np.max(logs, initial=0.0))))
    kept = margin - spread.sigma * float(stdtrit(spread.df, 1 - level / 2))
    if kept <= -_LARGEST:
        return 1.0
    return min(1.0, 2 * math.exp(-max(0.0, float(log_e_pass_recovery(rounds[:, -1], kept)))))


def loss_of_gain(counts: Real[np.ndarray, " 5"], level: float, spread: Spread = NO_SPREAD) -> Estimate:
    """The mean of X, how much less is won back as a fraction of all items, with its Wald interval; in [-2, 2].

    Without any difference the interval is that of a rare event, +-2 z^2/(N + z^2), never of zero width. ``spread``: as in
    ``p_recovery_worse``.

    >>> made = loss_of_gain(np.array([0, 5, 900, 85, 10]), 0.95)
    >>> round(made.value, 3), round(made.low, 4), round(made.high, 4)
    (0.1, 0.0785, 0.1215)
    """
    n_items, mean, variance = (float(part) for part in _moments(np.asarray(counts, dtype=np.float64)))
    z = float(ndtri((1 + level) / 2))
    half = z * math.sqrt(variance / n_items) if variance > 0 else 2 * z * z / (n_items + z * z)
    if spread != NO_SPREAD:
        half = max(half, combined_quantile(variance / n_items, spread, (1 - level) / 2))
    return Estimate(mean, max(-2.0, mean - half), min(2.0, mean + half), level, "wald")


def anytime_loss_of_gain(rounds: Real[np.ndarray, " 5 rounds"], level: float) -> Estimate:
    """The mean of X with the interval that holds however the run stopped: margins that neither e-value has excluded.

    ``rounds``: cumulative counts at the ends of the rounds so far, at least one.

    >>> made = anytime_loss_of_gain(np.array([[0], [5], [900], [85], [10]]), 0.95)
    >>> round(made.value, 3), round(made.low, 4), round(made.high, 4)
    (0.1, 0.0681, 0.1392)
    """
    counts = np.asarray(rounds, dtype=np.float64)
    side = (1 - level) / 2
    _, mean, _ = _moments(counts[:, -1])
    return Estimate(float(mean), -_anytime_limit(counts[::-1], side), _anytime_limit(counts, side), level, "betting")


def _anytime_limit(counts: Float[np.ndarray, " 5 rounds"], level: float) -> float:
    """The smallest margin that the mean of X is proven to stay below."""

    def excess(margin: float) -> float:
        return float(np.max(log_e_pass_recovery(counts, margin))) + math.log(level)

    return 2.0 if excess(_LARGEST) < 0 else float(brentq(excess, -_LARGEST, _LARGEST, xtol=1e-12))


def _moments(
    counts: Float[np.ndarray, " 5 ..."],
) -> tuple[Float[np.ndarray, " ..."], Float[np.ndarray, " ..."], Float[np.ndarray, " ..."]]:
    _check_items(counts)
    n_items = counts.sum(0)
    mean = np.tensordot(_COLUMN, counts, axes=1) / n_items
    variance = np.maximum(np.tensordot(_COLUMN**2, counts, axes=1) / n_items - mean * mean, 0.0)
    return np.asarray(n_items), np.asarray(mean), np.asarray(variance)


def _check_items(counts: Float[np.ndarray, " 5 ..."]) -> None:
    if not np.all(counts.sum(0) > 0):
        raise ValueError("counts of at least one item are needed, got none")


def _half(margin: float) -> float:
    if not -2 < margin < 2:
        raise ValueError(f"a margin between -2 and 2 (both excluded) is needed, got {margin}")
    return margin / 2
