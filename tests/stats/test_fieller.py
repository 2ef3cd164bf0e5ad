"""Ratios of means: Fieller's definition, coverage in simulated worlds, and where there is no answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.verdicts import Estimate, NotEstimable, PairedCounts
from harness.stats.fieller import chance_corrected_retention, gap_closed, ratio_interval

COVARIANCE = np.array([[1e-4, 3e-5], [3e-5, 2e-4]])


@given(st.floats(-0.2, 0.2), st.floats(0.05, 0.3))
def test_the_ends_are_the_ratios_that_are_just_significantly_off(u: float, v: float) -> None:
    made = ratio_interval((u, v), COVARIANCE, 1.96, 0.95)
    assert isinstance(made, Estimate)
    assert made.low <= u / v <= made.high
    for end in (made.low, made.high):
        variance = COVARIANCE[0, 0] - 2 * end * COVARIANCE[0, 1] + end**2 * COVARIANCE[1, 1]
        assert abs(u - end * v) / math.sqrt(variance) == pytest.approx(1.96, rel=1e-4)


@given(st.floats(-0.2, 0.2), st.floats(-0.02, 0.02))
def test_a_denominator_that_may_be_zero_gives_no_ratio(u: float, v: float) -> None:
    assert isinstance(ratio_interval((u, v), COVARIANCE, 1.96, 0.95), NotEstimable)


def world(gap: float, won_back: float) -> np.ndarray:
    """Probabilities of (dense, compressed, recovered) with 5 % of flips either way on both steps."""
    right, flips = 0.6, 0.05
    lost, gained = flips / 2 + gap, flips / 2
    back = (won_back * gap + flips / 2) / lost
    again = flips / 2 / (right - lost)
    p = np.zeros((2, 2, 2))
    p[1, 1] = (right - lost) * np.array([again, 1 - again])
    p[1, 0] = lost * np.array([1 - back, back])
    p[0, 1, 1], p[0, 0, 0] = gained, 1 - right - gained
    return p


def test_the_gap_closed_is_covered_in_95_of_100_simulated_runs() -> None:
    tables = np.random.default_rng(1).multinomial(2000, world(0.10, 0.5).ravel(), size=2000).reshape(-1, 2, 2, 2)
    made = [gap_closed(table, 0.95) for table in tables]
    assert all(isinstance(m, Estimate) for m in made)
    assert 0.935 <= np.mean([m.low <= 0.5 <= m.high for m in made if isinstance(m, Estimate)]) <= 0.965


def test_a_gap_of_one_point_in_a_thousand_items_is_undefined_most_of_the_time() -> None:
    tables = np.random.default_rng(2).multinomial(1000, world(0.01, 0.5).ravel(), size=1000).reshape(-1, 2, 2, 2)
    undefined = np.mean([isinstance(gap_closed(table, 0.95), NotEstimable) for table in tables])
    assert 0.6 <= undefined <= 0.85


def test_all_or_nothing_won_back_is_not_certain() -> None:
    nothing = np.array([[[300, 0], [0, 20]], [[100, 0], [0, 580]]])
    everything = np.array([[[300, 0], [20, 0]], [[0, 100], [0, 580]]])
    for table, value in ((nothing, 0.0), (everything, 1.0)):
        made = gap_closed(table, 0.95)
        assert isinstance(made, Estimate)
        assert made.value == pytest.approx(value)
        assert made.low < value < made.high
        assert made.high - made.low < 0.2


def test_chance_corrected_retention_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    n, right, flips, loss, chance, covered = 1000, 0.6, 0.10, 0.03, 0.25, 0
    for _ in range(2000):
        before = int(rng.binomial(n, right))
        lost = int(rng.binomial(before, (flips / 2 + loss) / right))
        gained = int(rng.binomial(n - before, flips / 2 / (1 - right)))
        made = chance_corrected_retention(PairedCounts(lost, gained, n - lost - gained), before, chance, 0.95)
        assert isinstance(made, Estimate)
        covered += made.low <= (right - loss - chance) / (right - chance) <= made.high
    assert 0.935 <= covered / 2000 <= 0.965


def test_a_task_near_chance_has_no_chance_corrected_retention() -> None:
    made = chance_corrected_retention(PairedCounts(10, 10, 980), 300, 0.25, 0.95)
    assert isinstance(made, NotEstimable)
    assert "above chance (0.250)" in made.reason
    assert isinstance(chance_corrected_retention(PairedCounts(10, 10, 980), 310, 0.25, 0.95), Estimate)


def test_retention_without_a_flip_is_one_but_not_certain_and_counts_must_fit() -> None:
    made = chance_corrected_retention(PairedCounts(0, 0, 1000), 600, 0.25, 0.95)
    assert isinstance(made, Estimate)
    assert made.low < 1 < made.high
    with pytest.raises(ValueError, match="does not fit"):
        chance_corrected_retention(PairedCounts(5, 0, 95), 4, 0.0, 0.95)
    with pytest.raises(ValueError, match="at least one item"):
        gap_closed(np.zeros((2, 2, 2), dtype=int), 0.95)
