"""Paired statistics against numeric maximisation, SciPy, statsmodels, exact enumeration, and their own symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats
from statsmodels.stats.contingency_tables import mcnemar

from harness.stats.paired import _tango_z_of_numbers, loss_limit, mcnemar_midp, tango_interval, tango_z, wald_z

MARGINS = st.floats(-0.3, 0.3)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 3000))
    lost = draw(st.integers(0, n))
    return lost, draw(st.integers(0, n - lost)), n


def numeric_score_z(b: int, c: int, n: int, margin: float) -> float:
    """Tango's statistic with the nuisance found by maximising the likelihood numerically."""

    def minus_log_likelihood(q: float) -> float:
        return -float(special.xlogy(b, q + margin) + special.xlogy(c, q) + special.xlogy(n - b - c, 1 - 2 * q - margin))

    low, high = max(0.0, -margin) + 1e-13, (1 - margin) / 2 - 1e-13
    q = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return float((b - c - n * margin) / math.sqrt(n * (2 * q + margin * (1 - margin))))


def test_tango_uses_the_constrained_maximum_likelihood_estimate() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(20, 2000))
        b, c = (int(rng.integers(0, n // 4)) for _ in range(2))
        margin = float(rng.uniform(-0.2, 0.2))
        assert float(tango_z(b, c, n, margin)) == pytest.approx(numeric_score_z(b, c, n, margin), abs=2e-4)


def test_tango_at_margin_zero_is_mcnemar() -> None:
    for b, c in [(12, 2), (40, 30), (0, 5), (7, 7)]:
        expected = mcnemar([[100, b], [c, 100]], exact=False, correction=False).statistic
        assert float(tango_z(b, c, 500, 0.0)) ** 2 == pytest.approx(expected)


def test_wald_is_the_plain_z_test_of_the_differences() -> None:
    lost, gained, same = 12, 2, 186
    differences = np.repeat([1.0, -1.0, 0.0], [lost, gained, same])
    expected = (differences.mean() - 0.01) / (differences.std(ddof=0) / math.sqrt(200))
    assert float(wald_z(lost, gained, 200, 0.01)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("b", "c", "margin", "z"),
    [(0, 0, 0.01, -math.inf), (0, 0, -0.01, math.inf), (0, 0, 0.0, 0.0), (50, 0, 0.5, math.inf), (0, 50, -1.0, 0.0)],
)
def test_wald_without_variance_is_infinite_by_the_sign_and_zero_at_equality(b: int, c: int, margin: float, z: float) -> None:
    assert float(wald_z(b, c, 50, margin)) == z


@given(counts(), MARGINS)
def test_swapping_lost_and_gained_flips_the_sign(table: tuple[int, int, int], margin: float) -> None:
    b, c, n = table
    assert float(tango_z(b, c, n, margin)) == pytest.approx(-float(tango_z(c, b, n, -margin)), rel=1e-9, abs=1e-9)
    assert float(wald_z(b, c, n, margin)) == pytest.approx(-float(wald_z(c, b, n, -margin)), rel=1e-9, abs=1e-9)
    low, high = tango_interval(b, c, n, 0.95)
    assert tango_interval(c, b, n, 0.95) == pytest.approx((-high, -low), abs=1e-9)


@given(counts(), MARGINS)
def test_tango_rises_with_lost_items_and_falls_with_gained_ones(table: tuple[int, int, int], margin: float) -> None:
    b, c, n = table
    if b + c == n:
        return
    here = float(tango_z(b, c, n, margin))
    assert float(tango_z(b + 1, c, n, margin)) >= here - 1e-9
    assert float(tango_z(b, c + 1, n, margin)) <= here + 1e-9


@given(counts(), st.sampled_from([0.8, 0.95, 0.999]))
def test_the_interval_is_where_the_score_test_does_not_reject(table: tuple[int, int, int], level: float) -> None:
    b, c, n = table
    z = float(special.ndtri((1 + level) / 2))
    low, high = tango_interval(b, c, n, level)
    assert -1 <= low <= (b - c) / n <= high <= 1
    if high < 0.999:
        assert float(tango_z(b, c, n, high)) == pytest.approx(-z, abs=1e-4)
    if low > -0.999:
        assert float(tango_z(b, c, n, low)) == pytest.approx(z, abs=1e-4)


def test_no_flips_in_n_items_prove_a_loss_below_about_four_over_n() -> None:
    z = float(special.ndtri(0.975))
    for n in (10, 1000, 13658):
        assert loss_limit(0, 0, n, z) == pytest.approx(z * z / (n + z * z), rel=1e-6)


def test_everything_lost_has_an_interval_up_to_one() -> None:
    assert tango_interval(20, 0, 20, 0.95)[1] == 1.0
    assert tango_interval(0, 20, 20, 0.95)[0] == -1.0


@pytest.mark.parametrize(("b", "c"), [(12, 2), (2, 12), (1, 0), (0, 1), (40, 40), (0, 9), (9, 0)])
def test_midp_is_half_the_point_probability_below_the_exact_test(b: int, c: int) -> None:
    exact = stats.binomtest(b, b + c, 0.5, alternative="greater").pvalue
    assert float(mcnemar_midp(b, c)) == pytest.approx(exact - 0.5 * stats.binom.pmf(b, b + c, 0.5))


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_midp_is_a_probability_and_its_two_sides_sum_to_one(b: int, c: int) -> None:
    p = float(mcnemar_midp(b, c))
    assert 0 <= p <= 1
    assert p + float(mcnemar_midp(c, b)) == pytest.approx(1)
    assert float(mcnemar_midp(b + 1, c)) <= p + 1e-12


def test_counts_may_be_grids() -> None:
    lost, gained = np.meshgrid(np.arange(6), np.arange(5), indexing="ij")
    for z in (tango_z(lost, gained, 100, 0.01), wald_z(lost, gained, 100, 0.01), mcnemar_midp(lost, gained)):
        assert z.shape == (6, 5)
    assert tango_z(lost, gained, 100, 0.01)[4, 3] == float(tango_z(4, 3, 100, 0.01))


def test_impossible_arguments_are_refused() -> None:
    for arguments in [(0, 0, 0, 0.0), (0, 0, 10, 1.5), (0, 0, 10, -1.5), (0, 0, 10, math.nan)]:
        with pytest.raises(ValueError, match="n_items > 0"):
            tango_z(*arguments)
        with pytest.raises(ValueError, match="n_items > 0"):
            wald_z(*arguments)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400), st.floats(-1, 1))
def test_single_numbers_give_what_arrays_do(lost: int, gained: int, rest: int, margin: float) -> None:
    n = lost + gained + rest + 1
    assert _tango_z_of_numbers(lost, gained, n, margin) == pytest.approx(float(tango_z(lost, gained, n, margin)), rel=1e-9)
