"""One unit (a task, or a cell's pool) from the trail of its counts to its evidence and status.

Early verdicts rest on betting e-values, whose running maxima may be looked at after every round; at full N the paired tests
join them. Each side spends its share of the level (``policy.early``), so the p-values below hold however a run stops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.core.verdicts import Estimate, Evidence, PairedCounts, Status
from harness.gate.policy import Margins, Policy
from harness.gate.trail import Trail
from harness.stats.intervals import wilson
from harness.stats.paired import mcnemar_midp
from harness.stats.power import items_to_fail, items_to_pass, minimal_detectable_loss
from harness.stats.recompression import (
    NO_SPREAD,
    Spread,
    loss_interval_with_spread,
    loss_limit_with_spread,
    p_loss_above,
    p_loss_below,
)
from harness.stats.retention import retention
from harness.stats.sequential import anytime_interval, anytime_limit, anytime_p, log_e_fail, log_e_pass


@dataclass(frozen=True, slots=True)
class Unit:
    """What is tested: the trail of paired counts, how many of the fed items were right before, and the margins, levels and
    noise that apply.

    ``chance`` is 0 for a pool; a task's margins shrink by (1 - chance). ``flip_rate`` is f_ref of its change class.
    ``spread``: how far re-compressing alone moves the loss; where it does, there are no early verdicts.
    """

    trail: Trail
    n_correct_before: int
    margins: Margins
    flip_rate: float
    chance: float
    level_fail: float
    spread: Spread

    @property
    def counts(self) -> PairedCounts:
        """The counts as far as items were fed."""
        return self.trail.counts

    def m0(self) -> float:
        """The loss that FAIL proves to be exceeded, as a fraction of all items."""
        return self.margins.m0 * (1 - self.chance)

    def m1(self, n_items: int) -> float:
        """The loss that PASS proves not to be reached, with so many items."""
        return self.margins.m1(n_items, self.flip_rate) * (1 - self.chance)


def decide(unit: Unit, policy: Policy) -> tuple[Status, Evidence]:
    """What the counts say: REGRESSED wins over PASS, IMPROVED is a PASS at full N with a significant gain.

    INCONCLUSIVE is the last word at full N only; before, it means "not yet".
    """
    evidence = weigh(unit, policy)
    if evidence.p_fail < evidence.level_fail:
        return Status.REGRESSED, evidence
    if evidence.p_pass < evidence.level_pass:
        improved = unit.trail.is_complete and _gain_is_significant(unit)
        return (Status.IMPROVED if improved else Status.PASS), evidence
    return Status.INCONCLUSIVE, replace(evidence, items_needed=_items_needed(unit, policy))


def is_decided(unit: Unit, policy: Policy) -> bool:
    """Whether the unit needs no more items: the cheap part of ``decide``, asked after every round."""
    m0, m1 = unit.m0(), unit.m1(unit.trail.n_planned)
    return _p_fail(unit, policy, m0) < unit.level_fail or _p_pass(unit, policy, m1) < policy.pass_level


def weigh(unit: Unit, policy: Policy) -> Evidence:
    """The numbers behind a decision (``items_needed`` is left to ``decide``)."""
    counts, n, trail = unit.counts, unit.counts.n_items, unit.trail
    b, c = counts.n_lost, counts.n_gained
    m0, m1 = unit.m0(), unit.m1(trail.n_planned)
    if trail.is_complete:
        method, (low, high) = "tango", loss_interval_with_spread(b, c, n, policy.interval_level, unit.spread)
        proven = loss_limit_with_spread(b, c, n, _full_level_pass(unit, policy), unit.spread)
    else:
        method, (low, high) = "betting", anytime_interval(trail.n_lost, trail.n_gained, trail.n_fed, policy.interval_level)
        level = policy.pass_level * policy.early.pass_share
        proven = anytime_limit(trail.n_lost, trail.n_gained, trail.n_fed, level)
    return Evidence(
        counts=counts,
        accuracy_baseline=wilson(unit.n_correct_before, n, policy.interval_level),
        accuracy_candidate=wilson(unit.n_correct_before - b + c, n, policy.interval_level),
        loss=Estimate(counts.loss, low, high, policy.interval_level, method),
        retention=retention(counts, unit.n_correct_before, policy.interval_level),
        m0=m0,
        m1=m1,
        p_fail=_p_fail(unit, policy, m0),
        p_pass=_p_pass(unit, policy, m1),
        level_fail=unit.level_fail,
        level_pass=policy.pass_level,
        sigma_recompression=unit.spread.sigma,
        proven_margin=proven,
        min_detectable_loss=minimal_detectable_loss(
            trail.n_planned,
            flip_rate=(b + c) / n,
            margin=m0,
            level=_full_level_fail(unit, policy),
            power=policy.power,
            sigma=unit.spread.sigma,
            df=unit.spread.df,
        ),
        items_needed=None,
        n_planned=trail.n_planned,
    )


def _p_fail(unit: Unit, policy: Policy, m0: float) -> float:
    """The p-value of "no more than m0 is lost": early evidence, and at full N the more cautious of Tango and Wald."""
    b, c, n = unit.counts.n_lost, unit.counts.n_gained, unit.counts.n_items
    full = p_loss_above(b, c, n, m0, unit.spread) if unit.trail.is_complete else None
    share = _early_share(unit, policy.early.fail_share)
    best = float(log_e_fail(*_counts(unit.trail), m0).max(initial=0.0)) if share else 0.0
    return float(anytime_p(best, share, full))


def _p_pass(unit: Unit, policy: Policy, m1: float) -> float:
    """The p-value of "m1 or more is lost"; Wald has no say: without any flip it would always pass."""
    b, c, n = unit.counts.n_lost, unit.counts.n_gained, unit.counts.n_items
    full = p_loss_below(b, c, n, m1, unit.spread) if unit.trail.is_complete else None
    share = _early_share(unit, policy.early.pass_share)
    best = float(log_e_pass(*_counts(unit.trail), m1).max(initial=0.0)) if share else 0.0
    return float(anytime_p(best, share, full))


def _early_share(unit: Unit, share: float) -> float:
    """What early verdicts may spend of a level: nothing where the cell was compressed again."""
    return share if unit.spread == NO_SPREAD else 0.0


def _counts(trail: Trail) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return trail.n_lost, trail.n_gained, trail.n_fed - trail.n_lost - trail.n_gained


def _gain_is_significant(unit: Unit) -> bool:
    """Mid-p McNemar; a re-compressed cell must also gain more than re-compressing alone explains."""
    lost, gained = unit.counts.n_lost, unit.counts.n_gained
    if not float(mcnemar_midp(gained, lost)) < unit.level_fail:
        return False
    return float(p_loss_below(lost, gained, unit.counts.n_items, 0.0, unit.spread)) < unit.level_fail


def _items_needed(unit: Unit, policy: Policy) -> int | None:
    """How many more items would decide at the flip rates seen; None where no number would (too wide a spread)."""
    n, spread = unit.counts.n_items, unit.spread
    to_fail = items_to_fail(unit.counts, unit.m0(), _full_level_fail(unit, policy), spread.sigma, spread.df)
    to_pass = _items_to_pass(unit, policy, n)
    found = [items for items in (to_fail, to_pass) if items is not None]
    return max(1, min(found) - n) if found else None


def _items_to_pass(unit: Unit, policy: Policy, n_items: int) -> int | None:
    """The N that passes at its own m1, which shrinks to its floor as N grows."""
    for _ in range(50):
        level, spread = _full_level_pass(unit, policy), unit.spread
        wanted = items_to_pass(unit.counts, unit.m1(n_items), level, spread.sigma, spread.df)
        if wanted is None or wanted <= n_items:
            return None if wanted is None else n_items
        n_items = wanted
    return n_items


def _full_level_fail(unit: Unit, policy: Policy) -> float:
    """What is left of the level for the test at full N."""
    return unit.level_fail * (1 - _early_share(unit, policy.early.fail_share))


def _full_level_pass(unit: Unit, policy: Policy) -> float:
    """What is left of the level for the test at full N."""
    return policy.pass_level * (1 - _early_share(unit, policy.early.pass_share))
