"""The bootstrap against closed forms; the generator decides everything."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.bootstrap import percentile_interval, ratio_of_sums, resample_clusters, resample_items


def test_resampled_items_have_the_multinomials_mean_and_variance() -> None:
    counts = np.array([30, 70, 900])
    drawn = resample_items(counts, 40_000, np.random.default_rng(0))
    assert np.all(drawn.sum(1) == 1000)
    np.testing.assert_allclose(drawn.mean(0), counts, rtol=0.01)
    np.testing.assert_allclose(drawn.var(0), counts * (1 - counts / 1000), rtol=0.05)


def test_resampled_clusters_have_the_variance_of_a_sum_of_clusters() -> None:
    clusters = np.random.default_rng(1).integers(0, 30, size=(41, 2))
    drawn = resample_clusters(clusters, 40_000, np.random.default_rng(2))
    np.testing.assert_allclose(drawn.mean(0), clusters.sum(0), rtol=0.01)
    np.testing.assert_allclose(drawn.var(0), 41 * clusters.var(0), rtol=0.05)


def test_the_percentile_interval_of_a_proportion_is_about_walds() -> None:
    counts = np.array([400, 600])
    drawn = resample_items(counts, 20_000, np.random.default_rng(3))
    made = percentile_interval(0.4, drawn[:, 0] / 1000, 0.95, "item bootstrap")
    assert isinstance(made, Estimate)
    half = 1.96 * np.sqrt(0.24 / 1000)
    assert (made.low, made.high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.002)


def test_replicates_that_are_mostly_undefined_give_no_interval() -> None:
    few, many = np.ones(1000), np.ones(1000)
    few[:20], many[:30] = np.nan, np.nan
    assert isinstance(percentile_interval(1.0, few, 0.95, "b"), Estimate)
    made = percentile_interval(1.0, many, 0.95, "b")
    assert isinstance(made, NotEstimable)
    assert "30 of 1000" in made.reason


def test_a_ratio_of_times_is_covered() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        before = rng.lognormal(0, 0.5, size=100)
        now = 1.2 * before * rng.lognormal(-0.005, 0.1, size=100)
        made = ratio_of_sums(now, before, 0.95, rng, n_resamples=400)
        assert isinstance(made, Estimate)
        covered += made.low <= 1.2 <= made.high
    assert covered / 200 >= 0.88


def test_blocks_do_not_change_the_number_of_resamples() -> None:
    seconds = np.random.default_rng(5).lognormal(size=3000)
    made = ratio_of_sums(2 * seconds, seconds, 0.95, np.random.default_rng(6), n_resamples=3001)
    assert isinstance(made, Estimate)
    assert (made.low, made.value, made.high) == pytest.approx((2, 2, 2))


def test_nothing_to_draw_from_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least one item"):
        resample_items(np.zeros(3, dtype=int), 5, rng)
    with pytest.raises(ValueError, match="at least two clusters"):
        resample_clusters(np.ones((1, 3), dtype=int), 5, rng)
    with pytest.raises(ValueError, match="positive denominators"):
        ratio_of_sums(np.ones(3), np.array([1.0, 0.0, 1.0]), 0.95, rng)
