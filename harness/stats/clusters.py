"""Losses where items come in clusters that stand for others (relations, documents): items of one cluster change together.

The cluster-robust t, with C - 1 degrees of freedom, never read as a z (with three clusters that is 53 times its size); and
the largest of Tango's, Wald's and its p-value decides, at full N only: there is no early verdict for clusters. Fewer than
ten clusters are better treated as fixed strata, by the plain tests. Items that belong to no cluster (a pool may have tasks
of both kinds) are independent, and add nothing to C. Clusters stand along the last axis; axes before are many comparisons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr, stdtrit

from harness.core.verdicts import Estimate
from harness.stats.paired import tango_variance, wald_variance, wald_z
from harness.stats.recompression import (
    NO_SPREAD,
    Spread,
    chi_square_nodes,
    combined_quantile,
    combined_tail,
    p_loss_above,
    p_loss_below,
)

FEWEST_CLUSTERS = 10
"""Below this the t test has hardly any power at corrected levels: treat the clusters as fixed strata."""

_ALMOST_ONE = 1 - 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """Scores of items that belong to no cluster: their sum, the sum of their squares, how many they are."""

    total: float
    squares: float
    n_items: int


NONE_ALONE = Alone(0.0, 0.0, 0)
"""Every item belongs to a cluster."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Each cluster's sum of its items' scores and how many items it has, none of them 0; at least two clusters."""

    totals: Float[np.ndarray, "*batch clusters"]
    n_items: Int[np.ndarray, " clusters"]
    alone: Alone = NONE_ALONE

    def __post_init__(self) -> None:
        if len(self.n_items) < 2 or not np.all(self.n_items > 0):
            raise ValueError(f"at least two clusters with items are needed, got sizes {self.n_items.tolist()}")

    @property
    def df(self) -> float:
        """C - 1."""
        return float(len(self.n_items) - 1)

    def variance_of(self, times: float) -> float:
        """The variance of the mean of so many times as many clusters like these; of a single comparison."""
        n_clusters = self.df + 1
        return float(self.moments()[1]) * self.df / (n_clusters * times - 1)

    def moments(self) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
        """The mean score of all items and its variance, C/(C-1) sum_c (total_c - n_c mean)^2 / N^2 (linearised ratio, as in
        survey sampling and in GEE with an independence working correlation); items alone add theirs one by one."""
        alone, n = self.alone, float(self.n_items.sum() + self.alone.n_items)
        mean = (self.totals.sum(-1) + alone.total) / n
        squares = ((self.totals - self.n_items * mean[..., None]) ** 2).sum(-1)
        of_alone = np.maximum(alone.squares - 2 * mean * alone.total + alone.n_items * mean**2, 0.0)
        return np.asarray(mean), np.asarray((squares * (self.df + 1) / self.df + of_alone) / n**2)


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Items lost, gained and all of each cluster; ``alone``: lost, gained and all of the items that belong to none."""

    n_lost: Real[np.ndarray, "*batch clusters"]
    n_gained: Real[np.ndarray, "*batch clusters"]
    n_items: Int[np.ndarray, " clusters"]
    alone: tuple[int, int, int] = (0, 0, 0)
    scores: Scores = field(init=False)

    def __post_init__(self) -> None:
        lost, gained, n = self.alone
        totals = np.asarray(self.n_lost, dtype=np.float64) - self.n_gained
        object.__setattr__(self, "scores", Scores(totals, self.n_items, Alone(float(lost - gained), float(lost + gained), n)))

    @classmethod
    def of(cls, lost: Bool[np.ndarray, " n"], gained: Bool[np.ndarray, " n"], clusters: Int[np.ndarray, " n"]) -> Clusters:
        """From items, each with its cluster's number; -1 where it belongs to none.

        >>> made = Clusters.of(np.array([1, 0, 0, 0, 1]) > 0, np.zeros(5) > 0, np.array([7, 7, 9, 9, -1]))
        >>> made.n_lost.tolist(), made.n_items.tolist(), made.alone
        ([1, 0], [2, 2], (1, 0, 1))
        """
        apart = clusters < 0
        names, places = np.unique(clusters[~apart], return_inverse=True)
        n_lost, n_gained, n_items = (
            np.bincount(places[chosen[~apart]], minlength=len(names)) for chosen in (lost, gained, np.ones_like(apart))
        )
        n_alone = int((lost & apart).sum()), int((gained & apart).sum()), int(apart.sum())
        return cls(n_lost, n_gained, n_items, n_alone)

    @property
    def n_clusters(self) -> int:
        """C."""
        return len(self.n_items)

    def totals(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Lost, gained and all items together."""
        lost, gained, n = self.alone
        n_lost, n_gained = np.asarray(self.n_lost.sum(-1) + lost), np.asarray(self.n_gained.sum(-1) + gained)
        return n_lost, n_gained, int(self.n_items.sum()) + n

    def turned(self) -> Clusters:
        """The same with what was lost as gained."""
        lost, gained, n = self.alone
        return Clusters(self.n_gained, self.n_lost, self.n_items, (gained, lost, n))


def cluster_t(counts: Clusters, margin: float) -> Float[np.ndarray, "*batch"]:
    """The t statistic of H0: loss = ``margin``, positive when more was lost; C - 1 degrees of freedom.

    Without any variance between clusters: +-inf by the sign of loss - margin, 0 at equality.

    >>> found = Clusters(np.array([4, 1, 3, 0]), np.array([0, 1, 1, 0]), np.array([50, 50, 50, 50]))
    >>> round(float(cluster_t(found, 0.0)), 4)
    1.5667
    """
    loss, variance = counts.scores.moments()
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (loss - margin) / np.sqrt(variance)
    return np.where(loss == margin, 0.0, t)


def p_mean_above(scores: Scores, margin: float, spread: Spread = NO_SPREAD) -> Float[np.ndarray, "*batch"]:
    """The cluster t's one-sided p-value of "the mean score is at most ``margin``"; small when it is above.

    ``spread``: how far re-compressing alone moves the mean (single comparisons only).

    >>> scores = Scores(np.array([13.0, 11, 8, 12]), np.full(4, 50))
    >>> round(float(p_mean_above(scores, 0.05)), 4), round(float(p_mean_above(scores, 0.05, Spread(0.05, 4.0))), 4)
    (0.0021, 0.0193)
    """
    mean, variance = scores.moments()
    return _tail(np.asarray(mean - margin), variance, scores.df, spread)


def p_mean_below(scores: Scores, margin: float, spread: Spread = NO_SPREAD) -> Float[np.ndarray, "*batch"]:
    """The cluster t's one-sided p-value of "the mean score is ``margin`` or more", as ``p_mean_above``."""
    mean, variance = scores.moments()
    return _tail(np.asarray(margin - mean), variance, scores.df, spread)


def p_loss_above_clustered(counts: Clusters, margin: float, spread: Spread = NO_SPREAD) -> Float[np.ndarray, "*batch"]:
    """The one-sided p-value of "at most ``margin`` is lost": the largest of Tango's, Wald's and the cluster t's.

    >>> found = Clusters(np.array([14, 11, 9, 12]), np.array([1, 0, 1, 0]), np.full(4, 50))
    >>> round(float(p_loss_above_clustered(found, 0.05)), 4)
    0.0021
    """
    by_items = p_loss_above(*counts.totals(), margin, spread)
    return np.asarray(np.maximum(by_items, p_mean_above(counts.scores, margin, spread)))


def p_loss_below_clustered(counts: Clusters, margin: float, spread: Spread = NO_SPREAD) -> Float[np.ndarray, "*batch"]:
    """The one-sided p-value of "``margin`` or more is lost": the largest of Tango's, Wald's and the cluster t's.

    The variance between clusters is taken as many times as large as Tango's is of Wald's (``null_scale``): where few items are
    lost by chance, mean and variance both look better than they are, and the plain t passes 1.2 times as often as its level
    says (``benchmarks/clustered_cells.py``). The t is then Tango's z by the root of the design effect.

    >>> found = Clusters(np.array([1, 0, 1, 0]), np.array([0, 1, 0, 0]), np.full(4, 50))
    >>> round(float(p_loss_below_clustered(found, 0.05)), 4)
    0.0437
    """
    totals = counts.totals()
    by_items = np.maximum(p_loss_below(*totals, margin, spread), ndtr(wald_z(*totals, margin)))
    mean, variance = counts.scores.moments()
    scaled = np.asarray(variance * null_scale(counts, margin))
    by_clusters = _tail(np.asarray(margin - mean), scaled, counts.scores.df, spread)
    return np.asarray(np.maximum(by_items, by_clusters))


def null_scale(counts: Clusters, margin: float) -> Float[np.ndarray, "*batch"]:
    """How many times larger the items' variance is if ``margin`` is lost than it looks: Tango's over Wald's, at least 1.

    >>> round(float(null_scale(Clusters(np.array([1, 0, 1, 0]), np.zeros(4), np.full(4, 50)), 0.03)), 3)
    2.939
    """
    lost, gained, n = counts.totals()
    found = np.asarray(wald_variance(lost, gained, n))
    times = np.asarray(tango_variance(lost, gained, n, margin)) / np.where(found > 0, found, np.inf)
    return np.asarray(np.maximum(1.0, times))


def loss_limit_clustered(counts: Clusters, level: float, spread: Spread = NO_SPREAD) -> float:
    """The smallest margin that a loss is proven to stay below at one-sided ``level`` (below 0.5); at most 1.

    >>> found = Clusters(np.array([4, 1, 3, 0]), np.array([0, 1, 1, 0]), np.full(4, 50))
    >>> round(loss_limit_clustered(found, 0.025), 4)
    0.1253
    """

    def excess(margin: float) -> float:
        return float(p_loss_below_clustered(counts, margin, spread)) - level

    loss = float(counts.scores.moments()[0])
    if loss >= _ALMOST_ONE or excess(_ALMOST_ONE) > 0:
        return 1.0
    return float(brentq(excess, loss, _ALMOST_ONE, xtol=1e-9))


def cluster_interval(counts: Clusters, level: float, spread: Spread = NO_SPREAD) -> Estimate:
    """The loss with its interval for clusters like these: every margin that neither of the tests above rejects at half of
    1 - ``level``.

    >>> found = Clusters(np.array([4, 1, 3, 0]), np.array([0, 1, 1, 0]), np.full(4, 50))
    >>> made = cluster_interval(found, 0.95)
    >>> round(made.value, 4), round(made.low, 4), round(made.high, 4)
    (0.03, -0.0529, 0.1253)
    """
    side, value = (1 - level) / 2, float(counts.scores.moments()[0])
    low = -loss_limit_clustered(counts.turned(), side, spread)
    return Estimate(value, low, loss_limit_clustered(counts, side, spread), level, "cluster t")


def clustered_quantile(variance: float, df: float, spread: Spread, level: float) -> float:
    """How far beyond a margin a mean must lie to be proven at ``level`` (below 0.5), where its variance is estimated from
    clusters with ``df`` degrees of freedom.

    >>> [round(clustered_quantile(1e-4, 11.0, spread, 0.025), 4) for spread in (NO_SPREAD, Spread(0.01, 4.0))]
    [0.022, 0.0351]
    """
    student = math.sqrt(variance) * float(stdtrit(df, 1 - level))
    if spread.sigma == 0 or math.isinf(df):
        return combined_quantile(variance, spread, level) if math.isinf(df) else student
    high = max(student, combined_quantile(variance, spread, level))

    def excess(x: float) -> float:
        return float(_tail(np.asarray(x), np.asarray(variance), df, spread)) - level

    while excess(2 * high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, 2 * high, xtol=1e-9 * high))


def is_proven(excess: float, variance: float, df: float, spread: Spread, level: float) -> bool:
    """Whether a mean that lies ``excess`` beyond a margin is proven to: beyond ``clustered_quantile``, without solving for it.

    >>> [is_proven(x, 1e-4, 11.0, Spread(0.01, 4.0), 0.025) for x in (0.0350, 0.0352)]
    [False, True]
    """
    return float(_tail(np.asarray(excess), np.asarray(variance), df, spread)) < level


def _tail(
    excess: Float[np.ndarray, "*batch"], variance: Float[np.ndarray, "*batch"], df: float, spread: Spread
) -> Float[np.ndarray, "*batch"]:
    """P(sqrt(variance) T + spread > excess), T Student with ``df`` degrees of freedom: with a spread, the mean over the
    chi-square in T of what a normal part and the spread give (see ``recompression``)."""
    if spread.sigma > 0:
        widths, weights = chi_square_nodes(df)
        tails = combined_tail(np.asarray(excess)[..., None], variance[..., None] * widths, spread)
        return np.asarray(np.minimum(tails @ weights, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(excess == 0, 0.0, excess / np.sqrt(variance))
    return np.asarray(stdtr(df, -t))
