"""Many tests on one commit: what each may spend of the error that the commit is allowed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def bonferroni(alpha: float, n_tests: int) -> float:
    """The level of each of ``n_tests`` tests so that any of them errs with probability <= ``alpha``, however they depend.

    >>> bonferroni(0.025, 24)
    0.0010416666666666667
    """
    if not 0 < alpha < 1 or n_tests < 1:
        raise ValueError(f"alpha in (0, 1) and at least one test are needed, got {alpha} and {n_tests}")
    return alpha / n_tests


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values in [0, 1]: rejecting those at most alpha errs anywhere with probability <= alpha, as Bonferroni.

    Each p times the number of hypotheses that are still open, in rising order, never falling (Holm 1979, Scandinavian
    Journal of Statistics 6:65). A verdict then depends on what the other tests said, so the gate uses Bonferroni.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    raised = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    return _unsorted(raised, order)


def benjamini_hochberg(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values in [0, 1]: of those at most q, a share of at most q is expected to be false (independent tests).

    Each p times tests/rank, never rising from the largest down (Benjamini & Hochberg 1995, JRSS-B 57:289). For tables that
    people explore, never for a gate.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03])).round(6).tolist()
    [0.03, 0.04, 0.04]
    """
    order = np.argsort(p_values, kind="stable")
    n_tests = len(order)
    raised = p_values[order] * n_tests / np.arange(1, n_tests + 1)
    return _unsorted(np.minimum.accumulate(raised[::-1])[::-1], order)


def _unsorted(adjusted: Float[np.ndarray, " tests"], order: np.ndarray) -> Float[np.ndarray, " tests"]:
    placed = np.empty_like(adjusted)
    placed[order] = np.minimum(adjusted, 1.0)
    return placed
