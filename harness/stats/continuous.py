"""Paired comparisons of measured numbers: perplexity in nats per document, margins as an early warning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, stdtr, stdtrit

from harness.core.verdicts import Estimate


@dataclass(frozen=True, slots=True)
class PairedT:
    """A mean difference with its interval, and the one-sided p-values of "at most" and of "at least" the margin."""

    mean: Estimate
    p_above: float
    p_below: float


def paired_t(worse_by: Float[np.ndarray, " n"], margin: float, level: float) -> PairedT:
    """Student's t of paired differences, in their own unit, positive = worse now: ``p_above`` is small when the mean is
    clearly above ``margin``, ``p_below`` when it is clearly below. n - 1 degrees of freedom; at least two differences.

    Without any variance the p-values are 0 or 1 by the sign of mean - margin, 0.5 at equality.

    >>> made = paired_t(np.array([0.02, 0.05, 0.01, 0.04]), 0.0, 0.95)
    >>> round(made.mean.value, 3), round(made.mean.low, 3), round(made.p_above, 4)
    (0.03, 0.001, 0.0231)
    """
    n = len(worse_by)
    if n < 2 or not np.all(np.isfinite(worse_by)):
        raise ValueError(f"at least two finite differences are needed, got {n} of which {np.isfinite(worse_by).sum()} finite")
    mean, error = float(worse_by.mean()), float(worse_by.std(ddof=1)) / math.sqrt(n)
    with np.errstate(divide="ignore"):
        t = 0.0 if mean == margin else float(np.float64(mean - margin) / error)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    estimate = Estimate(mean, mean - half, mean + half, level, "paired t")
    return PairedT(estimate, float(stdtr(n - 1, -t)), float(stdtr(n - 1, t)))


def soft_losses(
    margins_before_nats: Float[np.ndarray, " n"], margins_now_nats: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """sigmoid(margin) before - now, in (-1, 1), positive = less sure now; the margin is that of the right answer in nats.

    For ``paired_t`` as an early warning only: a harmless flattening of all logits by 2 % fires it, too.

    >>> soft_losses(np.array([0.0, 2.0]), np.array([0.0, 0.0])).round(4).tolist()
    [0.0, 0.3808]
    """
    return np.asarray(expit(margins_before_nats) - expit(margins_now_nats))
