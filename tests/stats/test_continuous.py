"""Paired t against SciPy; the early warning's weakness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from harness.stats.continuous import paired_t, soft_losses


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=50), st.floats(-1, 1))
def test_the_paired_t_is_scipys(differences: list[float], margin: float) -> None:
    worse_by = np.array(differences)
    if worse_by.std() < 1e-6:
        return
    made = paired_t(worse_by, margin, 0.95)
    assert made.p_above == pytest.approx(stats.ttest_1samp(worse_by, margin, alternative="greater").pvalue, abs=1e-9)
    assert made.p_below == pytest.approx(stats.ttest_1samp(worse_by, margin, alternative="less").pvalue, abs=1e-9)
    interval = stats.ttest_1samp(worse_by, 0).confidence_interval(0.95)
    assert (made.mean.low, made.mean.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_without_variance_the_sign_decides() -> None:
    same = np.full(5, 0.25)
    assert [paired_t(same, margin, 0.95).p_above for margin in (0.125, 0.25, 0.5)] == [0.0, 0.5, 1.0]


def test_too_few_or_undefined_differences_are_refused() -> None:
    for worse_by in (np.array([0.1]), np.array([0.1, np.nan, 0.2])):
        with pytest.raises(ValueError, match="at least two finite"):
            paired_t(worse_by, 0.0, 0.95)


def test_the_early_warning_fires_at_a_harmless_flattening_so_it_is_only_a_hint() -> None:
    margins = 2 + 3 * np.random.default_rng(0).standard_normal(1000)
    flattened = 0.98 * margins
    assert np.array_equal(margins > 0, flattened > 0)
    assert paired_t(soft_losses(margins, flattened), 0.0, 0.95).p_above < 0.001
    assert np.all(np.abs(soft_losses(margins, flattened)) < 1)
    assert soft_losses(margins, flattened)[0] == special.expit(margins[0]) - special.expit(flattened[0])
