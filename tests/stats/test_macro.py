"""Means over relations: against SciPy's t, against the paired cluster statistics, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.clusters import Clusters, cluster_t
from harness.stats.macro import macro_mean, micro_mean, p_same_macro, p_same_micro


def draw(rng: np.random.Generator, n_clusters: int = 12) -> tuple[np.ndarray, np.ndarray]:
    sizes = rng.integers(5, 30, n_clusters)
    clusters = np.repeat(np.arange(n_clusters), sizes)
    return (rng.random(len(clusters)) < rng.beta(2, 2, n_clusters)[clusters]).astype(int), clusters


def test_macro_is_scipys_t_interval_over_the_relations_means() -> None:
    values, clusters = draw(np.random.default_rng(1))
    means = [values[clusters == c].mean() for c in range(12)]
    low, high = scipy_stats.ttest_1samp(means, 0).confidence_interval(0.9)
    made = macro_mean(values, clusters, 0.9)
    assert isinstance(made, Estimate)
    assert (made.value, made.low, made.high) == pytest.approx((np.mean(means), low, high))


def test_micro_is_the_loss_of_everything_by_the_paired_statistics() -> None:
    """What is gained from nothing right: each end is where the cluster t of the paired losses is its quantile."""
    values, clusters = draw(np.random.default_rng(2))
    right, sizes = np.bincount(clusters, weights=values).astype(int), np.bincount(clusters)
    paired, quantile = Clusters(right, np.zeros_like(right), sizes), scipy_stats.t.ppf(0.975, 11)
    made = micro_mean(values, clusters, 0.95)
    assert isinstance(made, Estimate)
    assert made.value == pytest.approx(right.sum() / sizes.sum())
    assert [float(cluster_t(paired, end)) for end in (made.low, made.high)] == pytest.approx([quantile, -quantile])


def test_the_paired_p_value_is_scipys() -> None:
    rng = np.random.default_rng(3)
    one, clusters = draw(rng)
    other = np.where(rng.random(len(one)) < 0.2, 1 - one, one)
    means = [[v[clusters == c].mean() for c in range(12)] for v in (one, other)]
    assert p_same_macro(one, other, clusters) == pytest.approx(scipy_stats.ttest_rel(*means).pvalue)
    assert p_same_macro(one, one, clusters) == p_same_micro(one, one, clusters) == 1.0
    lost, gained = (np.bincount(clusters, weights=(a > b)).astype(int) for a, b in ((one, other), (other, one)))
    t = float(cluster_t(Clusters(lost, gained, np.bincount(clusters)), 0.0))
    assert p_same_micro(one, other, clusters) == pytest.approx(2 * scipy_stats.t.sf(abs(t), 11))
    assert p_same_macro(np.ones(4), np.zeros(4), np.array([0, 0, 1, 1])) == 0.0


def test_the_intervals_cover_what_they_promise_over_new_relations() -> None:
    rng = np.random.default_rng(4)
    covered = {"macro": 0, "micro": 0}
    for _ in range(400):
        values, clusters = draw(rng, 20)
        for name, mean in (("macro", macro_mean), ("micro", micro_mean)):
            made = mean(values, clusters, 0.95)
            assert isinstance(made, Estimate)
            covered[name] += made.low <= 0.5 <= made.high
    assert all(360 <= n <= 396 for n in covered.values()), covered


def test_one_relation_has_no_interval_and_a_gap_in_the_numbers_is_refused() -> None:
    one = np.zeros(3, dtype=int)
    for found in (macro_mean(one, one, 0.95), micro_mean(one, one, 0.95), p_same_macro(one, one, one)):
        assert isinstance(found, NotEstimable)
    with pytest.raises(ValueError, match="without a gap"):
        macro_mean(np.ones(2), np.array([0, 2]), 0.95)
