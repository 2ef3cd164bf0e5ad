"""Bootstrap intervals: items, or whole clusters of them, drawn again with replacement. The generator is an argument.

Items are counts of kinds (a 2 x 2 x 2 table has eight), so that drawing N items again is one multinomial draw.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from harness.core.verdicts import Estimate, NotEstimable

N_RESAMPLES = 2000
"""Enough for the ends of a 95 % interval to move by about 3 % of its width."""

_BLOCK = 4_000_000


def resample_items(
    counts: Int[np.ndarray, " kinds"], n_resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "resamples kinds"]:
    """The counts of as many samples of the same size, each item drawn from all with replacement.

    >>> drawn = resample_items(np.array([30, 70]), 4, np.random.default_rng(0))
    >>> drawn.shape, drawn.sum(1).tolist()
    ((4, 2), [100, 100, 100, 100])
    """
    n_items = int(counts.sum())
    if n_items < 1:
        raise ValueError("at least one item is needed, got none")
    return np.asarray(rng.multinomial(n_items, counts / n_items, size=n_resamples))


def resample_clusters(
    counts: Int[np.ndarray, "clusters kinds"], n_resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "resamples kinds"]:
    """The summed counts of as many samples of whole clusters, each drawn from all with replacement.

    Sizes of samples differ where clusters' sizes do. With fewer than about ten clusters the intervals come out too narrow.

    >>> clusters = np.array([[1, 9], [5, 5], [9, 1]])
    >>> resample_clusters(clusters, 4, np.random.default_rng(0)).sum(1).tolist()
    [30, 30, 30, 30]
    """
    n_clusters = len(counts)
    if n_clusters < 2:
        raise ValueError(f"at least two clusters are needed, got {n_clusters}")
    times: Int[np.ndarray, "resamples clusters"] = rng.multinomial(
        n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_resamples
    )
    return np.asarray(times @ counts)


def percentile_interval(
    value: float, replicates: Float[np.ndarray, " resamples"], level: float, method: str
) -> Estimate | NotEstimable:
    """The value with the middle ``level`` of its bootstrap replicates (NaN = undefined in that sample).

    NotEstimable where a tail's worth of the replicates, (1 - level)/2, are undefined: the interval's ends then are, too.

    >>> made = percentile_interval(0.5, np.linspace(0, 1, 1001), 0.95, "bootstrap")
    >>> round(made.low, 3), round(made.high, 3)
    (0.025, 0.975)
    """
    defined = replicates[np.isfinite(replicates)]
    missing = len(replicates) - len(defined)
    if missing > (1 - level) / 2 * len(replicates):
        return NotEstimable(f"it is undefined in {missing} of {len(replicates)} bootstrap samples")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), level, method)


def ratio_of_sums(
    numerators: Float[np.ndarray, " n"],
    denominators: Float[np.ndarray, " n"],
    level: float,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
) -> Estimate | NotEstimable:
    """sum(numerators)/sum(denominators), paired, with its bootstrap interval: how many times longer the same requests took.

    Seconds over seconds, 1 = as before. All denominators must be positive.

    >>> seconds = np.array([1.0, 2.0, 4.0, 8.0])
    >>> made = ratio_of_sums(1.5 * seconds, seconds, 0.95, np.random.default_rng(0))
    >>> made.value, round(made.low, 6), round(made.high, 6)
    (1.5, 1.5, 1.5)
    """
    n = len(denominators)
    if n < 2 or len(numerators) != n or not np.all(denominators > 0):
        raise ValueError(f"at least two pairs with positive denominators are needed, got {len(numerators)} and {n} numbers")
    pairs = np.stack([numerators, denominators], axis=1)
    per_block = max(1, _BLOCK // n)
    sums = [
        rng.multinomial(n, np.full(n, 1 / n), size=min(per_block, n_resamples - done)) @ pairs
        for done in range(0, n_resamples, per_block)
    ]
    drawn = np.concatenate(sums)
    value = float(numerators.sum() / denominators.sum())
    return percentile_interval(value, drawn[:, 0] / drawn[:, 1], level, "paired bootstrap")


def ratio_of_medians(
    numerators: Float[np.ndarray, " n"],
    denominators: Float[np.ndarray, " n"],
    level: float,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
) -> Estimate | NotEstimable:
    """median(numerators)/median(denominators) with its bootstrap interval over pairs: rounds in which both sides were timed.

    Seconds over seconds, 1 = as long. A median is not moved by the rounds that something else disturbed. All denominators must
    be positive; at least three pairs.

    >>> seconds = np.array([1.0, 2.0, 4.0, 8.0])
    >>> ratio_of_medians(1.5 * seconds, seconds, 0.95, np.random.default_rng(0)).value
    1.5
    """
    n = len(denominators)
    if n < 3 or len(numerators) != n or not np.all(denominators > 0):
        raise ValueError(f"at least three pairs with positive denominators are needed, got {len(numerators)} and {n} numbers")
    drawn = rng.integers(n, size=(n_resamples, n))
    replicates = np.median(numerators[drawn], axis=1) / np.median(denominators[drawn], axis=1)
    value = float(np.median(numerators) / np.median(denominators))
    return percentile_interval(value, replicates, level, "paired bootstrap of medians")
