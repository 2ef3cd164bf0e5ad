"""What is told of clusters beside their p-values: intervals, the loss that could be found, how many more would do.

Whole clusters are drawn again (bootstrap); items that belong to no cluster one by one. With few clusters such intervals come
out too narrow, so each end is the outer one of the bootstrap's and of a formula's: of the inverted tests for the loss, of
Wilson's for an accuracy, of the log-ratio's for the retention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.special import ndtri

from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.bootstrap import N_RESAMPLES, percentile_interval, resample_clusters, resample_items
from harness.stats.clusters import Clusters, cluster_interval, clustered_quantile, is_proven
from harness.stats.paired import wald_variance
from harness.stats.recompression import NO_SPREAD, Spread

METHOD = "cluster bootstrap"
_MOST_TIMES = 2.0**20


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Sums of samples of the same kind, drawn again: all items, those right before, and those right now."""

    n_items: Float[np.ndarray, " resamples"]
    n_before: Float[np.ndarray, " resamples"]
    n_now: Float[np.ndarray, " resamples"]

    @classmethod
    def of(
        cls,
        before: Bool[np.ndarray, " n"],
        now: Bool[np.ndarray, " n"],
        clusters: Int[np.ndarray, " n"],
        rng: np.random.Generator,
        n_resamples: int = N_RESAMPLES,
    ) -> Resampled:
        """From items, each with its cluster's number; -1 where it belongs to none."""
        kinds, apart = 2 * before + now, clusters < 0
        names, places = np.unique(clusters[~apart], return_inverse=True)
        table = np.bincount(4 * places + kinds[~apart], minlength=4 * len(names)).reshape(-1, 4)
        drawn = resample_clusters(table, n_resamples, rng)
        if apart.any():
            drawn = drawn + resample_items(np.bincount(kinds[apart], minlength=4), n_resamples, rng)
        sums = drawn.astype(np.float64)
        return cls(sums.sum(1), sums[:, 2] + sums[:, 3], sums[:, 1] + sums[:, 3])

    def loss(self, counts: Clusters, level: float, spread: Spread = NO_SPREAD) -> Estimate:
        """The loss for clusters like these, as a fraction of all items."""
        return self._outer(cluster_interval(counts, level, spread), (self.n_before - self.n_now) / self.n_items)

    def accuracy_before(self, by_items: Estimate) -> Estimate:
        """An accuracy with the outer ends of ``by_items`` and the bootstrap."""
        return self._outer(by_items, self.n_before / self.n_items)

    def accuracy_now(self, by_items: Estimate) -> Estimate:
        """As ``accuracy_before``."""
        return self._outer(by_items, self.n_now / self.n_items)

    def retention(self, by_items: Estimate | NotEstimable) -> Estimate | NotEstimable:
        """A_now/A_before with the outer ends of ``by_items`` and the bootstrap."""
        if isinstance(by_items, NotEstimable):
            return by_items
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._outer(by_items, self.n_now / self.n_before)

    def _outer(self, by_formula: Estimate, replicates: Float[np.ndarray, " resamples"]) -> Estimate:
        """Of the two; where the bootstrap has no ends (nothing was right in many samples), the formula's alone."""
        made = percentile_interval(by_formula.value, replicates, by_formula.level, METHOD)
        if isinstance(made, NotEstimable):
            return by_formula
        return Estimate(made.value, min(made.low, by_formula.low), max(made.high, by_formula.high), made.level, METHOD)


def detectable_loss_clustered(
    counts: Clusters, *, margin: float, level: float, power: float, spread: Spread = NO_SPREAD
) -> float | None:
    """The smallest true loss that "more than ``margin`` is lost" is proven for with probability ``power``; None for none.

    As ``power.minimal_detectable_loss``, with Student's quantile, and the items' variance as many times as large as that
    between the clusters is of it here (at least once).
    """
    lost, gained, n = counts.totals()
    flip_rate, between = float(lost + gained) / n, float(counts.scores.moments()[1])
    within = float(wald_variance(lost, gained, n)) / n
    times = max(1.0, between / within) if within > 0 else 1.0

    def short_of(loss: float) -> float:
        variance = times * (flip_rate + loss - loss * loss) / n
        needed = clustered_quantile(variance, counts.scores.df, spread, level)
        return margin + needed + float(ndtri(power)) * math.sqrt(variance + spread.sigma**2) - loss

    return float(brentq(short_of, margin, 1.0, xtol=1e-6)) if short_of(1.0) < 0 else None


def times_to_prove(
    counts: Clusters, distance: float, level: float, spread: Spread = NO_SPREAD, scale: float = 1.0
) -> float | None:
    """How many times as many clusters like these would prove a loss that lies ``distance`` from a margin: the multiple, at
    least 1; None where no number that anyone would measure does. ``scale`` of the variance: ``clusters.null_scale`` for PASS.

    >>> found = Clusters(np.array([4, 1, 3, 0]), np.array([0, 1, 1, 0]), np.full(4, 50))
    >>> times_to_prove(found, 0.03, 0.025) > 1, times_to_prove(found, 0.0, 0.025)
    (True, None)
    """
    if distance <= 0:
        return None
    scores, n_clusters = counts.scores, counts.n_clusters
    return fewest_times(
        lambda times: is_proven(distance, scale * scores.variance_of(times), n_clusters * times - 1, spread, level)
    )


def fewest_times(proves: Callable[[float], bool]) -> float | None:
    """The smallest multiple, 1 or more, that is enough, to a thousandth of it; None where none up to a million is."""
    low = high = 1.0
    while not proves(high):
        low, high = high, 2 * high
        if high > _MOST_TIMES:
            return None
    while high - low > 1e-3 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return high
