"""Paired comparisons of right and wrong: score and Wald statistics of a loss, its interval, mid-p McNemar.

Counts may be numbers or arrays of one shape (an exact enumeration passes whole grids); results are arrays of that shape.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Real
from scipy.optimize import brentq
from scipy.special import betainc, ndtri

Counts: TypeAlias = int | float | np.integer[Any] | Real[np.ndarray, " ..."]
"""How many items, of one comparison or of many at once."""

_ALMOST_ONE = 1 - 1e-12


def tango_z(n_lost: Counts, n_gained: Counts, n_items: int | float, margin: float) -> Float[np.ndarray, " ..."]:
    """The score statistic of H0: loss = ``margin``; positive when more than ``margin`` was lost. Unbounded, unitless.

    The nuisance (the rate of gained items) is its maximum-likelihood estimate under H0 (Tango 1998, Statistics in
    Medicine 17:891, eq. 4); at margin 0 this is McNemar's (b - c)/sqrt(b + c). ``margin`` is in [-1, 1]. Zero
    variance (no flips and margin 0): 0, or +-inf by the sign of loss - margin. Where re-compressing moves the loss,
    ``recompression`` has the tests.

    >>> round(float(tango_z(12, 2, 1000, 0.0)), 4)
    2.6726
    >>> round(float(tango_z(12, 2, 1000, 0.01)), 4)
    0.0
    >>> float(tango_z(0, 0, 1000, 0.0))
    0.0
    """
    if margin < 0:
        return np.asarray(-tango_z(n_gained, n_lost, n_items, -margin))
    _check(n_items, margin)
    lost, gained = np.asarray(n_lost, dtype=np.float64), np.asarray(n_gained, dtype=np.float64)
    variance = tango_variance(lost, gained, n_items, margin)
    return _standardize(lost - gained - n_items * margin, n_items * variance)


def tango_variance(n_lost: Counts, n_gained: Counts, n_items: int | float, margin: float) -> Float[np.ndarray, " ..."]:
    """One item's variance under H0: loss = ``margin``, in [0, 1]: 2q + m(1-m), q the most likely rate of gained items.

    Divided by the items it is the variance of the loss. ``margin`` is in [-1, 1].

    >>> round(float(tango_variance(12, 2, 1000, 0.0)), 4), round(float(tango_variance(0, 0, 1000, 0.01)), 4)
    (0.014, 0.0099)
    """
    if margin < 0:
        return tango_variance(n_gained, n_lost, n_items, -margin)
    lost, gained = np.asarray(n_lost, dtype=np.float64), np.asarray(n_gained, dtype=np.float64)
    a = 2.0 * n_items
    b = (2 * n_items - lost + gained) * margin - lost - gained
    spread = margin * (1 - margin)
    root = np.sqrt(b * b + 4 * a * gained * spread)
    # Two forms of one root of a q^2 + b q - gained * spread: each avoids subtracting nearly equal numbers.
    with np.errstate(invalid="ignore", divide="ignore"):
        q = np.where(b > 0, 2 * gained * spread / (b + root), (root - b) / (2 * a))
    return np.asarray(2 * q + spread)


def wald_variance(n_lost: Counts, n_gained: Counts, n_items: int | float) -> Float[np.ndarray, " ..."]:
    """One item's variance as observed, in [0, 1]: the share of flips less the square of the loss.

    >>> round(float(wald_variance(12, 2, 1000)), 4), float(wald_variance(0, 0, 1000))
    (0.0139, 0.0)
    """
    lost, gained = np.asarray(n_lost, dtype=np.float64), np.asarray(n_gained, dtype=np.float64)
    return np.asarray(np.maximum((lost + gained - (lost - gained) ** 2 / n_items) / n_items, 0.0))


def wald_z(n_lost: Counts, n_gained: Counts, n_items: int | float, margin: float) -> Float[np.ndarray, " ..."]:
    """The Wald statistic of H0: loss = ``margin``, with the variance as observed; sign and range as in ``tango_z``.

    Zero variance (no item flipped, or every item did the same way): +-inf by the sign of loss - margin, 0 at equality.

    >>> round(float(wald_z(12, 2, 1000, 0.005)), 4)
    1.3411
    >>> float(wald_z(0, 0, 1000, 0.005))
    -inf
    """
    _check(n_items, margin)
    lost, gained = np.asarray(n_lost, dtype=np.float64), np.asarray(n_gained, dtype=np.float64)
    variance = n_items * wald_variance(lost, gained, n_items)
    return _standardize(lost - gained - n_items * margin, variance)


def tango_interval(n_lost: int | float, n_gained: int | float, n_items: int | float, level: float) -> tuple[float, float]:
    """The two-sided score interval of the loss at confidence ``level``: every margin that ``tango_z`` does not reject.

    In fractions of all items, inside [-1, 1]. With no flip at all its ends are +-z^2/(N + z^2), about 3.8/N at 0.95.

    >>> low, high = tango_interval(12, 2, 1000, 0.95)
    >>> round(low, 5), round(high, 5)
    (0.00314, 0.01909)
    """
    z = float(ndtri((1 + level) / 2))
    return -loss_limit(n_gained, n_lost, n_items, z), loss_limit(n_lost, n_gained, n_items, z)


def loss_limit(n_lost: int | float, n_gained: int | float, n_items: int | float, z: float) -> float:
    """The smallest margin that lies above the loss by ``z`` standard errors: ``tango_z`` there is -z. At most 1.

    >>> round(loss_limit(0, 0, 1000, 1.959964), 5)
    0.00383
    """
    loss = (n_lost - n_gained) / n_items

    def excess(margin: float) -> float:
        return _tango_z_of_numbers(n_lost, n_gained, n_items, margin) + z

    if loss >= _ALMOST_ONE or excess(_ALMOST_ONE) > 0:
        return 1.0
    return float(brentq(excess, loss, _ALMOST_ONE, xtol=1e-12))


def mcnemar_midp(n_lost: Counts, n_gained: Counts) -> Float[np.ndarray, " ..."]:
    """The one-sided mid-p of "as many are gained as lost" against "more are lost", in (0, 1]; swap the two for the reverse.

    P(X > lost) + P(X = lost)/2 for X ~ Binomial(lost + gained, 1/2) (Fagerland, Lydersen & Laake 2013, BMC Medical
    Research Methodology 13:91). Without any flip it is 0.5.

    >>> float(mcnemar_midp(0, 0)), round(float(mcnemar_midp(12, 2)), 6)
    (0.5, 0.003693)
    """
    lost, gained = np.asarray(n_lost, dtype=np.float64), np.asarray(n_gained, dtype=np.float64)
    # The binomial tail P(X >= k) of n is the incomplete beta function I_1/2(k, n - k + 1) for k in 1..n.
    above = np.where(gained > 0, betainc(lost + 1, np.maximum(gained, 1), 0.5), 0.0)
    at_least = np.where(lost > 0, betainc(np.maximum(lost, 1), gained + 1, 0.5), 1.0)
    return np.asarray((above + at_least) / 2)


def _tango_z_of_numbers(lost: int | float, gained: int | float, n_items: int | float, margin: int | float) -> float:
    """``tango_z`` of single numbers: a root is looked for in some ten steps, and an array of one takes 20 times as long."""
    if margin < 0:
        return -_tango_z_of_numbers(gained, lost, n_items, -margin)
    b = (2 * n_items - lost + gained) * margin - lost - gained
    spread = margin * (1 - margin)
    root = math.sqrt(b * b + 8 * n_items * gained * spread)
    q = 2 * gained * spread / (b + root) if b > 0 else (root - b) / (4 * n_items)
    excess, variance = lost - gained - n_items * margin, n_items * (2 * q + spread)
    if excess == 0:
        return 0.0
    return excess / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, excess)


def _standardize(excess: Counts, variance: Counts) -> Float[np.ndarray, " ..."]:
    """excess / sqrt(variance); without variance +-inf by the sign of the excess, 0 where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = excess / np.sqrt(np.maximum(variance, 0.0))
    return np.where(excess == 0, 0.0, z)


def _check(n_items: int | float, margin: float) -> None:
    if not (n_items > 0 and -1 <= margin <= 1):
        raise ValueError(f"n_items > 0 and a margin in [-1, 1] are needed, got {n_items} and {margin}")
