"""The parts of an answer about a recovery where relations stand for others: each as by items, and by clusters beside it.

Of two p-values the larger is kept, and of two intervals the outer ends, as the gate does (GATE.md): the cluster-robust one
can by chance look narrower than independent items would be. ``clusters`` has each item's cluster as a number, -1 where it
belongs to none: such items are independent, and add no degree of freedom. Ten clusters at least; fewer are strata.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtr, stdtrit

from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.attribution import Recall
from harness.stats.clusters import Alone, Clusters, Scores, cluster_interval, p_loss_above_clustered, p_mean_above
from harness.stats.fieller import ratio_interval

Right = Bool[np.ndarray, " n"]
Numbers = Int[np.ndarray, " n"]

METHOD = "cluster t"


def gain_by_clusters(before: Right, after: Right, clusters: Numbers, level: float) -> Estimate:
    """How much more is right after than before, as a fraction of all items: every gain that neither Tango's, Wald's nor the
    cluster t's test rejects.

    >>> before = np.zeros(200, dtype=bool)
    >>> after, clusters = np.arange(200) % 10 < 3, np.arange(200) // 10
    >>> made = gain_by_clusters(before, after, clusters, 0.95)
    >>> made.value, made.low < 0.3 < made.high
    (0.3, True)
    """
    gained, lost = ~before & after, before & ~after
    return cluster_interval(Clusters.of(gained, lost, clusters), level)


def p_no_loss_by_clusters(dense: Right, compressed: Right, clusters: Numbers) -> float:
    """The one-sided p-value of "compressing lost nothing"."""
    return float(p_loss_above_clustered(Clusters.of(dense & ~compressed, ~dense & compressed, clusters), 0.0))


def mean_by_clusters(
    scores: Float[np.ndarray, " n"], clusters: Numbers, by_items: Estimate, p_value: float
) -> tuple[Estimate, float]:
    """A mean over items with the outer ends of ``by_items`` and the cluster t's interval, and the larger of ``p_value`` and
    the cluster t's of "it is 0 or less".

    >>> scores, by_items = np.repeat([1.0, 0.0], 50), Estimate(0.5, 0.4, 0.6, 0.95, "wald")
    >>> made, p_value = mean_by_clusters(scores, np.arange(100) // 10, by_items, 1e-9)
    >>> round(made.low, 3), round(made.high, 3), round(p_value, 4)
    (0.123, 0.877, 0.0075)
    """
    apart = clusters < 0
    _, places = np.unique(clusters[~apart], return_inverse=True)
    alone = scores[apart]
    summed = Scores(
        np.bincount(places, weights=scores[~apart]),
        np.bincount(places),
        Alone(float(alone.sum()), float((alone**2).sum()), len(alone)),
    )
    mean, variance = (float(part) for part in summed.moments())
    half = float(stdtrit(summed.df, (1 + by_items.level) / 2)) * float(np.sqrt(variance))
    return _outer(by_items, mean - half, mean + half), max(p_value, float(p_mean_above(summed, 0.0)))


def recall_by_clusters(
    dense: Right, compressed: Right, recovered: Right, clusters: Numbers, by_items: Recall, *, level: float
) -> Recall | NotEstimable:
    """r1, r0 and their difference with the outer ends of ``by_items`` and of the linearised ratios' cluster t; the larger p.

    The influence of an item on r1 is (it came back - r1)/n_lost where it was lost and 0 elsewhere, on r0 likewise. A relation
    without lost items says nothing of r1: only those with some count for its degrees of freedom, and for the difference the
    fewer of both. NotEstimable where either kind of item is of one relation alone.
    """
    groups = (dense & ~compressed, ~dense & ~compressed)
    n_lost, n_never = (_n_clusters(clusters[group]) for group in groups)
    if min(n_lost, n_never) < 2:
        which = "the lost items are" if n_lost < 2 else "the items that were never known are"
        return NotEstimable(f"all {which} of one relation, which says nothing of others")
    lost, never = (
        np.where(group, recovered - found.value, 0.0) / group.sum()
        for group, found in zip(groups, (by_items.lost, by_items.never), strict=True)
    )
    fewest, value = min(n_lost, n_never), by_items.difference.value
    error, df = standard_error(lost - never, clusters, fewest)

    def widened(one: Estimate, influences: np.ndarray, n_holding: int) -> Estimate:
        of_it, freedom = standard_error(influences, clusters, n_holding)
        half = float(stdtrit(freedom, (1 + level) / 2)) * of_it
        return _outer(one, one.value - half, one.value + half)

    with np.errstate(divide="ignore"):
        t = np.float64(value) / error if value else np.float64(0.0)
    return Recall(
        lost=_within(widened(by_items.lost, lost, n_lost)),
        never=_within(widened(by_items.never, never, n_never)),
        difference=widened(by_items.difference, lost - never, fewest),
        p_value=max(by_items.p_value, float(stdtr(df, -t))),
    )


def gap_closed_by_clusters(
    dense: Right, compressed: Right, recovered: Right, clusters: Numbers, by_items: Estimate | NotEstimable, *, level: float
) -> Estimate | NotEstimable:
    """(recovered - compressed)/(dense - compressed) with the outer ends of ``by_items`` and of Fieller's interval with the
    covariance between clusters and Student's quantile; NotEstimable where either is."""
    if isinstance(by_items, NotEstimable):
        return by_items
    parts = np.stack([recovered.astype(np.float64) - compressed, dense.astype(np.float64) - compressed])
    means = parts.mean(1)
    sums, n_clusters = _sums((parts - means[:, None]) / parts.shape[1], clusters)
    covariance = sums @ sums.T
    critical = float(stdtrit(n_clusters - 1, (1 + level) / 2))
    found = ratio_interval((float(means[0]), float(means[1])), covariance, critical, level)
    if isinstance(found, NotEstimable):
        return NotEstimable(f"the gap between dense and compressed is too uncertain: {found.reason}")
    return _outer(by_items, found.low, found.high)


def standard_error(
    influences: Float[np.ndarray, " n"], clusters: Numbers, n_holding: int | None = None
) -> tuple[float, float]:
    """The cluster-robust standard error of a statistic from its items' influences (which sum to 0), and its degrees of
    freedom, C - 1. C is ``n_holding``, two or more, where only so many clusters can say anything of the statistic.

    >>> error, df = standard_error(np.repeat([0.1, -0.1], 5), np.repeat(np.arange(10), 1))
    >>> round(error, 4), df
    (0.3333, 9.0)
    """
    sums, n_clusters = _sums(influences[None], clusters, n_holding)
    return float(np.sqrt((sums**2).sum())), float(n_clusters - 1)


def _sums(
    values: Float[np.ndarray, "k n"], clusters: Numbers, n_holding: int | None = None
) -> tuple[Float[np.ndarray, "k units"], int]:
    """Sums over each cluster, times the root of C/(C - 1); items that belong to none follow one by one, as they are. C is
    ``n_holding`` where that is given."""
    apart = clusters < 0
    names, places = np.unique(clusters[~apart], return_inverse=True)
    together = np.stack([np.bincount(places, weights=row[~apart], minlength=len(names)) for row in values])
    n_clusters = len(names) if n_holding is None else n_holding
    return np.concatenate([together * np.sqrt(n_clusters / (n_clusters - 1)), values[:, apart]], axis=1), n_clusters


def _n_clusters(clusters: Numbers) -> int:
    return len(np.unique(clusters[clusters >= 0]))


def _outer(one: Estimate, low: float, high: float) -> Estimate:
    return Estimate(one.value, min(one.low, low), max(one.high, high), one.level, METHOD)


def _within(one: Estimate) -> Estimate:
    return replace(one, low=max(0.0, one.low), high=min(1.0, one.high))
