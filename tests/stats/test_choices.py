"""What a choice among prompts is worth, against counting by hand, statsmodels and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2
from statsmodels.stats.contingency_tables import SquareTable, mcnemar

from harness.core.verdicts import NotEstimable
from harness.stats.choices import count_choices, p_same_choices, worth_of_choosing


def draw(n: int, n_kinds: int, seed: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)
    before = rng.integers(0, n_kinds, n)
    now = np.where(rng.random(n) < 0.7, before, rng.integers(0, n_kinds - (seed % 2), n))
    return before.tolist(), now.tolist()


@pytest.mark.parametrize("n_kinds", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_homogeneity_of_two_choices_is_stuart_and_maxwells(n_kinds: int, seed: int) -> None:
    before, now = draw(200, n_kinds, seed)
    table = np.zeros((n_kinds, n_kinds))
    np.add.at(table, (before, now), 1)
    found = p_same_choices(before, now)
    assert found == pytest.approx(SquareTable(table, shift_zeros=False).homogeneity().pvalue, rel=1e-9)
    if n_kinds == 2:
        assert found == pytest.approx(mcnemar(table, exact=False, correction=False).pvalue, rel=1e-9)


def test_parts_between_which_nothing_moved_are_tested_apart() -> None:
    before = [0] * 9 + [1] * 1 + [2] * 4 + [3] * 12
    now = [1] * 9 + [0] * 1 + [3] * 4 + [2] * 12
    assert p_same_choices(before, now) == pytest.approx(chi2.sf(64 / 10 + 64 / 16, 2))


def test_choices_that_move_by_noise_alone_warn_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(600):
        before = rng.integers(0, 3, 400)
        now = np.where(rng.random(400) < 0.8, before, rng.integers(0, 3, 400))
        p_values.append(p_same_choices(before.tolist(), now.tolist()))
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_worth_is_what_counting_says() -> None:
    rng = np.random.default_rng(0)
    singles = rng.random((3, 500)) < np.array([[0.3], [0.5], [0.4]])
    picked = rng.integers(0, 3, 500)
    chooser = singles[picked, np.arange(500)]
    made = worth_of_choosing(chooser, singles, 0.95, np.random.default_rng(1))
    assert made.best == 1
    assert made.random.value == pytest.approx(singles.mean())
    assert made.over_random.value == pytest.approx(chooser.mean() - singles.mean())
    assert made.over_best.value == pytest.approx(chooser.mean() - singles[1].mean())
    assert made.oracle.value == singles.any(0).mean()
    is_open = singles.any(0) & ~singles.all(0)
    assert made.n_open == is_open.sum()
    assert made.open_right.value == chooser[is_open].mean()
    assert made.open_random == pytest.approx(singles[:, is_open].mean())
    # a bootstrapped mean has the normal interval
    half = 1.96 * (chooser - singles.mean(0)).std() / np.sqrt(500)
    assert made.over_random.high - made.over_random.value == pytest.approx(half, rel=0.1)
    assert made.over_random.low <= 0 <= made.over_random.high


def test_prompts_that_answer_alike_leave_nothing_open() -> None:
    alike = np.tile(np.arange(20) < 12, (2, 1))
    made = worth_of_choosing(alike[0], alike, 0.95, np.random.default_rng(0))
    assert made.n_open == 0
    assert isinstance(made.open_right, NotEstimable)
    assert (made.accuracy.value, made.over_best.value, made.over_random.value) == (0.6, 0, 0)
    with pytest.raises(ValueError, match="not of the same items"):
        worth_of_choosing(alike[0][:3], alike, 0.95, np.random.default_rng(0))


def test_an_item_behind_several_prompts_counts_in_equal_parts() -> None:
    assert count_choices([(1,), (0, 1, 1, 1)], 2).tolist() == [0.25, 1.75]
