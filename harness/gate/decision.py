"""One unit (a task, or a cell's pool) from the trail of its counts to its evidence and status.

Early verdicts rest on betting e-values, whose running maxima may be looked at after every round; at full N the paired tests
join them. Each side spends its share of the level (``policy.early``), so the p-values below hold however a run stops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.core.verdicts import Estimate, Evidence, PairedCounts, Status
from harness.gate.clusters import ClusteredItems, FewRelations
from harness.gate.policy import Margins, Policy
from harness.gate.trail import Trail
from harness.stats.cluster_estimates import detectable_loss_clustered, times_to_prove
from harness.stats.clusters import loss_limit_clustered, null_scale, p_loss_above_clustered, p_loss_below_clustered
from harness.stats.intervals import wilson
from harness.stats.paired import mcnemar_midp
from harness.stats.power import items_to_fail, items_to_pass, minimal_detectable_loss
from harness.stats.recompression import Spread, loss_interval_with_spread, loss_limit_with_spread, p_loss_below
from harness.stats.retention import retention
from harness.stats.sequential import Rule, anytime_interval, anytime_limit, p_fail, p_pass


@dataclass(frozen=True, slots=True)
class Unit:
    """What is tested: the trail of paired counts, how many of the fed items were right before, and the margins, levels and
    noise that apply.

    ``chance`` is 0 for a pool; a task's margins shrink by (1 - chance). ``flip_rate`` is f_ref of its change class.
    ``spread``: how far re-compressing alone moves the loss; where it does, there are no early verdicts. Nor are there where
    relations stand for others (``at_full_n``): once all items are in, ``clustered`` has them by relation.
    """

    trail: Trail
    n_correct_before: int
    margins: Margins
    flip_rate: float
    chance: float
    level_fail: float
    spread: Spread
    at_full_n: bool = False
    clustered: ClusteredItems | None = None

    @property
    def few(self) -> FewRelations | None:
        """The relations that stand for others, where those that were asked are too few to prove anything about them."""
        return None if self.clustered is None else self.clustered.few

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

    def rule(self, policy: Policy) -> Rule:
        """What the unit is tested for, and at which levels."""
        return Rule(
            n_items=self.trail.n_planned,
            m0=self.m0(),
            m1=self.m1(self.trail.n_planned),
            level_fail=self.level_fail,
            level_pass=policy.pass_level,
            fail_share=policy.early.fail_share,
            pass_share=policy.early.pass_share,
            spread=self.spread,
            at_full_n=self.at_full_n,
        )

    def p_fail(self, policy: Policy) -> float:
        """The p-value of "at most m0 is lost" from all that was fed; of clusters the largest that any test gives, and 1 of too
        few."""
        if self.few is not None:
            return 1.0
        rule = self.rule(policy)
        by_items = float(p_fail(rule, *self.trail.cumulative))
        if self.clustered is None:
            return by_items
        return max(by_items, float(p_loss_above_clustered(self.clustered.counts, rule.m0, self.spread)))

    def p_pass(self, policy: Policy) -> float:
        """The p-value of "m1 or more is lost", as ``p_fail``."""
        if self.few is not None:
            return 1.0
        rule = self.rule(policy)
        by_items = float(p_pass(rule, *self.trail.cumulative))
        if self.clustered is None:
            return by_items
        return max(by_items, float(p_loss_below_clustered(self.clustered.counts, rule.m1, self.spread)))


def decide(unit: Unit, policy: Policy) -> tuple[Status, Evidence]:
    """What the counts say: REGRESSED wins over PASS, IMPROVED is a PASS at full N with a significant gain.

    INCONCLUSIVE is the last word at full N only; before, it means "not yet". For a unit with enough relations (``Unit.few``).
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
    return unit.p_fail(policy) < unit.level_fail or unit.p_pass(policy) < policy.pass_level


def weigh(unit: Unit, policy: Policy) -> Evidence:
    """The numbers behind a decision (``items_needed`` is left to ``decide``); of too few relations, those of their items."""
    counts, n, trail, rule = unit.counts, unit.counts.n_items, unit.trail, unit.rule(policy)
    b, c = counts.n_lost, counts.n_gained
    if trail.is_complete:
        method, (low, high) = "tango", loss_interval_with_spread(b, c, n, policy.interval_level, unit.spread)
        proven = loss_limit_with_spread(b, c, n, full_level_pass(rule), unit.spread)
    else:
        method, (low, high) = "betting", anytime_interval(*trail.cumulative, policy.interval_level)
        proven = anytime_limit(*trail.cumulative, policy.pass_level * policy.early.pass_share)
    evidence = Evidence(
        counts=counts,
        accuracy_baseline=wilson(unit.n_correct_before, n, policy.interval_level),
        accuracy_candidate=wilson(unit.n_correct_before - b + c, n, policy.interval_level),
        loss=Estimate(counts.loss, low, high, policy.interval_level, method),
        retention=retention(counts, unit.n_correct_before, policy.interval_level),
        m0=rule.m0,
        m1=rule.m1,
        p_fail=unit.p_fail(policy),
        p_pass=unit.p_pass(policy),
        level_fail=rule.level_fail,
        level_pass=rule.level_pass,
        sigma_recompression=unit.spread.sigma,
        proven_margin=proven,
        min_detectable_loss=minimal_detectable_loss(
            trail.n_planned,
            flip_rate=(b + c) / n,
            margin=rule.m0,
            level=full_level_fail(rule),
            power=policy.power,
            sigma=unit.spread.sigma,
            df=unit.spread.df,
        ),
        items_needed=None,
        n_planned=trail.n_planned,
    )
    return evidence if unit.clustered is None or unit.few is not None else _of_clusters(evidence, unit, unit.clustered, policy)


def _of_clusters(by_items: Evidence, unit: Unit, clustered: ClusteredItems, policy: Policy) -> Evidence:
    """The same for clusters like these."""
    counts, drawn, rule = clustered.counts, clustered.resampled, unit.rule(policy)
    return replace(
        by_items,
        accuracy_baseline=drawn.accuracy_before(by_items.accuracy_baseline),
        accuracy_candidate=drawn.accuracy_now(by_items.accuracy_candidate),
        loss=drawn.loss(counts, policy.interval_level, unit.spread),
        retention=drawn.retention(by_items.retention),
        proven_margin=loss_limit_clustered(counts, full_level_pass(rule), unit.spread),
        min_detectable_loss=detectable_loss_clustered(
            counts, margin=rule.m0, level=full_level_fail(rule), power=policy.power, spread=unit.spread
        ),
        n_clusters=counts.n_clusters,
        n_clustered=int(counts.n_items.sum()),
    )


def _gain_is_significant(unit: Unit) -> bool:
    """Mid-p McNemar; a re-compressed cell must also gain more than re-compressing alone explains, and clusters more than they
    differ by among each other."""
    lost, gained = unit.counts.n_lost, unit.counts.n_gained
    if not float(mcnemar_midp(gained, lost)) < unit.level_fail:
        return False
    if unit.clustered is not None:
        return float(p_loss_below_clustered(unit.clustered.counts, 0.0, unit.spread)) < unit.level_fail
    return float(p_loss_below(lost, gained, unit.counts.n_items, 0.0, unit.spread)) < unit.level_fail


def _items_needed(unit: Unit, policy: Policy) -> int | None:
    """How many more items would decide at the flip rates seen; None where no number would (too wide a spread)."""
    n, spread = unit.counts.n_items, unit.spread
    level = full_level_fail(unit.rule(policy))
    to_fail = items_to_fail(unit.counts, unit.m0(), level, spread.sigma, spread.df)
    to_fail = _of_relations(unit, to_fail, unit.counts.loss - unit.m0(), level)
    to_pass = _items_to_pass(unit, policy, n)
    found = [items for items in (to_fail, to_pass) if items is not None]
    return max(1, min(found) - n) if found else None


def _items_to_pass(unit: Unit, policy: Policy, n_items: int) -> int | None:
    """The N that passes at its own m1, which shrinks to its floor as N grows."""
    for _ in range(50):
        level, spread = full_level_pass(unit.rule(policy)), unit.spread
        wanted = items_to_pass(unit.counts, unit.m1(n_items), level, spread.sigma, spread.df)
        margin = unit.m1(n_items)
        scale = 1.0 if unit.clustered is None else float(null_scale(unit.clustered.counts, margin))
        wanted = _of_relations(unit, wanted, margin - unit.counts.loss, level, scale)
        if wanted is None or wanted <= n_items:
            return None if wanted is None else n_items
        n_items = wanted
    return n_items


def _of_relations(unit: Unit, n_items: int | None, distance: float, level: float, scale: float = 1.0) -> int | None:
    """So many items, or as many as it takes in more relations like these, where relations stand for others."""
    if unit.clustered is None or n_items is None:
        return n_items
    times = times_to_prove(unit.clustered.counts, distance, level, unit.spread, scale)
    return None if times is None else max(n_items, math.ceil(times * unit.counts.n_items))


def full_level_fail(rule: Rule) -> float:
    """What is left of the level for the test at full N."""
    return rule.level_fail * (1 - rule.early_fail_share)


def full_level_pass(rule: Rule) -> float:
    """What is left of the level for the test at full N."""
    return rule.level_pass * (1 - rule.early_pass_share)
