"""Losses where items come in clusters that stand for others (relations, documents): items of one cluster change together.

The cluster-robust t, with C - 1 degrees of freedom, never read as a z (with three clusters that is 53 times its size); and
the largest of Tango's, Wald's and its p-value decides, at full N only: there is no early verdict for clusters. Fewer than
ten clusters are better treated as fixed strata, by the plain tests. Counts stand along the last axis, one a cluster; further
axes are many comparisons at once.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int, Real
from scipy.special import ndtr, stdtr, stdtrit

from harness.core.verdicts import Estimate
from harness.stats.paired import tango_interval, wald_z
from harness.stats.recompression import p_loss_above, p_loss_below

FEWEST_CLUSTERS = 10
"""Below this the t test has hardly any power at corrected levels: treat the clusters as fixed strata."""


def cluster_t(
    n_lost: Real[np.ndarray, "*batch clusters"],
    n_gained: Real[np.ndarray, "*batch clusters"],
    n_items: Int[np.ndarray, " clusters"],
    margin: float,
) -> Float[np.ndarray, "*batch"]:
    """The t statistic of H0: loss = ``margin``, positive when more was lost; C - 1 degrees of freedom.

    Variance of the loss: C/(C-1) sum_c (lost_c - gained_c - n_c loss)^2 / N^2 (linearised ratio, as in survey sampling and
    in GEE with an independence working correlation). Without any variance between clusters: +-inf by the sign of
    loss - margin, 0 at equality.

    >>> lost, gained, items = np.array([4, 1, 3, 0]), np.array([0, 1, 1, 0]), np.array([50, 50, 50, 50])
    >>> round(float(cluster_t(lost, gained, items, 0.0)), 4)
    1.5667
    """
    _, loss, variance = _moments(n_lost, n_gained, n_items)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (loss - margin) / np.sqrt(variance)
    return np.where(loss == margin, 0.0, t)


def p_loss_above_clustered(
    n_lost: Real[np.ndarray, "*batch clusters"],
    n_gained: Real[np.ndarray, "*batch clusters"],
    n_items: Int[np.ndarray, " clusters"],
    margin: float,
) -> Float[np.ndarray, "*batch"]:
    """The one-sided p-value of "at most ``margin`` is lost": the largest of Tango's, Wald's and the cluster t's.

    >>> lost, gained, items = np.array([14, 11, 9, 12]), np.array([1, 0, 1, 0]), np.full(4, 50)
    >>> round(float(p_loss_above_clustered(lost, gained, items, 0.05)), 4)
    0.0021
    """
    t = cluster_t(n_lost, n_gained, n_items, margin)
    by_items = p_loss_above(n_lost.sum(-1), n_gained.sum(-1), int(n_items.sum()), margin)
    return np.asarray(np.maximum(by_items, stdtr(len(n_items) - 1, -t)))


def p_loss_below_clustered(
    n_lost: Real[np.ndarray, "*batch clusters"],
    n_gained: Real[np.ndarray, "*batch clusters"],
    n_items: Int[np.ndarray, " clusters"],
    margin: float,
) -> Float[np.ndarray, "*batch"]:
    """The one-sided p-value of "``margin`` or more is lost": the largest of Tango's, Wald's and the cluster t's.

    >>> lost, gained, items = np.array([1, 0, 1, 0]), np.array([0, 1, 0, 0]), np.full(4, 50)
    >>> round(float(p_loss_below_clustered(lost, gained, items, 0.05)), 4)
    0.0091
    """
    t = cluster_t(n_lost, n_gained, n_items, margin)
    lost, gained, total = n_lost.sum(-1), n_gained.sum(-1), int(n_items.sum())
    by_items = np.maximum(p_loss_below(lost, gained, total, margin), ndtr(wald_z(lost, gained, total, margin)))
    return np.asarray(np.maximum(by_items, stdtr(len(n_items) - 1, t)))


def cluster_interval(
    n_lost: Int[np.ndarray, " clusters"],
    n_gained: Int[np.ndarray, " clusters"],
    n_items: Int[np.ndarray, " clusters"],
    level: float,
) -> Estimate:
    """The loss with its interval for clusters like these: each end the outer one of the cluster t's and of Tango's.

    >>> made = cluster_interval(np.array([4, 1, 3, 0]), np.array([0, 1, 1, 0]), np.full(4, 50), 0.95)
    >>> round(made.value, 4), round(made.low, 4), round(made.high, 4)
    (0.03, -0.0309, 0.0909)
    """
    n_clusters, loss, variance = _moments(n_lost, n_gained, n_items)
    half = float(stdtrit(n_clusters - 1, (1 + level) / 2)) * math.sqrt(float(variance))
    low, high = tango_interval(int(n_lost.sum()), int(n_gained.sum()), int(n_items.sum()), level)
    value = float(loss)
    return Estimate(value, max(-1.0, min(low, value - half)), min(1.0, max(high, value + half)), level, "cluster t")


def _moments(
    n_lost: Real[np.ndarray, "*batch clusters"],
    n_gained: Real[np.ndarray, "*batch clusters"],
    n_items: Int[np.ndarray, " clusters"],
) -> tuple[int, Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    n_clusters = len(n_items)
    if n_clusters < 2 or not np.all(n_items > 0):
        raise ValueError(f"at least two clusters with items are needed, got sizes {n_items.tolist()}")
    net, total = np.asarray(n_lost, dtype=np.float64) - n_gained, float(n_items.sum())
    loss = net.sum(-1) / total
    squares = ((net - n_items * loss[..., None]) ** 2).sum(-1)
    variance = n_clusters / (n_clusters - 1) * squares / total**2
    return n_clusters, np.asarray(loss), np.asarray(variance)
