"""Verdicts before all items are in: betting e-values of a loss, looked at after every round, and the rounds themselves.

Each item is a bet on lost (+1), gained (-1) or unchanged (0); an e-value is the capital that betting against a hypothesis
has made, averaged over six fixed bets. If the hypothesis is true it ever grows x-fold with probability <= 1/x, so one may
stop whenever one likes (Ville 1939; Waudby-Smith & Ramdas 2023, JRSS-B 86:1, section 4). Counts are enough: the order of the
items inside a round does not matter. Everything is in logarithms and takes numbers or arrays of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Real
from scipy.optimize import brentq

from harness.stats.paired import Counts
from harness.stats.recompression import NO_SPREAD, Spread, p_loss_above, p_loss_below

CumulativeCounts: TypeAlias = Real[np.ndarray, "*batch rounds"]
"""Counts at the ends of the rounds so far, each including those before; of one unit, or of many with the same rounds."""

BETS = np.geomspace(0.03, 0.90, 6)
"""The six bets, as shares of the largest bet that can't go bankrupt; small ones find small losses among many flips."""

ROUND_PERCENTS = (*range(2, 20, 2), *range(20, 101, 5))
"""How far every task of a cell is fed by the end of each round, in percent of its items."""

ROUND_SHARES = tuple(percent / 100 for percent in ROUND_PERCENTS)
"""The same as fractions."""

_ALMOST_ONE = 1 - 1e-12


def round_ends(n_items: int) -> tuple[int, ...]:
    """How many of a task's items are fed by the end of each round: one number a round, never 0, the last is all.

    Rounded to the nearest item, halves up, so that every round holds all tasks in nearly the same proportion: only then are
    e-values of their pool valid at the rounds' ends.

    >>> round_ends(50)[:6], len(round_ends(50)), round_ends(164)[-2:], round_ends(3)[:2]
    ((1, 2, 3, 4, 5, 6), 26, (156, 164), (1, 1))
    """
    if n_items < 1:
        raise ValueError(f"at least one item is needed, got {n_items}")
    return tuple(max(1, (2 * n_items * percent + 100) // 200) for percent in ROUND_PERCENTS)


def log_e_fail(n_lost: Counts, n_gained: Counts, n_unchanged: Counts, margin: float) -> Float[np.ndarray, " ..."]:
    """The log e-value against "at most ``margin`` is lost"; large when more is lost. Unbounded; 0 without items.

    mean_k (1 + l(1-m))^lost (1 - l(1+m))^gained (1 - l m)^unchanged with l = BETS_k/(1+m), which keeps each factor positive.
    Its expectation is 1 where the loss is ``margin``, whatever the flip rate. ``margin`` is in (-1, 1).

    >>> round(float(log_e_fail(60, 5, 435, 0.005)), 3), float(log_e_fail(0, 0, 0, 0.005))
    (22.973, 0.0)
    """
    _check_margin(margin)
    bets = BETS / (1 + margin)
    return log_mixture([bets * (1 - margin), -BETS, -bets * margin], [n_lost, n_gained, n_unchanged])


def log_e_pass(n_lost: Counts, n_gained: Counts, n_unchanged: Counts, margin: float) -> Float[np.ndarray, " ..."]:
    """The log e-value against "``margin`` or more is lost"; large when less is lost. Mirrors ``log_e_fail``.

    mean_k (1 - l(1-m))^lost (1 + l(1+m))^gained (1 + l m)^unchanged with l = BETS_k/(1-m).

    >>> round(float(log_e_pass(2, 2, 996, 0.01)), 3)
    4.147
    """
    return log_e_fail(n_gained, n_lost, n_unchanged, -margin)


def log_mixture(returns: Sequence[Float[np.ndarray, " bets"]], counts: Sequence[Counts]) -> Float[np.ndarray, " ..."]:
    """log mean_k prod_i (1 + returns[i][k])^counts[i]: what the bets k return on each kind i of item, all above -1.

    For huge counts too: no product is ever formed.

    >>> round(float(log_mixture([np.array([1.0, -0.5]), np.array([-0.5, 1.0])], [3, 1])), 4)  # log((4 + 1/4)/2)
    0.7538
    """
    logs = np.zeros(())
    for of_kind, count in zip(returns, counts, strict=True):
        logs = logs + np.asarray(count, dtype=np.float64)[..., None] * np.log1p(of_kind)
    top = np.max(logs, axis=-1)
    return np.asarray(top + np.log(np.mean(np.exp(logs - top[..., None]), axis=-1)))


def anytime_p(log_e_max: Counts, early_share: float, p_full: Counts | None = None) -> Float[np.ndarray, " ..."]:
    """The p-value that holds whenever one stops: min(1, 1/(share * largest E so far), p_full/(1 - share)).

    ``log_e_max`` is the running maximum of a log e-value over the rounds so far, ``p_full`` the fixed test's p-value, known
    at full N only. Each spends its share of any level, so together they err no more often than the level says.
    ``early_share`` in [0, 1]: with 0 there is no early verdict, with 1 no other.

    >>> [round(float(p), 6) for p in (anytime_p(math.log(200), 0.2), anytime_p(0.0, 0.2), anytime_p(0.0, 0.2, 0.01))]
    [0.025, 1.0, 0.0125]
    """
    if not 0 <= early_share <= 1:
        raise ValueError(f"a share between 0 and 1 is needed, got {early_share}")
    p = np.exp(-np.maximum(np.asarray(log_e_max, dtype=np.float64), 0.0))
    with np.errstate(over="ignore"):
        p = p / early_share if early_share > 0 else np.ones_like(p)
    if p_full is not None and early_share < 1:
        p = np.minimum(p, np.asarray(p_full) / (1 - early_share))
    return np.asarray(np.minimum(p, 1.0))


def anytime_interval(
    n_lost: Real[np.ndarray, " rounds"],
    n_gained: Real[np.ndarray, " rounds"],
    n_fed: Real[np.ndarray, " rounds"],
    level: float,
) -> tuple[float, float]:
    """The interval of the loss that holds at confidence ``level`` however the run stopped, inside [-1, 1].

    All margins m at which neither running maximum, of E_fail(m) and of E_pass(m), has reached 2/(1 - level) (40 at 0.95).
    Counts are cumulative, one a round. The low end may pass the high one: then the rounds contradict each other, which
    items in random order do with probability below 1 - level.

    >>> rounds = np.array([200, 400, 600])
    >>> low, high = anytime_interval(np.array([4, 8, 13]), np.array([2, 4, 5]), rounds, 0.95)
    >>> round(low, 4), round(high, 4)
    (-0.0121, 0.0409)
    """
    side = (1 - level) / 2
    return -anytime_limit(n_gained, n_lost, n_fed, side), anytime_limit(n_lost, n_gained, n_fed, side)


def anytime_limit(
    n_lost: Real[np.ndarray, " rounds"],
    n_gained: Real[np.ndarray, " rounds"],
    n_fed: Real[np.ndarray, " rounds"],
    level: float,
) -> float:
    """The smallest margin that a loss is proven to stay below at one-sided ``level``, however the run stopped; at most 1.

    There the running maximum of E_pass is 1/level; it rises with the margin.

    >>> round(anytime_limit(np.array([0]), np.array([0]), np.array([1000]), 1 / 40), 5)
    0.00595
    """
    lost, gained, fed = (np.asarray(counts, dtype=np.float64) for counts in (n_lost, n_gained, n_fed))

    def excess(margin: float) -> float:
        return float(np.max(log_e_pass(lost, gained, fed - lost - gained, margin))) + math.log(level)

    if not len(fed) or excess(_ALMOST_ONE) < 0:
        return 1.0
    return float(brentq(excess, -_ALMOST_ONE, _ALMOST_ONE, xtol=1e-12))


@dataclass(frozen=True, slots=True)
class Rule:
    """What a unit of ``n_items`` is tested for: FAIL proves a loss above ``m0``, PASS one below ``m1``, each at its level.

    Early verdicts may spend their share of a level; where re-compressing moves the loss (``spread``), or where the rule is one
    ``at_full_n`` (clusters), there are none, and nothing is kept for them.
    """

    n_items: int
    m0: float
    m1: float
    level_fail: float
    level_pass: float
    fail_share: float
    pass_share: float
    spread: Spread = NO_SPREAD
    at_full_n: bool = False

    @property
    def is_early(self) -> bool:
        """Whether there may be a verdict before all items are in."""
        return self.spread == NO_SPREAD and not self.at_full_n

    @property
    def early_fail_share(self) -> float:
        """What early FAIL verdicts spend of their level."""
        return self.fail_share if self.is_early else 0.0

    @property
    def early_pass_share(self) -> float:
        """What early PASS verdicts spend of their level."""
        return self.pass_share if self.is_early else 0.0


def p_fail(
    rule: Rule, n_lost: CumulativeCounts, n_gained: CumulativeCounts, n_fed: Real[np.ndarray, " rounds"]
) -> Float[np.ndarray, "*batch"]:
    """The p-value of "at most m0 is lost" from the counts at the rounds' ends so far, in [0, 1]: early evidence, and once
    all items are in the more cautious of Tango and Wald.

    Raises ValueError for counts that shrink, or that exceed the unit.

    >>> rule = Rule(1000, m0=0.005, m1=0.03, level_fail=0.001, level_pass=0.05, fail_share=0.2, pass_share=0.5)
    >>> bool(p_fail(rule, np.array([8, 30]), np.array([0, 0]), np.array([40, 200])) < rule.level_fail)
    True
    """
    lost, gained, fed, same = _checked(rule, n_lost, n_gained, n_fed)
    largest = log_e_fail(lost, gained, same, rule.m0).max(axis=-1, initial=0.0)
    full = (
        p_loss_above(lost[..., -1], gained[..., -1], rule.n_items, rule.m0, rule.spread) if _is_complete(rule, fed) else None
    )
    return anytime_p(largest, rule.early_fail_share, full)


def p_pass(
    rule: Rule, n_lost: CumulativeCounts, n_gained: CumulativeCounts, n_fed: Real[np.ndarray, " rounds"]
) -> Float[np.ndarray, "*batch"]:
    """The p-value of "m1 or more is lost", as ``p_fail``; Wald has no say: without any flip it would always pass.

    >>> rule = Rule(1000, m0=0.005, m1=0.03, level_fail=0.001, level_pass=0.05, fail_share=0.2, pass_share=0.5)
    >>> [bool(p_pass(rule, np.ones(n), np.ones(n), np.array([100, 300])[:n]) < rule.level_pass) for n in (0, 1, 2)]
    [False, False, True]
    """
    lost, gained, fed, same = _checked(rule, n_lost, n_gained, n_fed)
    largest = log_e_pass(lost, gained, same, rule.m1).max(axis=-1, initial=0.0)
    full = (
        p_loss_below(lost[..., -1], gained[..., -1], rule.n_items, rule.m1, rule.spread) if _is_complete(rule, fed) else None
    )
    return anytime_p(largest, rule.early_pass_share, full)


def _checked(
    rule: Rule, n_lost: CumulativeCounts, n_gained: CumulativeCounts, n_fed: Real[np.ndarray, " rounds"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The counts as numbers, and the unchanged items."""
    lost, gained, fed = (np.asarray(counts, dtype=np.float64) for counts in (n_lost, n_gained, n_fed))
    same = fed - lost - gained
    if any((np.diff(counts, prepend=0) < 0).any() for counts in (lost, gained, same)) or (fed > rule.n_items).any():
        raise ValueError(f"counts that never shrink and at most {rule.n_items} items are needed, got {lost}, {gained}, {fed}")
    return lost, gained, fed, same


def _is_complete(rule: Rule, n_fed: np.ndarray) -> bool:
    return len(n_fed) > 0 and int(n_fed[-1]) == rule.n_items


def _check_margin(margin: float) -> None:
    if not -1 < margin < 1:
        raise ValueError(f"a margin between -1 and 1 (both excluded) is needed, got {margin}")
