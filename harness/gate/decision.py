"""One unit (a task, or a cell's pool) from three integers to its evidence and status.

Only full-N tests. The early rounds of a sequential run will spend ``policy.early`` of each level; p-values at full N are
divided by the rest already, so verdicts keep their size when they come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from scipy.special import ndtr, ndtri

from harness.core.verdicts import Estimate, Evidence, PairedCounts, Status
from harness.gate.policy import Margins, Policy
from harness.stats.intervals import wilson
from harness.stats.paired import loss_limit, mcnemar_midp, tango_interval, tango_z, wald_z
from harness.stats.power import items_to_fail, items_to_pass, minimal_detectable_loss
from harness.stats.retention import retention


@dataclass(frozen=True, slots=True)
class Unit:
    """What is tested: paired counts, how many were right before, and the margins, levels and noise that apply.

    ``chance`` is 0 for a pool; a task's margins shrink by (1 - chance). ``flip_rate`` is f_ref of its change class.
    """

    counts: PairedCounts
    n_correct_before: int
    margins: Margins
    flip_rate: float
    chance: float
    level_fail: float
    sigma: float

    def m0(self) -> float:
        """The loss that FAIL proves to be exceeded, as a fraction of all items."""
        return self.margins.m0 * (1 - self.chance)

    def m1(self, n_items: int) -> float:
        """The loss that PASS proves not to be reached, with so many items."""
        return self.margins.m1(n_items, self.flip_rate) * (1 - self.chance)


def decide(unit: Unit, policy: Policy) -> tuple[Status, Evidence]:
    """What the counts say at full N: REGRESSED wins over PASS, IMPROVED is a PASS with a significant gain."""
    evidence = weigh(unit, policy)
    if evidence.p_fail < evidence.level_fail:
        return Status.REGRESSED, evidence
    if evidence.p_pass < evidence.level_pass:
        return (Status.IMPROVED if _gain_is_significant(unit) else Status.PASS), evidence
    return Status.INCONCLUSIVE, replace(evidence, items_needed=_items_needed(unit, policy))


def weigh(unit: Unit, policy: Policy) -> Evidence:
    """The numbers behind a decision (``items_needed`` is left to ``decide``)."""
    counts, n = unit.counts, unit.counts.n_items
    b, c = counts.n_lost, counts.n_gained
    m0, m1 = unit.m0(), unit.m1(n)
    z_fail = min(float(tango_z(b, c, n, m0, unit.sigma)), float(wald_z(b, c, n, m0, unit.sigma)))
    p_fail = float(ndtr(-z_fail)) / (1 - policy.early.fail_share)
    p_pass = float(ndtr(tango_z(b, c, n, m1, unit.sigma))) / (1 - policy.early.pass_share)
    low, high = tango_interval(b, c, n, policy.interval_level, unit.sigma)
    return Evidence(
        counts=counts,
        accuracy_baseline=wilson(unit.n_correct_before, n, policy.interval_level),
        accuracy_candidate=wilson(unit.n_correct_before - b + c, n, policy.interval_level),
        loss=Estimate(counts.loss, low, high, policy.interval_level, "tango"),
        retention=retention(counts, unit.n_correct_before, policy.interval_level),
        m0=m0,
        m1=m1,
        p_fail=min(1.0, p_fail),
        p_pass=min(1.0, p_pass),
        level_fail=unit.level_fail,
        level_pass=policy.pass_level,
        sigma_recompression=unit.sigma,
        proven_margin=loss_limit(b, c, n, float(ndtri(1 - _z_level_pass(policy))), unit.sigma),
        min_detectable_loss=minimal_detectable_loss(
            n,
            flip_rate=(b + c) / n,
            margin=m0,
            level=_z_level_fail(unit, policy),
            power=policy.power,
            sigma=unit.sigma,
        ),
        items_needed=None,
    )


def _gain_is_significant(unit: Unit) -> bool:
    """Mid-p McNemar; a re-compressed cell must also gain more than re-compressing alone explains."""
    lost, gained = unit.counts.n_lost, unit.counts.n_gained
    if not float(mcnemar_midp(gained, lost)) < unit.level_fail:
        return False
    return float(ndtr(tango_z(lost, gained, unit.counts.n_items, 0.0, unit.sigma))) < unit.level_fail


def _items_needed(unit: Unit, policy: Policy) -> int | None:
    """How many more items would decide at the flip rates seen; None where no number would (too wide a sigma)."""
    n = unit.counts.n_items
    to_fail = items_to_fail(unit.counts, unit.m0(), _z_level_fail(unit, policy), unit.sigma)
    to_pass = _items_to_pass(unit, policy, n)
    found = [items for items in (to_fail, to_pass) if items is not None]
    return max(1, min(found) - n) if found else None


def _items_to_pass(unit: Unit, policy: Policy, n_items: int) -> int | None:
    """The N that passes at its own m1, which shrinks to its floor as N grows."""
    for _ in range(50):
        wanted = items_to_pass(unit.counts, unit.m1(n_items), _z_level_pass(policy), unit.sigma)
        if wanted is None or wanted <= n_items:
            return None if wanted is None else n_items
        n_items = wanted
    return n_items


def _z_level_fail(unit: Unit, policy: Policy) -> float:
    return unit.level_fail * (1 - policy.early.fail_share)


def _z_level_pass(policy: Policy) -> float:
    return policy.pass_level * (1 - policy.early.pass_share)
