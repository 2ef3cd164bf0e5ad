"""A rule as a table: at the end of each round, the counts from which it fails and those up to which it passes.

Nothing is decided anew here: each entry is found by asking ``sequential.p_fail`` and ``p_pass`` themselves. Both only fall or
only rise with the items lost, so one number for each count of gained items says all. Running maxima over the rounds need no
table of their own: a p-value of several rounds is below its level exactly where that of one of these rounds alone is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from harness.stats.sequential import Rule, p_fail, p_pass


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Where a rule decides: after round k with c items gained, FAIL if at least ``fail_from[k, c]`` are lost, PASS if at most
    ``pass_to[k, c]`` are (-1: never). Gained items beyond the table raise IndexError, so that nothing is guessed.
    """

    n_fed: Int[np.ndarray, " rounds"]
    fail_from: Int[np.ndarray, "rounds gained"]
    pass_to: Int[np.ndarray, "rounds gained"]

    def fails(self, index: int, lost: Int[np.ndarray, " n"], gained: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether these counts at the end of a round prove a loss above m0."""
        return np.asarray(lost >= self.fail_from[index][gained])

    def passes(self, index: int, lost: Int[np.ndarray, " n"], gained: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether these counts at the end of a round prove a loss below m1."""
        return np.asarray(lost <= self.pass_to[index][gained])


def find_bounds(rule: Rule, n_fed: Int[np.ndarray, " rounds"], n_gained_most: int) -> Bounds:
    """The bounds of a rule at rounds that end after ``n_fed`` items, for up to ``n_gained_most`` gained ones.

    >>> rule = Rule(1000, m0=0.005, m1=0.03, level_fail=0.001, level_pass=0.05, fail_share=0.2, pass_share=0.5)
    >>> found = find_bounds(rule, np.array([200, 1000]), 2)
    >>> found.fail_from.tolist(), found.pass_to.tolist()
    ([[18, 21, 25], [19, 21, 23]], [[0, 0, 0], [19, 20, 20]])
    """
    fed = np.asarray(n_fed)
    gained = np.arange(min(n_gained_most, rule.n_items) + 1)
    fails = _first_of_rounds(rule, fed, gained, p_fail, level=rule.level_fail, is_early=rule.early_fail_share > 0.0)
    passes = _first_of_rounds(
        rule, fed, gained, p_pass, level=rule.level_pass, is_early=rule.early_pass_share > 0.0, until=True
    )
    possible = gained[None, :] <= fed[:, None]
    can_fail = possible & (fails <= fed[:, None] - gained)
    return Bounds(fed, np.where(can_fail, fails, rule.n_items + 1), np.where(possible, passes - 1, -1))


def _first_of_rounds(
    rule: Rule,
    n_fed: np.ndarray,
    gained: np.ndarray,
    p_value: Callable[..., np.ndarray],
    *,
    level: float,
    is_early: bool,
    until: bool = False,
) -> Int[np.ndarray, "rounds gained"]:
    """For each round the first number of lost items that decides (or the first that does not, where ``until``); a round that
    can't decide is not asked."""
    nothing = np.zeros_like(gained) if until else np.full_like(gained, rule.n_items + 1)
    return np.array(
        [
            _first(_crossing(p_value, rule, level, int(fed), gained), int(fed) - gained, until)
            if is_early or fed == rule.n_items
            else nothing
            for fed in n_fed
        ]
    )


Crossing = Callable[[Int[np.ndarray, " gained"]], Bool[np.ndarray, " gained"]]


def _crossing(p_value: Callable[..., np.ndarray], rule: Rule, level: float, fed: int, gained: np.ndarray) -> Crossing:
    """Whether so many lost items, for each count of gained ones, decide at one round's end."""

    def crosses(lost: Int[np.ndarray, " gained"]) -> Bool[np.ndarray, " gained"]:
        at_most = np.minimum(gained, fed)
        lost = np.clip(lost, 0, fed - at_most)
        return np.asarray(p_value(rule, lost[:, None], at_most[:, None], np.array([fed])) < level)

    return crosses


def _first(crosses: Crossing, most: Int[np.ndarray, " gained"], until: bool = False) -> Int[np.ndarray, " gained"]:
    """The fewest lost items, 0 to ``most`` + 1, at which ``crosses`` begins (or ends, where ``until``) to hold."""
    low, high = np.zeros_like(most), np.maximum(most, -1) + 1
    while (low < high).any():
        middle = (low + high) // 2
        beyond = crosses(middle) != until
        low, high = np.where(beyond | (low >= high), low, middle + 1), np.where(beyond & (low < high), middle, high)
    return low
