"""Tests of a loss where compressing again moves the accuracy by itself, and by how much is known from a few runs only.

Candidate and baseline are then two draws from one process. Their difference has the items' variance, and that of the
process: sigma_c^2, estimated from K runs, so with K - 1 degrees of freedom. Taking the estimate for the truth makes false
reds, many times more than the level allows where sigma_c happens to come out small. Here the loss is compared with a sum
of a normal and a Student part (Behrens 1929, Fisher 1935): with no spread it is the plain z test, with nothing but spread
Student's t with K - 1 degrees of freedom. In between it errs on the safe side (Robinson 1976, Annals of Statistics 4:963);
``benchmarks/recompressed_cells.py`` measures it: at most its level for 3 to 9 runs, where the z makes up to 38 times as many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import gammainccinv, gammaincinv, gammaln, ndtr, ndtri, xlogy

from harness.stats.paired import Counts, loss_limit, tango_variance, wald_variance

_ALMOST_ONE = 1 - 1e-12
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Spread:
    """How far re-compressing alone moves the loss: a standard deviation in fractions of all items, and its degrees of
    freedom, how well it is known (infinite: exactly)."""

    sigma: float
    df: float

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and self.df > 0):
            raise ValueError(
                f"a spread of at least 0 with more than 0 degrees of freedom is needed, got {self.sigma}, {self.df}"
            )


NO_SPREAD = Spread(0.0, math.inf)
"""Compressing again gives the same weights."""


def spread_of_loss(accuracies: Float[np.ndarray, " runs"]) -> Spread:
    """The spread of the loss of a new run against the baseline, from the accuracies of K >= 2 re-compressions.

    The baseline is taken to be the run of median accuracy (the upper one of two), which itself misses the mean by a
    little: sigma = s sqrt(1 + v_K), s with K - 1 degrees of freedom, v_K the mean square of that order statistic of K
    standard normals (0.449 for 3 runs, 0.287 for 5, 0.166 for 9).

    >>> found = spread_of_loss(np.array([0.50, 0.51, 0.52]))
    >>> round(found.sigma, 5), found.df
    (0.01204, 2.0)
    """
    runs = np.asarray(accuracies, dtype=np.float64)
    if runs.ndim != 1 or len(runs) < 2:
        raise ValueError(f"the accuracies of at least two re-compressions are needed, got {accuracies!r}")
    # Differences to the first run: equal accuracies then have a spread of exactly 0, not of a rounding error.
    return Spread(float(np.std(runs - runs[0], ddof=1)) * math.sqrt(1 + _median_square(len(runs))), float(len(runs) - 1))


def draw_shifts(
    accuracies: Float[np.ndarray, "runs tasks"], n_draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draws tasks"]:
    """How far re-compressing alone may move the loss of several tasks together, drawn at random; in fractions of items.

    For any weighting of the tasks a draw is ``spread_of_loss`` of the weighted accuracies times a Student T with K - 1
    degrees of freedom: the spread as uncertain as K runs leave it, and the tasks as correlated as they were.

    >>> drawn = draw_shifts(np.array([[0.50, 0.3], [0.51, 0.3], [0.52, 0.3]]), 100_000, np.random.default_rng(0))
    >>> float(np.abs(drawn[:, 1]).max()), round(float((drawn[:, 0] > 1.8856 * 0.01204).mean()), 2)
    (0.0, 0.1)
    """
    runs = np.asarray(accuracies, dtype=np.float64)
    n_runs = len(runs)
    apart = runs - runs[0]
    apart = apart - apart.mean(axis=0)
    scale = math.sqrt((1 + _median_square(n_runs)) / (n_runs - 1))
    students = rng.standard_normal((n_draws, n_runs)) * np.sqrt((n_runs - 1) / rng.chisquare(n_runs - 1, (n_draws, 1)))
    return np.asarray(scale * students @ apart)


def p_loss_above(
    n_lost: Counts, n_gained: Counts, n_items: int | float, margin: float, spread: Spread = NO_SPREAD
) -> Float[np.ndarray, " ..."]:
    """The one-sided p-value of "at most ``margin`` is lost", at full N: small when more is lost. In [0, 1].

    The larger of those with Tango's and with Wald's variance (GATE.md: each alone is too liberal somewhere).

    >>> round(float(p_loss_above(60, 20, 1000, 0.005)), 6)
    3.9e-05
    >>> round(float(p_loss_above(60, 20, 1000, 0.005, Spread(0.01, 2.0))), 3)
    0.043
    """
    lost, gained = np.asarray(n_lost, dtype=np.float64), np.asarray(n_gained, dtype=np.float64)
    excess = (lost - gained) / n_items - margin
    variances = tango_variance(lost, gained, n_items, margin), wald_variance(lost, gained, n_items)
    by_tango, by_wald = (combined_tail(excess, variance / n_items, spread) for variance in variances)
    return np.asarray(np.maximum(by_tango, by_wald))


def p_loss_below(
    n_lost: Counts, n_gained: Counts, n_items: int | float, margin: float, spread: Spread = NO_SPREAD
) -> Float[np.ndarray, " ..."]:
    """The one-sided p-value of "``margin`` or more is lost", at full N: small when less is lost. Tango's variance only.

    >>> [round(float(p_loss_below(20, 20, 1000, 0.02, spread)), 4) for spread in (NO_SPREAD, Spread(0.005, 8.0))]
    [0.0019, 0.0139]
    """
    lost, gained = np.asarray(n_lost, dtype=np.float64), np.asarray(n_gained, dtype=np.float64)
    variance = tango_variance(lost, gained, n_items, margin) / n_items
    return combined_tail(margin - (lost - gained) / n_items, variance, spread)


def loss_limit_with_spread(n_lost: int, n_gained: int, n_items: int, level: float, spread: Spread = NO_SPREAD) -> float:
    """The smallest margin that a loss is proven to stay below at one-sided ``level``; at most 1.

    Without spread this is ``paired.loss_limit`` at the same level.

    >>> [round(loss_limit_with_spread(0, 0, 1000, 0.025, spread), 5) for spread in (NO_SPREAD, Spread(0.01, 4.0))]
    [0.00383, 0.02946]
    """

    if spread.sigma == 0:
        return loss_limit(n_lost, n_gained, n_items, -float(ndtri(level)))

    def excess(margin: float) -> float:
        return float(p_loss_below(n_lost, n_gained, n_items, margin, spread)) - level

    loss = (n_lost - n_gained) / n_items
    if loss >= _ALMOST_ONE or excess(_ALMOST_ONE) > 0:
        return 1.0
    return float(brentq(excess, loss, _ALMOST_ONE, xtol=1e-12))


def loss_interval_with_spread(
    n_lost: int, n_gained: int, n_items: int, level: float, spread: Spread = NO_SPREAD
) -> tuple[float, float]:
    """The two-sided interval of the loss at confidence ``level``, inside [-1, 1]; Tango's where there is no spread.

    >>> [round(end, 4) for end in loss_interval_with_spread(30, 20, 1000, 0.95, Spread(0.01, 4.0))]
    [-0.0213, 0.0417]
    """
    side = (1 - level) / 2
    low = -loss_limit_with_spread(n_gained, n_lost, n_items, side, spread)
    return low, loss_limit_with_spread(n_lost, n_gained, n_items, side, spread)


def combined_tail(excess: Counts, variance: Counts, spread: Spread) -> Float[np.ndarray, " ..."]:
    """P(sqrt(variance) Z + sigma T > excess) for a standard normal Z and a Student T with ``spread.df`` degrees of freedom.

    As a mixture over the chi-square W in T = Z'/sqrt(W/df): the mean of P(Z > excess/sqrt(variance + sigma^2 df/W)), by
    the trapezoidal rule in log W. Exact to about 1e-12. Without any variance: 0 or 1 by the sign of the excess, 0.5 at 0.

    >>> float(combined_tail(0.0, 0.01, Spread(0.1, 3.0))), round(float(combined_tail(4.3027, 0.0, Spread(1.0, 2.0))), 5)
    (0.5, 0.025)
    """
    excess, variance = np.asarray(excess, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if spread.sigma == 0 or math.isinf(spread.df):
        return _normal_tail(excess, np.asarray(variance + spread.sigma**2))
    widths, weights = chi_square_nodes(spread.df)
    flat_excess, flat_variance = (part.ravel() for part in np.broadcast_arrays(excess, variance))
    tail = np.empty(flat_excess.shape)
    for start in range(0, tail.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        variances = flat_variance[block, None] + spread.sigma**2 * widths
        tail[block] = np.minimum(_normal_tail(flat_excess[block, None], variances) @ weights, 1.0)
    return tail.reshape(np.broadcast_shapes(excess.shape, variance.shape))


def combined_quantile(variance: float, spread: Spread, level: float) -> float:
    """The excess whose ``combined_tail`` is ``level`` (below 0.5): how far beyond a margin a loss must lie to be proven.

    >>> round(combined_quantile(1e-4, NO_SPREAD, 0.025), 4), round(combined_quantile(1e-4, Spread(0.01, 2.0), 0.025), 4)
    (0.0196, 0.0463)
    """
    if not 0 < level < 0.5:
        raise ValueError(f"a level between 0 and 0.5 is needed, got {level}")
    scale = math.sqrt(variance + spread.sigma**2)
    if scale == 0:
        return 0.0
    high = scale
    while float(combined_tail(high, variance, spread)) > level:
        high *= 2
    return float(brentq(lambda x: float(combined_tail(x, variance, spread)) - level, 0.0, high, xtol=1e-12 * scale))


def _normal_tail(excess: Float[np.ndarray, " ..."], variance: Float[np.ndarray, " ..."]) -> Float[np.ndarray, " ..."]:
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(excess == 0, 0.0, excess / np.sqrt(variance))
    return np.asarray(ndtr(-z))


@lru_cache(maxsize=64)
def chi_square_nodes(df: float) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Values of df/W and their probabilities, W chi-square, evenly spaced in log W."""
    low, high = 2 * float(gammaincinv(df / 2, 1e-18)), 2 * float(gammainccinv(df / 2, 1e-18))
    log_w, step = np.linspace(math.log(low), math.log(high), 257, retstep=True)
    log_density = df / 2 * log_w - np.exp(log_w) / 2 - df / 2 * math.log(2) - gammaln(df / 2)
    weights = np.exp(log_density) * float(step)
    return df / np.exp(log_w), weights / weights.sum()


@lru_cache(maxsize=64)
def _median_square(n_runs: int) -> float:
    """E x^2 of the (n_runs // 2)-th, counted from 0, of so many ordered standard normals."""
    below = n_runs // 2
    above = n_runs - 1 - below
    x, step = np.linspace(-9, 9, 2001, retstep=True)
    log_choices = gammaln(n_runs + 1) - gammaln(below + 1) - gammaln(above + 1)
    log_density = log_choices + xlogy(below, ndtr(x)) + xlogy(above, ndtr(-x)) - x * x / 2 - math.log(2 * math.pi) / 2
    return float((np.exp(log_density) * x * x).sum() * float(step))
