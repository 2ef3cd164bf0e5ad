"""Corrections for many tests against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from harness.stats.multiplicity import benjamini_hochberg, bonferroni, holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


@pytest.mark.parametrize("n_tests", [1, 2, 13, 312])
def test_adjusted_p_values_equal_statsmodels(n_tests: int) -> None:
    p_values = np.random.default_rng(n_tests).random(n_tests).round(2) ** 3  # with ties
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12)
    np.testing.assert_allclose(benjamini_hochberg(p_values), multipletests(p_values, method="fdr_bh")[1], atol=1e-12)


@given(P_VALUES)
def test_the_order_of_the_tests_does_not_matter_and_holm_is_the_stricter(p_values: np.ndarray) -> None:
    order = np.random.default_rng(len(p_values)).permutation(len(p_values))
    np.testing.assert_allclose(holm(p_values)[order], holm(p_values[order]), atol=1e-12)
    assert np.all(benjamini_hochberg(p_values) <= holm(p_values) + 1e-12)
    assert np.all(p_values <= benjamini_hochberg(p_values) + 1e-12)


@given(P_VALUES)
def test_holm_never_rejects_less_than_bonferroni(p_values: np.ndarray) -> None:
    assert np.all((holm(p_values) <= 0.05)[p_values <= bonferroni(0.05, len(p_values))])


def test_no_tests_have_no_level() -> None:
    with pytest.raises(ValueError, match="at least one test"):
        bonferroni(0.05, 0)
