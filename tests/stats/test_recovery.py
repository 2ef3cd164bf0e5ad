"""Recovery's own rule: e-values and sizes by exact enumeration of every outcome."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import fft, special, stats

from harness.stats.recovery import (
    VALUES,
    count_losses_of_gain,
    log_e_fail_recovery,
    log_e_pass_recovery,
    loss_of_gain,
    p_recovery_worse,
)
from harness.stats.sequential import BETS

SIDES = {"fail": log_e_fail_recovery, "pass": log_e_pass_recovery}
FIVE_COUNTS = st.lists(st.integers(0, 300), min_size=5, max_size=5).filter(lambda counts: sum(counts) > 0).map(np.array)


def shares(margin: float, back_twice: float, lost_twice: float, flips: float) -> np.ndarray:
    """Probabilities of X = -2..2 with mean ``margin``."""
    rest = margin - 2 * (lost_twice - back_twice)
    p = np.array([back_twice, flips / 2 + max(-rest, 0), 0, flips / 2 + max(rest, 0), lost_twice])
    p[2] = 1 - p.sum()
    return p


def every_outcome(n: int) -> np.ndarray:
    axes = np.indices((n + 1,) * 4).reshape(4, -1)
    axes = axes[:, axes.sum(0) <= n]
    return np.stack([axes[0], axes[1], n - axes.sum(0), axes[2], axes[3]])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("margin", [0.01, 0.04])
def test_an_e_value_expects_one_where_the_mean_is_the_margin(side: str, margin: float) -> None:
    counts = every_outcome(14)
    for p in (shares(margin, 0.0, 0.0, 0.05), shares(margin, 0.01, 0.002, 0.1), shares(margin, 0.0, 0.005, 0.0)):
        log_p = special.gammaln(15) - special.gammaln(counts + 1).sum(0) + special.xlogy(counts, p[:, None]).sum(0)
        assert float(np.exp(log_p + SIDES[side](counts, margin)).sum()) == pytest.approx(1, abs=1e-9)


@given(FIVE_COUNTS, st.floats(-0.5, 0.5))
def test_pass_mirrors_fail_and_every_item_moves_them_the_right_way(counts: np.ndarray, margin: float) -> None:
    here = float(log_e_fail_recovery(counts, margin))
    assert float(log_e_pass_recovery(counts[::-1], -margin)) == pytest.approx(here)
    for low in range(4):
        if counts[low]:
            moved = counts.copy()
            moved[low] -= 1
            moved[low + 1] += 1
            assert float(log_e_fail_recovery(moved, margin)) > here
            assert float(p_recovery_worse(moved, margin)) <= float(p_recovery_worse(counts, margin)) + 0.02


def test_the_e_value_is_the_product_over_the_items() -> None:
    counts, margin = np.array([1, 3, 20, 4, 2]), 0.02
    items = np.repeat(VALUES, counts)
    by_hand = np.mean([math.prod(1 + bet / (1 + margin / 2) * (items / 2 - margin / 2)) for bet in BETS])
    assert math.exp(float(log_e_fail_recovery(counts, margin))) == pytest.approx(by_hand)


def test_huge_counts_do_not_overflow() -> None:
    for counts in (np.array([0, 0, 0, 0, 1_000_000]), np.array([1_000_000, 0, 0, 0, 0]), np.array([0, 1, 999_998, 1, 0])):
        assert all(math.isfinite(float(log_e(counts, 0.01))) for log_e in SIDES.values())
        assert 0 <= float(p_recovery_worse(counts, 0.01)) <= 1


def exact_ratios(n: int, margin: float, p: np.ndarray, levels: tuple[float, ...]) -> tuple[list[float], list[float]]:
    """P(red)/level of ours and of plain Wald, over the exact joint distribution of sum X and sum X^2 of n items."""
    size = fft.next_fast_len(4 * n + 1, real=True)
    one = np.zeros((size, size))
    for value, share in zip(VALUES, p, strict=True):
        one[value % size, value * value] += share
    joint = fft.irfft2(fft.rfft2(one) ** n, s=one.shape)
    joint[joint < 1e-15] = 0  # rounding of the transform
    sums = np.arange(size)
    sums = np.where(sums > 2 * n, sums - size, sums)[:, None]
    squares = np.arange(size)[None, :]

    def red(total: np.ndarray, square: np.ndarray, items: int) -> list[float]:
        mean = total / items
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(mean == margin, 0.0, (mean - margin) / np.sqrt(np.maximum(square / items - mean**2, 0) / items))
        p_values = special.ndtr(-z)
        return [float(joint[p_values < level].sum()) / level for level in levels]

    return red(sums - 2, squares + 4, n + 1), red(sums, squares, n)


LEVELS = 0.04, 0.04 / 24, 0.02 / 24


@pytest.mark.parametrize("n", [60, 100, pytest.param(300, marks=pytest.mark.slow)])
def test_the_size_is_kept_where_plain_wald_is_several_times_too_liberal(n: int) -> None:
    worlds = [shares(0.01, q, 0.0, flips) for q in (0.0, 0.005, 0.02, 0.03) for flips in (0.0, 0.05, 0.2)]
    ratios = [exact_ratios(n, 0.01, p, LEVELS) for p in worlds]
    assert max(max(ours) for ours, _ in ratios) <= 1
    assert max(max(wald) for _, wald in ratios) > 3


def test_the_padded_p_value_is_walds_with_one_item_more() -> None:
    counts = np.array([2, 15, 900, 70, 13])
    items = np.append(np.repeat(np.array(VALUES, dtype=float), counts), -2.0)
    z = (items.mean() - 0.01) / (items.std() / math.sqrt(len(items)))
    assert float(p_recovery_worse(counts, 0.01)) == pytest.approx(stats.norm.sf(z))


def test_many_comparisons_at_once_are_each_alone() -> None:
    counts = np.random.default_rng(0).multinomial(500, shares(0.02, 0.001, 0.003, 0.1), size=7).T
    assert p_recovery_worse(counts, 0.01).shape == (7,)
    assert p_recovery_worse(counts, 0.01)[3] == float(p_recovery_worse(counts[:, 3], 0.01))
    assert log_e_fail_recovery(counts, 0.01)[3] == float(log_e_fail_recovery(counts[:, 3], 0.01))


def test_a_recovery_that_stays_is_not_red_and_one_that_falls_is() -> None:
    rng = np.random.default_rng(1)
    level = 0.025 / 24
    stays = rng.multinomial(2000, shares(0.0, 0.0, 0.0, 0.06), size=2000).T
    falls = rng.multinomial(2000, shares(0.05, 0.0, 0.005, 0.06), size=2000).T
    assert (p_recovery_worse(stays, 0.01) < 0.8 * level).mean() <= level
    assert (p_recovery_worse(falls, 0.01) < 0.8 * level).mean() > 0.95
    assert (log_e_pass_recovery(stays, 0.04) > math.log(20)).mean() > 0.95


def test_the_interval_of_the_loss_of_gain_covers_it() -> None:
    rng = np.random.default_rng(2)
    drawn = rng.multinomial(1000, shares(0.02, 0.002, 0.004, 0.1), size=2000)
    made = [loss_of_gain(counts, 0.95) for counts in drawn]
    assert 0.935 <= np.mean([m.low <= 0.02 <= m.high for m in made]) <= 0.965
    assert loss_of_gain(np.array([0, 0, 50, 0, 0]), 0.95).high > 0


@given(st.integers(0, 2**32 - 1))
def test_the_five_counts_are_those_of_the_four_answers(seed: int) -> None:
    c0, r0, c1, r1 = np.random.default_rng(seed).random((4, 40)) < 0.5
    x = (r0.astype(int) - c0) - (r1.astype(int) - c1)
    assert count_losses_of_gain(c0, r0, c1, r1).tolist() == [int((x == value).sum()) for value in VALUES]


def test_nothing_measured_and_impossible_margins_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        p_recovery_worse(np.zeros(5, dtype=int), 0.01)
    with pytest.raises(ValueError, match="between -2 and 2"):
        log_e_fail_recovery(np.ones(5, dtype=int), 2.0)
