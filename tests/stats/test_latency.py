"""Ratios of times: the value is that of the medians, the interval SciPy's own paired bootstrap, noise does not move it far."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.core.latency import Timing
from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.latency import time_ratio


def times(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    machine = rng.lognormal(0, 0.2, n)  # what disturbs a round disturbs both sides
    return machine * rng.lognormal(np.log(1.1), 0.02, n), machine * rng.lognormal(0, 0.02, n)


def test_the_interval_is_scipys() -> None:
    ours, theirs = times(25, 1)
    found = time_ratio(Timing("prefill", 1, {"a": tuple(ours), "b": tuple(theirs)}), "a", "b")
    assert isinstance(found, Estimate)
    assert found.value == np.median(ours) / np.median(theirs)
    reference = stats.bootstrap(
        (ours, theirs),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(3),
    ).confidence_interval
    width = reference.high - reference.low
    assert found.low == pytest.approx(reference.low, abs=0.1 * width)
    assert found.high == pytest.approx(reference.high, abs=0.1 * width)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    found = [
        time_ratio(Timing("decode", 8, {"a": tuple(a), "b": tuple(b)}), "a", "b")
        for a, b in (times(21, s) for s in range(200))
    ]
    held = sum(isinstance(one, Estimate) and one.low <= 1.1 <= one.high for one in found)
    assert held >= 180


def test_too_few_rounds_or_a_missing_side_are_undefined() -> None:
    timing = Timing("prefill", 1, {"a": (1.0, 2.0), "b": (1.0, 2.0)})
    assert time_ratio(timing, "a", "b") == NotEstimable("it takes at least 3 rounds in which both were timed")
    assert time_ratio(timing, "a", "c") == NotEstimable("c was not timed")
