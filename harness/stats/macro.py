"""Means over items that come in relations, for relations like these: by item ("micro"), or by relation first ("macro").

Items of one relation are right or wrong together, so an interval over items is too narrow. Both are the cluster-robust t with
C - 1 degrees of freedom, C being the number of relations (``stats.clusters`` has the same for paired losses).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int, Real
from scipy.special import stdtr, stdtrit

from harness.core.verdicts import Estimate, NotEstimable


def macro_mean(
    values: Real[np.ndarray, " n"], clusters: Int[np.ndarray, " n"], level: float, limits: tuple[float, float] = (0.0, 1.0)
) -> Estimate | NotEstimable:
    """The mean of the clusters' means, its interval cut at ``limits``: Student's t over the clusters' means.

    NotEstimable with fewer than two clusters. Where all clusters have one mean the interval is that mean alone.

    >>> made = macro_mean(np.array([1, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 2]), 0.95)
    >>> round(made.value, 3), round(made.low, 3), round(made.high, 3)
    (0.5, 0.0, 1.0)
    """
    means = _sums(values, clusters) / _sizes(clusters)
    if len(means) < 2:
        return NotEstimable("an interval over relations needs two of them")
    return _interval(float(means.mean()), float(means.std(ddof=1)) / math.sqrt(len(means)), len(means), level, limits)


def micro_mean(
    values: Real[np.ndarray, " n"], clusters: Int[np.ndarray, " n"], level: float, limits: tuple[float, float] = (0.0, 1.0)
) -> Estimate | NotEstimable:
    """The mean of all values, its interval cut at ``limits``.

    Variance: C/(C-1) sum_c (sum of values in c - n_c mean)^2 / N^2, the linearised ratio of survey sampling.

    >>> made = micro_mean(np.array([1, 0, 1, 1, 0]), np.array([0, 0, 1, 1, 2]), 0.95)
    >>> round(made.value, 3), round(made.low, 3), round(made.high, 3)
    (0.6, 0.0, 1.0)
    """
    sums, sizes = _sums(values, clusters), _sizes(clusters)
    n_clusters, n = len(sizes), float(sizes.sum())
    if n_clusters < 2:
        return NotEstimable("an interval over relations needs two of them")
    mean = float(sums.sum() / n)
    variance = n_clusters / (n_clusters - 1) * float(((sums - sizes * mean) ** 2).sum()) / n**2
    return _interval(mean, math.sqrt(variance), n_clusters, level, limits)


def p_same_macro(
    one: Real[np.ndarray, " n"], other: Real[np.ndarray, " n"], clusters: Int[np.ndarray, " n"]
) -> float | NotEstimable:
    """The two-sided p-value of "both have the same macro mean", item by item the same items: the paired t over the clusters'
    mean differences.

    >>> one, other = np.array([1, 1, 1, 1, 0, 1]), np.array([1, 0, 0, 1, 0, 1])
    >>> round(p_same_macro(one, other, np.array([0, 0, 1, 1, 2, 2])), 4)
    0.1835
    """
    differences = _sums(np.asarray(one, dtype=np.float64) - other, clusters) / _sizes(clusters)
    n_clusters = len(differences)
    if n_clusters < 2:
        return NotEstimable("a test over relations needs two of them")
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n_clusters)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n_clusters - 1, -abs(mean / error)))


def p_same_micro(
    one: Real[np.ndarray, " n"], other: Real[np.ndarray, " n"], clusters: Int[np.ndarray, " n"]
) -> float | NotEstimable:
    """The two-sided p-value of "both have the same mean", over clusters like these: the t of the differences' ``micro_mean``.

    >>> one, other = np.array([1, 1, 1, 1, 0, 1]), np.array([1, 0, 0, 1, 0, 1])
    >>> round(p_same_micro(one, other, np.array([0, 0, 1, 1, 2, 2])), 4)
    0.1835
    """
    difference = np.asarray(one, dtype=np.float64) - other
    made = micro_mean(difference, clusters, 0.5, (-math.inf, math.inf))
    if isinstance(made, NotEstimable):
        return made
    n_clusters = len(_sizes(clusters))
    error = (made.high - made.low) / (2 * float(stdtrit(n_clusters - 1, 0.75)))
    if error == 0:
        return 1.0 if made.value == 0 else 0.0
    return float(2 * stdtr(n_clusters - 1, -abs(made.value / error)))


def _sums(values: Real[np.ndarray, " n"], clusters: Int[np.ndarray, " n"]) -> Float[np.ndarray, " clusters"]:
    return np.bincount(clusters, weights=np.asarray(values, dtype=np.float64))


def _sizes(clusters: Int[np.ndarray, " n"]) -> Int[np.ndarray, " clusters"]:
    sizes = np.bincount(clusters)
    if not len(sizes) or not np.all(sizes > 0):
        raise ValueError(f"clusters are to be numbered from 0 on without a gap, got sizes {sizes.tolist()}")
    return sizes


def _interval(mean: float, error: float, n_clusters: int, level: float, limits: tuple[float, float]) -> Estimate:
    half = float(stdtrit(n_clusters - 1, (1 + level) / 2)) * error
    return Estimate(mean, max(limits[0], mean - half), min(limits[1], mean + half), level, "cluster t")
