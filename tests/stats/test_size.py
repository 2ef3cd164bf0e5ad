"""The error rates of the full-N rules, by exact enumeration of every outcome (no simulation, no seed)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from harness.stats.paired import tango_z, wald_z

FLIP_RATES = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15)


def worst_rate(n: int, margin: float, rejects: np.ndarray, lost: np.ndarray, gained: np.ndarray) -> float:
    """The largest probability of rejecting at loss = margin, over the flip rates that the grid covers."""
    same = n - lost - gained
    worst = 0.0
    for flips in FLIP_RATES:
        p_lost, p_gained = flips / 2 + margin, flips / 2
        if n * p_lost + 8 * math.sqrt(n * p_lost) + 10 > lost.max():
            continue
        log_p = (
            special.gammaln(n + 1)
            - special.gammaln(lost + 1)
            - special.gammaln(gained + 1)
            - special.gammaln(np.maximum(same, 0) + 1)
            + special.xlogy(lost, p_lost)
            + special.xlogy(gained, p_gained)
            + special.xlogy(np.maximum(same, 0), 1 - p_lost - p_gained)
        )
        worst = max(worst, float(np.exp(log_p)[rejects & (same >= 0)].sum()))
    return worst


def grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    top = int(min(n, max(60, (0.35 if n <= 300 else 0.2) * n)))
    lost, gained = np.meshgrid(np.arange(top + 1), np.arange(top + 1), indexing="ij")
    return lost, gained


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("margin", [0.005, 0.01, 0.03])
def test_fail_keeps_its_level_down_to_a_family_of_312(n: int, margin: float) -> None:
    lost, gained = grid(n)
    z = np.minimum(tango_z(lost, gained, n, margin), wald_z(lost, gained, n, margin))
    for level in (0.025, 0.025 / 24, 0.025 / 312):
        p_fail = (1 - special.ndtr(z)) / 0.8
        assert worst_rate(n, margin, p_fail < level, lost, gained) <= level


def test_tango_alone_would_be_nearly_six_times_too_liberal_for_fail() -> None:
    lost, gained = grid(1000)
    tango, wald = tango_z(lost, gained, 1000, 0.02), wald_z(lost, gained, 1000, 0.02)
    for level in (0.01 / 312, 0.8 * 0.025 / 312):
        assert worst_rate(1000, 0.02, special.ndtr(-tango) < level, lost, gained) == pytest.approx(5.7 * level, rel=0.02)
        assert worst_rate(1000, 0.02, special.ndtr(-np.minimum(tango, wald)) < level, lost, gained) <= level


def test_wald_would_be_24_times_too_liberal_for_pass() -> None:
    lost, gained = grid(100)
    level = 0.5 * 0.05
    by_wald, by_tango = special.ndtr(wald_z(lost, gained, 100, 0.005)), special.ndtr(tango_z(lost, gained, 100, 0.005))
    assert worst_rate(100, 0.005, by_wald < level, lost, gained) == pytest.approx(24.2 * level, rel=0.01)
    assert worst_rate(100, 0.005, by_tango < level, lost, gained) <= 1.03 * level


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("margin", [0.01, 0.05])
def test_pass_keeps_its_level_where_wald_would_not(n: int, margin: float) -> None:
    lost, gained = grid(n)
    p_pass = special.ndtr(tango_z(lost, gained, n, margin)) / 0.5
    assert worst_rate(n, margin, p_pass < 0.05, lost, gained) <= 0.05
    if n * margin <= 3:
        by_wald = special.ndtr(wald_z(lost, gained, n, margin)) / 0.5
        assert worst_rate(n, margin, by_wald < 0.05, lost, gained) > 0.05
