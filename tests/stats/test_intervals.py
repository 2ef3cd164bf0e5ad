"""Wilson's interval, retention and multiplicity against statsmodels, simulation and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from harness.core.verdicts import Estimate, NotEstimable, PairedCounts
from harness.stats.intervals import exact_limits, wilson
from harness.stats.multiplicity import bonferroni
from harness.stats.retention import retention


@given(st.integers(1, 20000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels_and_stays_inside(n: int, share: float, level: float) -> None:
    k = round(share * n)
    made = wilson(k, n, level)
    low, high = proportion_confint(k, n, alpha=1 - level, method="wilson")
    assert (made.low, made.high) == pytest.approx((max(0, low), min(1, high)), abs=1e-12)
    assert 0 <= made.low <= made.value <= made.high <= 1
    assert made.low < made.high


def test_the_accuracy_of_nothing_is_refused() -> None:
    for k, n in [(0, 0), (3, 2), (-1, 5)]:
        with pytest.raises(ValueError, match="n_correct"):
            wilson(k, n, 0.95)


def test_retention_covers_the_true_ratio_in_95_of_100_simulated_runs() -> None:
    rng = np.random.default_rng(3)
    n, right, flips, loss, covered = 1000, 0.5, 0.10, 0.02, 0
    for _ in range(2000):
        before = int(rng.binomial(n, right))
        lost = int(rng.binomial(before, (flips / 2 + loss) / right))
        gained = int(rng.binomial(n - before, flips / 2 / (1 - right)))
        made = retention(PairedCounts(lost, gained, n - lost - gained), before, 0.95)
        assert isinstance(made, Estimate)
        covered += made.low <= (right - loss) / right <= made.high
    assert 0.935 <= covered / 2000 <= 0.965


def test_retention_without_a_flip_is_one_but_not_certain() -> None:
    made = retention(PairedCounts(0, 0, 1000), 400, 0.95)
    assert isinstance(made, Estimate)
    assert made.value == 1
    assert 0.98 < made.low < 1 < made.high < 1.02


def test_retention_of_nothing_or_to_nothing_is_not_a_number() -> None:
    assert isinstance(retention(PairedCounts(0, 3, 97), 0, 0.95), NotEstimable)
    assert isinstance(retention(PairedCounts(5, 0, 95), 5, 0.95), NotEstimable)


def test_retention_refuses_counts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        retention(PairedCounts(5, 0, 95), 4, 0.95)


def test_bonferroni_equals_statsmodels() -> None:
    assert bonferroni(0.05, 24) == multipletests([0.5] * 24, alpha=0.05, method="bonferroni")[3]
    for alpha, n in [(0.0, 3), (1.0, 3), (0.05, 0)]:
        with pytest.raises(ValueError, match="at least one test"):
            bonferroni(alpha, n)


@pytest.mark.parametrize(("n_found", "n"), [(0, 50), (3, 50), (25, 50), (50, 50), (7, 20_000)])
def test_the_exact_limits_are_those_of_scipy(n_found: int, n: int) -> None:
    known = stats.binomtest(n_found, n).proportion_ci(0.998, method="exact")
    assert exact_limits(n_found, n, 0.001) == pytest.approx((known.low, known.high), abs=1e-12)


@pytest.mark.parametrize(("n_found", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_exact_limits_of_nothing_are_refused(n_found: int, n: int) -> None:
    with pytest.raises(ValueError, match="n_trials > 0 are needed"):
        exact_limits(n_found, n, 0.001)
