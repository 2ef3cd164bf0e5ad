"""A loss beside the spread of re-compressions: the combined tail in closed form, and the gate's error rates by simulation.

The simulated cells are those of ``benchmarks/recompressed_cells.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from harness.stats.paired import loss_limit, tango_interval, tango_variance, tango_z, wald_variance, wald_z
from harness.stats.recompression import (
    NO_SPREAD,
    Spread,
    combined_quantile,
    combined_tail,
    loss_interval_with_spread,
    loss_limit_with_spread,
    p_loss_above,
    p_loss_below,
    spread_of_loss,
)

CELL_LEVEL = 0.025 / 24


@pytest.fixture(scope="module")
def bench(benchmark_module: Any) -> Any:
    return benchmark_module("recompressed_cells")


def red_rates(bench: Any, cells: Any, levels: tuple[float, ...], n_cells: int, known: bool = False) -> list[float]:
    """How often "more than 0.5 pt is lost" is proven where exactly that is lost, over each level."""
    made = bench.simulate(cells, bench.MARGIN, n_cells, np.random.default_rng(7))
    p = bench.p_if_known(made, cells.n_items) if known else bench.p_ours(made, cells.n_items)
    return [float((p < level).mean()) / level for level in levels]


@given(st.floats(-10, 60), st.sampled_from([2, 3, 4, 8, 30]))
def test_with_nothing_but_spread_the_tail_is_students(x: float, df: int) -> None:
    assert float(combined_tail(0.01 * x, 0.0, Spread(0.01, float(df)))) == pytest.approx(
        stats.t.sf(x, df), rel=1e-6, abs=1e-13
    )


@given(st.floats(-6, 6), st.floats(0, 0.1))
def test_with_an_exactly_known_spread_the_tail_is_normal(x: float, sigma: float) -> None:
    expected = stats.norm.sf(x / math.sqrt(1 + sigma**2))
    assert float(combined_tail(x, 1.0, Spread(sigma, math.inf))) == pytest.approx(expected)
    assert float(combined_tail(x, 1.0, Spread(sigma, 1e6))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("df", [4, 8])
@pytest.mark.parametrize("x", [0.5, 3.0, 8.0])
def test_the_tail_is_that_of_a_normal_plus_a_student(x: float, df: int) -> None:
    found, _ = integrate.quad(lambda t: stats.t.pdf(t, df) * special.ndtr((t - x) / 0.5), -60, 400, points=[x], limit=400)
    assert float(combined_tail(x, 0.25, Spread(1.0, float(df)))) == pytest.approx(found, abs=2e-10)


@given(st.floats(1e-6, 1e-2), st.floats(0, 0.03), st.integers(2, 30), st.floats(1e-4, 0.4))
def test_the_quantile_inverts_the_tail(variance: float, sigma: float, df: int, level: float) -> None:
    spread = Spread(sigma, float(df))
    assert float(combined_tail(combined_quantile(variance, spread, level), variance, spread)) == pytest.approx(level, rel=1e-6)


def test_without_spread_the_p_values_are_those_of_the_plain_gate() -> None:
    lost, gained = np.meshgrid(np.arange(0, 60, 7), np.arange(0, 60, 7), indexing="ij")
    z_fail = np.minimum(tango_z(lost, gained, 1000, 0.01), wald_z(lost, gained, 1000, 0.01))
    np.testing.assert_allclose(p_loss_above(lost, gained, 1000, 0.01), special.ndtr(-z_fail), rtol=1e-9)
    np.testing.assert_allclose(
        p_loss_below(lost, gained, 1000, 0.01), special.ndtr(tango_z(lost, gained, 1000, 0.01)), rtol=1e-9
    )
    assert loss_limit_with_spread(12, 2, 1000, 0.025) == pytest.approx(loss_limit(12, 2, 1000, 1.959964), abs=1e-8)
    assert loss_interval_with_spread(12, 2, 1000, 0.95) == pytest.approx(tango_interval(12, 2, 1000, 0.95), abs=1e-9)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0, 0.03), st.integers(2, 20))
def test_spread_and_doubt_about_it_only_take_evidence_away(b: int, c: int, sigma: float, df: int) -> None:
    for p in (p_loss_above, p_loss_below):
        plain, known, doubted = (
            float(p(b, c, 1000, 0.01, s)) for s in (NO_SPREAD, Spread(sigma, math.inf), Spread(sigma, float(df)))
        )
        assert 0 <= doubted <= 1
        if plain < 0.02:
            assert plain <= known + 1e-12
            assert known <= doubted + 1e-9


def test_the_baselines_own_distance_from_the_mean_is_that_of_a_median() -> None:
    rng = np.random.default_rng(0)
    for k in (3, 4, 5, 8, 9):
        runs = np.sort(rng.standard_normal((200_000, k)), axis=1)
        expected = math.sqrt(1 + (runs[:, k // 2] ** 2).mean())
        found = spread_of_loss(runs[0])
        assert found.sigma / runs[0].std(ddof=1) == pytest.approx(expected, abs=0.003)
        assert found.df == k - 1


def test_equal_runs_have_no_spread_and_one_run_says_nothing_of_it() -> None:
    assert spread_of_loss(np.array([0.1, 0.1, 0.1])) == Spread(0.0, 2.0)
    with pytest.raises(ValueError, match="at least two"):
        spread_of_loss(np.array([0.5]))


@pytest.mark.parametrize("tau", [0.0, 0.01, 0.02])
@pytest.mark.parametrize("k", [3, 5, 9])
def test_a_cell_on_the_margin_is_red_no_more_often_than_its_level_says(bench: Any, k: int, tau: float) -> None:
    runs = 10_000
    for cells in (bench.Cells(1000, k, 0.03, tau), bench.Cells(2000, k, 0.10, tau)):
        (ratio,) = red_rates(bench, cells, (0.025,), runs)
        assert ratio <= 1 + 3 / math.sqrt(0.025 * runs)


def test_taking_the_estimated_spread_for_the_truth_makes_many_times_the_false_reds(bench: Any) -> None:
    alone, of_24 = red_rates(bench, bench.Cells(2000, 3, 0.03, 0.02), (0.025, CELL_LEVEL), 10_000, known=True)
    assert alone > 3
    assert of_24 > 25


@pytest.mark.slow
@pytest.mark.parametrize("n", [1000, 2000])
@pytest.mark.parametrize("flips", [0.03, 0.10])
@pytest.mark.parametrize("k", [3, 5, 8, 9])
def test_the_level_of_one_cell_among_24_is_kept(bench: Any, k: int, flips: float, n: int) -> None:
    runs = 100_000
    for tau in (0.005, 0.01, 0.02):
        (ratio,) = red_rates(bench, bench.Cells(n, k, flips, tau), (CELL_LEVEL,), runs)
        assert ratio <= 1 + 3 / math.sqrt(CELL_LEVEL * runs)


def test_many_spreads_at_once_are_each_alone(bench: Any) -> None:
    made = bench.simulate(bench.Cells(1000, 5, 0.05, 0.01), 0.03, 20, np.random.default_rng(1))
    alone = [
        float(p_loss_above(b, c, 1000, bench.MARGIN, spread_of_loss(runs)))
        for b, c, runs in zip(made.lost, made.gained, made.accuracies, strict=True)
    ]
    np.testing.assert_allclose(bench.p_ours(made, 1000), alone, rtol=1e-9)


def test_the_interval_covers_the_loss_of_a_recompressed_cell(bench: Any) -> None:
    made = bench.simulate(bench.Cells(1000, 5, 0.05, 0.01), 0.01, 300, np.random.default_rng(7))
    covered = 0
    for b, c, runs in zip(made.lost.tolist(), made.gained.tolist(), made.accuracies, strict=True):
        low, high = loss_interval_with_spread(b, c, 1000, 0.95, spread_of_loss(runs))
        covered += low <= 0.01 <= high
    assert covered / 300 >= 0.93


def test_more_runs_find_smaller_losses() -> None:
    def needed(k: int) -> float:
        return 0.005 + combined_quantile(0.06 / 1000, Spread(0.01, float(k - 1)), CELL_LEVEL)

    assert needed(3) > 0.2
    assert needed(5) < needed(3) / 2
    assert needed(9) < needed(5) * 0.75


def test_a_known_spread_adds_its_square_to_the_variance_of_the_loss() -> None:
    wald, tango = float(wald_variance(54, 45, 1000)), float(tango_variance(54, 45, 1000, 0.005))
    scale = math.sqrt(max(wald, tango) / 1000 + 0.02**2)
    found = float(p_loss_above(54, 45, 1000, 0.005, Spread(0.02, math.inf)))
    assert found == pytest.approx(stats.norm.sf((0.009 - 0.005) / scale))


@pytest.mark.parametrize("spread", [NO_SPREAD, Spread(0.01, math.inf), Spread(0.01, 4.0)])
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.8, 0.95, 0.999]))
def test_the_interval_is_where_neither_side_is_rejected(spread: Spread, b: int, c: int, level: float) -> None:
    low, high = loss_interval_with_spread(b, c, 400, level, spread)
    assert -1 <= low <= (b - c) / 400 <= high <= 1
    if high < 0.999:
        assert float(p_loss_below(b, c, 400, high, spread)) == pytest.approx((1 - level) / 2, rel=1e-3)
    if low > -0.999:
        assert float(p_loss_below(c, b, 400, -low, spread)) == pytest.approx((1 - level) / 2, rel=1e-3)


@pytest.mark.parametrize(("sigma", "df"), [(-1.0, 2.0), (math.nan, 2.0), (0.01, 0.0), (0.01, math.nan)])
def test_a_spread_that_can_not_be_is_refused(sigma: float, df: float) -> None:
    with pytest.raises(ValueError, match="is needed"):
        Spread(sigma, df)
