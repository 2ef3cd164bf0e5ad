"""Many tests on one commit: what each may spend of the error that the commit is allowed."""

from __future__ import annotations


def bonferroni(alpha: float, n_tests: int) -> float:
    """The level of each of ``n_tests`` tests so that any of them errs with probability <= ``alpha``, however they depend.

    >>> bonferroni(0.025, 24)
    0.0010416666666666667
    """
    if not 0 < alpha < 1 or n_tests < 1:
        raise ValueError(f"alpha in (0, 1) and at least one test are needed, got {alpha} and {n_tests}")
    return alpha / n_tests
