"""Clusters against statsmodels' GEE, simulation, and the plain tests."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from harness.stats.cluster_estimates import Resampled
from harness.stats.clusters import (
    Clusters,
    cluster_interval,
    cluster_t,
    clustered_quantile,
    is_proven,
    p_loss_above_clustered,
    p_loss_below_clustered,
)
from harness.stats.intervals import wilson
from harness.stats.paired import tango_z, wald_z
from harness.stats.recompression import NO_SPREAD, Spread

SIZES = np.array([25, 40, 10, 31, 25, 60, 12, 44, 25, 25, 18, 30])


def drawn(
    seed: int, runs: int, sizes: np.ndarray, *, flips: float, spread: float, loss: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Lost and gained items of clusters whose own losses vary by ``spread`` about ``loss``."""
    rng = np.random.default_rng(seed)
    own = loss + spread * rng.standard_normal((runs, len(sizes)))
    lost = rng.binomial(sizes, np.clip(flips / 2 + np.maximum(own, 0), 0, 1))
    return lost, np.minimum(rng.binomial(sizes, np.clip(flips / 2 + np.maximum(-own, 0), 0, 1)), sizes - lost)


def test_the_t_is_that_of_gee_with_its_small_sample_factor() -> None:
    lost, gained = (counts[0] for counts in drawn(0, 1, SIZES, flips=0.2, spread=0.05, loss=0.03))
    items = np.concatenate([np.repeat([1, -1, 0], [b, c, n - b - c]) for b, c, n in zip(lost, gained, SIZES, strict=True)])
    groups = np.repeat(np.arange(len(SIZES)), SIZES)
    fit = sm.GEE(items, np.ones((len(items), 1)), groups=groups, cov_struct=sm.cov_struct.Independence()).fit()
    c = len(SIZES)
    assert float(cluster_t(Clusters(lost, gained, SIZES), 0.0)) == pytest.approx(
        fit.params[0] / fit.bse[0] * np.sqrt((c - 1) / c), rel=1e-6
    )


COUNTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 60)), min_size=2, max_size=14)


@given(COUNTS, st.floats(0.001, 0.2))
def test_p_values_are_probabilities_that_neither_the_order_of_clusters_nor_the_names_of_the_sides_change(
    counts: list[tuple[int, int, int]], margin: float
) -> None:
    lost, gained = (np.array([one[i] for one in counts]) for i in (0, 1))
    sizes = lost + gained + np.array([one[2] for one in counts])
    order = np.random.default_rng(len(counts)).permutation(len(counts))
    for p_value in (p_loss_above_clustered, p_loss_below_clustered):
        p = float(p_value(Clusters(lost, gained, sizes), margin))
        assert 0 <= p <= 1
        assert float(p_value(Clusters(lost[order], gained[order], sizes[order]), margin)) == pytest.approx(p, abs=1e-12)
    assert float(cluster_t(Clusters(gained, lost, sizes), -margin)) == pytest.approx(
        -float(cluster_t(Clusters(lost, gained, sizes), margin))
    )
    made = cluster_interval(Clusters(lost, gained, sizes), 0.95)
    assert -1 <= made.low <= made.value <= made.high <= 1


def test_equal_clusters_give_students_t_of_their_losses() -> None:
    sizes = np.full(13, 100)
    lost, gained = (counts[0] for counts in drawn(1, 1, sizes, flips=0.1, spread=0.03))
    expected = stats.ttest_1samp((lost - gained) / 100, 0.01)
    assert float(cluster_t(Clusters(lost, gained, sizes), 0.01)) == pytest.approx(expected.statistic)


@pytest.mark.parametrize(("c", "n", "flips"), [(41, 25, 0.02), (41, 25, 0.10), (13, 100, 0.10)])
def test_relations_that_move_together_do_not_make_false_reds(c: int, n: int, flips: float) -> None:
    sizes, margin = np.full(c, n), 0.005
    lost, gained = drawn(2, 20_000, sizes, flips=flips, spread=0.05)
    for level in (0.025, 0.025 / 24):
        red = (p_loss_above_clustered(Clusters(lost, gained, sizes), margin) < level).mean()
        assert red <= level
    z = np.minimum(tango_z(lost.sum(1), gained.sum(1), c * n, 0.0), wald_z(lost.sum(1), gained.sum(1), c * n, 0.0))
    assert (special.ndtr(-z) < 0.025 / 24).mean() > 0.025 / 24  # what the plain tests do to clusters


def test_a_t_read_as_a_z_would_be_many_times_too_liberal() -> None:
    sizes = np.full(3, 400)
    lost, gained = drawn(3, 40_000, sizes, flips=0.10, spread=0.05)
    level = 0.05 / 24
    t = cluster_t(Clusters(lost, gained, sizes), 0.0)
    assert (special.ndtr(-t) < level).mean() > 10 * level
    assert (special.stdtr(2, -t) < level).mean() < 2 * level


def test_the_largest_p_value_decides() -> None:
    lost, gained = drawn(4, 500, SIZES, flips=0.1, spread=0.02, loss=0.02)
    above, below = (
        p_loss_above_clustered(Clusters(lost, gained, SIZES), 0.01),
        p_loss_below_clustered(Clusters(lost, gained, SIZES), 0.05),
    )
    total = int(SIZES.sum())
    for z in (tango_z, wald_z):
        assert np.all(above >= special.ndtr(-z(lost.sum(1), gained.sum(1), total, 0.01)) - 1e-12)
        assert np.all(below >= special.ndtr(z(lost.sum(1), gained.sum(1), total, 0.05)) - 1e-12)
    assert np.all(above >= special.stdtr(len(SIZES) - 1, -cluster_t(Clusters(lost, gained, SIZES), 0.01)) - 1e-12)


def test_a_clear_loss_is_found_and_an_unchanged_cell_passes() -> None:
    sizes = np.full(41, 50)
    lost, gained = drawn(5, 1000, sizes, flips=0.05, spread=0.01, loss=0.06)
    assert (p_loss_above_clustered(Clusters(lost, gained, sizes), 0.005) < 0.025 / 24).mean() > 0.95
    lost, gained = drawn(7, 1000, sizes, flips=0.05, spread=0.01)
    assert (p_loss_below_clustered(Clusters(lost, gained, sizes), 0.03) < 0.05).mean() > 0.95


def test_the_interval_covers_the_loss_and_without_flips_is_tangos() -> None:
    lost, gained = drawn(6, 1000, np.full(41, 25), flips=0.1, spread=0.04, loss=0.02)
    truth = ((lost - gained).sum() / (1000 * 41 * 25)).item()
    made = [cluster_interval(Clusters(b, c, np.full(41, 25)), 0.95) for b, c in zip(lost, gained, strict=True)]
    assert np.mean([m.low <= truth <= m.high for m in made]) >= 0.935
    nothing = np.zeros(12, dtype=int)
    quiet = cluster_interval(Clusters(nothing, nothing, SIZES), 0.95)
    assert quiet.low < 0 == quiet.value < quiet.high
    assert float(p_loss_below_clustered(Clusters(nothing, nothing, SIZES), 0.001)) > 0.05


def test_one_cluster_or_an_empty_one_is_refused() -> None:
    for sizes in (np.array([30]), np.array([30, 0])):
        with pytest.raises(ValueError, match="at least two clusters"):
            cluster_t(Clusters(np.zeros(len(sizes)), np.zeros(len(sizes)), sizes), 0.0)


def test_items_that_belong_to_no_cluster_add_walds_variance_and_no_degree_of_freedom() -> None:
    """A cluster table in which every item is a cluster of its own is Wald's test, but for C/(C-1)."""
    lost, gained, n = 60, 30, 1500
    apart = np.repeat([1, 0, 0], [lost, gained, n - lost - gained]), np.repeat([0, 1, 0], [lost, gained, n - lost - gained])
    singles = cluster_t(Clusters(*apart, np.ones(n, dtype=int)), 0.005)
    assert float(singles) * np.sqrt(n / (n - 1)) == pytest.approx(float(wald_z(lost, gained, n, 0.005)))
    both = Clusters(np.zeros(2), np.zeros(2), np.array([1, 1]), (lost, gained, n))
    assert both.totals() == (lost, gained, n + 2)
    assert both.scores.df == 1
    assert float(both.scores.moments()[1]) == pytest.approx((90 / 1500 - 0.02**2) / 1500, rel=0.01)


def test_clusters_and_re_compressions_together_are_a_sum_of_two_students() -> None:
    """Against the simulated quantile of sqrt(V) T_11 + sigma T_4 (two million draws: 0.5 % of it)."""
    rng = np.random.default_rng(8)
    drawn_sum = 0.01 * rng.standard_t(11, 2_000_000) + 0.02 * rng.standard_t(4, 2_000_000)
    found = clustered_quantile(1e-4, 11.0, Spread(0.02, 4.0), 0.025)
    assert found == pytest.approx(np.quantile(drawn_sum, 0.975), rel=0.01)


def test_the_bootstraps_loss_covers_and_its_accuracies_hold_the_relations_spread() -> None:
    rng, c, n = np.random.default_rng(9), 30, 40
    clusters, covered, wide = np.repeat(np.arange(c), n), 0, []
    for _ in range(150):
        before = rng.random(c * n) < np.repeat(rng.beta(3, 2, c), n)
        now = before & (rng.random(c * n) > np.repeat(rng.beta(1, 19, c), n))
        drawn_again = Resampled.of(before, now, clusters, rng, 400)
        made = drawn_again.loss(Clusters.of(before & ~now, ~before & now, clusters), 0.95)
        covered += made.low <= 0.6 * 0.05 <= made.high
        by_items = wilson(int(before.sum()), c * n, 0.95)
        accuracy = drawn_again.accuracy_before(by_items)
        wide.append((accuracy.high - accuracy.low) / (by_items.high - by_items.low))
    assert covered >= 0.93 * 150
    assert np.mean(wide) > 2, "relations differ, so new ones would"


@pytest.mark.parametrize("spread", [NO_SPREAD, Spread(0.01, 4.0)])
def test_a_distance_is_proven_from_the_quantile_on(spread: Spread) -> None:
    for variance, df, level in ((1e-4, 11.0, 0.025), (3e-5, 81.3, 0.001)):
        needed = clustered_quantile(variance, df, spread, level)
        assert is_proven(needed * 1.0001, variance, df, spread, level)
        assert not is_proven(needed * 0.9999, variance, df, spread, level)


def test_items_that_are_each_their_own_cluster_give_students_t() -> None:
    score = np.random.default_rng(5).choice([1, -1, 0], 60, p=[0.2, 0.1, 0.7])
    counts = Clusters((score == 1).astype(int), (score == -1).astype(int), np.ones(60, dtype=int))
    assert float(cluster_t(counts, 0.01)) == pytest.approx(stats.ttest_1samp(score, 0.01).statistic)
