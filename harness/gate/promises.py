"""What the policy promises about the gate's errors, and whether it is shown for these cells.

Three kinds of evidence. **Exact**: the chance of a unit's verdict, enumerated; it must not lie beyond the promise, and no
seed can change it. **Simulated**: a rate over simulated commits; it is kept only if its limit at 99.9 % confidence
(Clopper-Pearson) does not lie beyond the promise, missed if the limit on the other side does, and otherwise not shown, which
is no pass: more commits decide. **Replayed** (``gate.replay``): copies of the records through the real judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

import numpy as np
from jaxtyping import Bool

from harness.core.records import record
from harness.gate.decision import Unit, full_level_fail
from harness.gate.feasibility import feasibility
from harness.gate.policy import Policy
from harness.gate.recorded import AnchorUnits, Recorded
from harness.gate.simulation import SimulatedCell
from harness.stats.boundaries import Bounds
from harness.stats.enumeration import chances_at_full_n, chances_of_verdicts
from harness.stats.intervals import exact_limits
from harness.stats.power import minimal_detectable_loss

ERROR = 0.001
"""The chance that a simulated rate is called kept although it is not: at most one in a thousand."""


class Shown(str, Enum):
    """What became of a promise."""

    KEPT = "kept"
    MISSED = "MISSED"
    NOT_SHOWN = "NOT SHOWN"

    def __str__(self) -> str:
        return self.value


@record
class Promise:
    """A promised rate and what was found. ``low`` and ``high`` are the found rate's limits; both it itself where it is exact.

    ``at_least``: the rate may not be lower than ``limit``; else not higher.
    """

    name: str
    limit: float
    at_least: bool
    found: float
    low: float
    high: float
    n_commits: int | None
    shown: Shown


def exact_promise(name: str, limit: float, found: float, *, at_least: bool = False) -> Promise:
    """A promise about a rate that is known.

    >>> str(exact_promise("red", 0.01, 0.0101).shown), str(exact_promise("red", 0.01, 0.01).shown)
    ('MISSED', 'kept')
    """
    kept = found >= limit if at_least else found <= limit
    return Promise(name, limit, at_least, found, found, found, None, Shown.KEPT if kept else Shown.MISSED)


def simulated_promise(name: str, limit: float, found: Bool[np.ndarray, " commits"], *, at_least: bool = False) -> Promise:
    """A promise about a rate that was counted over simulated commits.

    >>> shown = [simulated_promise("red", 0.05, np.arange(2000) < n).shown for n in (0, 70, 95, 130, 200)]
    >>> [str(one) for one in shown]
    ['kept', 'kept', 'NOT SHOWN', 'NOT SHOWN', 'MISSED']
    """
    n_found, n = int(np.count_nonzero(found)), len(found)
    low, high = exact_limits(n_found, n, ERROR)
    is_kept, is_missed = (low >= limit, high < limit) if at_least else (high <= limit, low > limit)
    shown = Shown.KEPT if is_kept else Shown.MISSED if is_missed else Shown.NOT_SHOWN
    return Promise(name, limit, at_least, n_found / n, low, high, n, shown)


@record
class UnitRates:
    """One unit (a task, or "pooled") against one anchor: its margins and levels, and its exact chances.

    ``red_at_m0``: to be red though it lost only m0. ``passes_at_m1``: to pass though it lost m1. ``passes_unchanged``: to pass
    when nothing changed; ``feasible``: whether the policy says that so many items suffice for that with probability
    ``power``. ``detectable``: the loss that the gate says it finds with that probability (None: none), ``red_at_detectable``
    the chance. All losses in fractions of the unit's items.
    """

    unit: str
    anchor: str
    n_items: int
    flip_rate: float
    sigma: float
    m0: float
    m1: float
    level_fail: float
    level_pass: float
    red_unchanged: float
    red_at_m0: float
    passes_at_m1: float
    passes_unchanged: float
    feasible: bool
    n_needed: int | None
    detectable: float | None
    red_at_detectable: float | None


def unit_rates(
    recorded: Recorded, units: AnchorUnits, cell: SimulatedCell, anchor: int, flips: float | None = None
) -> Iterator[UnitRates]:
    """The exact rates of every unit of a cell against one of its anchors, where ``flips`` of the items flip (None: f_ref)."""
    by_name = {task.name: task.bounds[anchor] for task in cell.tasks}
    for name, unit in units.all.items():
        bounds = by_name.get(name, cell.pool[anchor])
        if bounds is not None:
            f = units.flip_rates[name] if flips is None else flips
            yield _rates(recorded.policy, name, units.anchor, unit, bounds=bounds, flips=f)


def unit_promises(cell_id: str, rates: UnitRates, policy: Policy) -> Iterator[Promise]:
    """What is promised about one unit."""
    unit = f"{cell_id}-{rates.unit}" + (f" ({rates.anchor})" if rates.anchor != "last" else "")
    yield exact_promise(f"{unit}: lost m0 ({100 * rates.m0:.2f} pt), red", rates.level_fail, rates.red_at_m0)
    yield exact_promise(f"{unit}: lost m1 ({100 * rates.m1:.2f} pt), PASS", rates.level_pass, rates.passes_at_m1)
    if rates.feasible:
        yield exact_promise(f"{unit}: unchanged, PASS", policy.power, rates.passes_unchanged, at_least=True)


def commit_promises(policy: Policy, red: Mapping[str, Bool[np.ndarray, " commits"]]) -> Iterator[Promise]:
    """What is promised about a commit, from whether each simulated one was red: "unchanged", and "tolerated"."""
    m0 = f"{100 * policy.cell.m0:g} pt"
    yield simulated_promise("a commit on which nothing changed is red", policy.alpha_commit, red["unchanged"])
    tolerated = f"a commit on which every cell lost what it may (m0, at most {m0}) is red"
    yield simulated_promise(tolerated, policy.alpha_commit, red["tolerated"])


def _rates(policy: Policy, name: str, anchor: str, unit: Unit, *, bounds: Bounds, flips: float) -> UnitRates:
    rule = unit.rule(policy)
    right = unit.n_correct_before / max(unit.counts.n_items, 1)
    half = min(flips / 2, right, 1 - right)

    def chances(loss: float) -> tuple[float, float]:
        lost = min(half + loss, right)
        if unit.spread.sigma > 0:
            return chances_at_full_n(bounds, lost, half, unit.spread)
        return chances_of_verdicts(bounds, lost, half)

    unchanged = chances(0.0)
    can = feasibility(policy, unit.margins, rule.n_items, flip_rate=unit.flip_rate, chance=unit.chance, spread=unit.spread)
    detectable = minimal_detectable_loss(
        rule.n_items,
        flip_rate=2 * half,
        margin=rule.m0,
        level=full_level_fail(rule),
        power=policy.power,
        sigma=unit.spread.sigma,
        df=unit.spread.df,
    )
    return UnitRates(
        unit=name,
        anchor=anchor,
        n_items=rule.n_items,
        flip_rate=2 * half,
        sigma=unit.spread.sigma,
        m0=rule.m0,
        m1=rule.m1,
        level_fail=rule.level_fail,
        level_pass=rule.level_pass,
        red_unchanged=unchanged[0],
        red_at_m0=chances(rule.m0)[0],
        passes_at_m1=chances(rule.m1)[1],
        passes_unchanged=unchanged[1],
        feasible=can.feasible,
        n_needed=can.n_needed,
        detectable=detectable,
        red_at_detectable=None if detectable is None or detectable > right else chances(detectable)[0],
    )


def is_kept(promises: Sequence[Promise]) -> bool:
    """Whether every promise is shown to be kept."""
    return all(promise.shown is Shown.KEPT for promise in promises)
