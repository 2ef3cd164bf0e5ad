"""Verdicts as sentences for people: what happened, how sure that is, what to do. Points are hundredths of all items."""

from __future__ import annotations

from harness.core.command import propose_command
from harness.core.verdicts import Anchor, Estimate, Evidence, PairedCounts, RecoveryEvidence, Status
from harness.gate.clusters import FewRelations
from harness.stats.clusters import FEWEST_CLUSTERS

_TOO_FEW = (
    f"fewer than {FEWEST_CLUSTERS} prove nothing about others like them: ask more items (the run's limit or the policy's "
    "pool_cap_items cuts them off)."
)


def explain(cell: str, task: str, status: Status, evidence: Evidence, anchor: Anchor = "last") -> str:
    """The sentence of a decided unit.

    The command in it accepts the present state, for losses that were meant.
    """
    accept = (
        "raise max_loss of its [[dense_floor]] in the policy" if anchor == "dense" else propose_command(cell, loosens=True)
    )
    what = f"{task} {_changed(evidence.loss.value)} ({_interval(evidence.loss)}; {_flips(evidence)})"
    if status is Status.REGRESSED:
        return (
            f"{what}: a loss above the {points(evidence.m0)} pt margin is proven (p {evidence.p_fail:.1g} < "
            f"{evidence.level_fail:.1g}). Look at the lost items in the report; if the loss is meant, {accept}."
        )
    if status is Status.IMPROVED:
        return (
            f"{what}: a loss of {points(evidence.m1)} pt or more is excluded and the gain is significant. "
            f"{propose_command(cell, replaces=True)} makes it the new baseline; nothing moved by itself."
        )
    if status is Status.PASS:
        p = f"p {evidence.p_pass:.1g} < {evidence.level_pass:.1g}"
        return f"{what}: a loss of {points(evidence.m1)} pt or more is excluded ({p})."
    between = f"neither a loss above {points(evidence.m0)} pt nor one below {points(evidence.m1)} pt is proven"
    return f"{what}: {between}; {_more(evidence)}"


def explain_identical(task: str, evidence: Evidence, reused: bool) -> str:
    """The sentence of a unit in which nothing changed."""
    if reused:
        return f"{task}: the weights, recovery, engine, scorer and items are the baseline's, so its outcomes hold unmeasured."
    return (
        f"{task}: not one of {evidence.counts.n_items:,} items flipped; about other items of the kind this proves "
        f"a loss below {points(evidence.proven_margin)} pt."
    )


def explain_cut_off(task: str, n_fed: int, n_all: int) -> str:
    """The sentence of a run that stopped before the gate could decide, by this policy."""
    return (
        f"{task}: only {n_fed:,} of {n_all:,} items were measured and they do not decide it under this policy: run the cell "
        "again (what was measured is stored)."
    )


def explain_stopped(task: str, n_fed: int, n_all: int) -> str:
    """The sentence of a task that was cut off because its cell had regressed."""
    return (
        f"{task}: the cell had regressed after {n_fed:,} of this task's {n_all:,} items, so "
        "the rest was not measured; --harness-full measures all."
    )


def explain_few_relations(task: str, counts: PairedCounts, few: FewRelations) -> str:
    """The sentence of a unit in which fewer relations that stand for others were asked than can prove anything about them."""
    what = f"{counts.n_lost:,} of {counts.n_items:,} items lost, {counts.n_gained:,} gained"
    return f"{task}: {what}, {in_relations(few.n_relations, few.n_items, counts.n_items)}: {_TOO_FEW}"


def explain_few_relations_of_recovery(sibling: str, n_items: int, few: FewRelations) -> str:
    """The same of a recovery over its ``sibling``."""
    return f"recovery over {sibling}: {n_items:,} items, {in_relations(few.n_relations, few.n_items, n_items)}: {_TOO_FEW}"


def explain_recovery(cell: str, sibling: str, status: Status, gain: RecoveryEvidence) -> str:
    """The sentence of a recovery that was compared: REGRESSED, PASS or INCONCLUSIVE."""
    early = f", decided early of {gain.n_planned:,}" if gain.n_items < gain.n_planned else ""
    noise = (
        f", re-compressing alone moves it by up to {points(gain.sigma_recompression)} pt" if gain.sigma_recompression else ""
    )
    where, of_more = _relations(gain, gain.n_items), _of_more(gain, gain.n_items)
    what = (
        f"recovery {_won_back(gain.loss.value)} ({_interval(gain.loss)}): {points(gain.gain_baseline)} pt over {sibling} in "
        f"the baseline, {points(gain.gain_candidate)} pt now, on {gain.n_items:,} items{where}{early}{noise}"
    )
    if status is Status.REGRESSED:
        return (
            f"{what}: that more than {points(gain.m0)} pt less is won back is proven (p {gain.p_fail:.1g} < "
            f"{gain.level_fail:.1g}). If that is meant, {propose_command(cell, loosens=True)}."
        )
    if status is Status.PASS:
        excluded = f"that {points(gain.m1)} pt less or worse is won back is excluded"
        return f"{what}: {excluded} (p {gain.p_pass:.1g} < {gain.level_pass:.1g})."
    more = (
        "no number of items that anyone would measure decides it at these rates."
        if gain.items_needed is None
        else f"about {gain.items_needed:,} more items{of_more} would decide, or a larger margin in the policy."
    )
    return f"{what}: neither a loss above {points(gain.m0)} pt of it nor one below {points(gain.m1)} pt is proven; {more}"


def explain_unchanged_recovery(sibling: str, n_items: int) -> str:
    """The sentence of a recovery where neither cell changed."""
    return f"recovery: not one of {n_items:,} items flipped, here or in {sibling}, so it wins back what it did."


def explain_uninformative(task: str, accuracy: Estimate, floor: float, margin: float) -> str:
    """The sentence of a task whose baseline knows too little to lose any of it."""
    return (
        f"{task}: the baseline's accuracy ({accuracy.value:.3f}, at least {accuracy.low:.3f}) is not clearly above what "
        f"guessing or always giving the commonest answer scores ({floor:.3f} + {margin:.3f}): this task cannot show a loss."
    )


def explain_perplexity(task: str) -> str:
    """The sentence of a perplexity, which is shown beside the tasks."""
    return (
        f"{task}: a perplexity is reported and not gated: it hardly moves where knowledge is lost, and moves where none is; "
        "the report shows it beside the tasks."
    )


def points(fraction: float | None) -> str:
    """A fraction of all items in points, with two decimals at most.

    >>> points(0.005), points(0.0382), points(-0.01), points(None)
    ('0.5', '3.82', '-1', 'unknown')
    """
    if fraction is None:
        return "unknown"
    text = f"{100 * fraction:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _changed(loss: float) -> str:
    if loss == 0:
        return "neither lost nor gained"
    return f"lost {points(loss)} pt" if loss > 0 else f"gained {points(-loss)} pt"


def _won_back(loss: float) -> str:
    if loss == 0:
        return "wins back as much as before"
    return f"wins back {points(abs(loss))} pt {'less' if loss > 0 else 'more'} than before"


def _interval(loss: Estimate) -> str:
    return f"{100 * loss.level:g} % interval of the loss {points(loss.low)} to {points(loss.high)} pt"


def _flips(evidence: Evidence) -> str:
    counts = evidence.counts
    noise = (
        f", re-compressing alone moves it by {points(evidence.sigma_recompression)} pt" if evidence.sigma_recompression else ""
    )
    early = f", decided early of {evidence.n_planned:,}" if counts.n_items < evidence.n_planned else ""
    where = _relations(evidence, counts.n_items)
    return f"{counts.n_lost:,} of {counts.n_items:,} items lost, {counts.n_gained:,} gained{where}{early}{noise}"


def _relations(evidence: Evidence | RecoveryEvidence, n_items: int) -> str:
    if evidence.n_clusters is None or evidence.n_clustered is None:
        return ""
    return ", " + in_relations(evidence.n_clusters, evidence.n_clustered, n_items)


def in_relations(n_relations: int, n_clustered: int, n_items: int) -> str:
    """Which of the items are in relations that stand for others; a pool may have tasks of both kinds."""
    which = "" if n_clustered == n_items else f"{n_clustered:,} of the items "
    noun = "relation that stands" if n_relations == 1 else "relations that stand"
    return f"{which}in {n_relations:,} {noun} for others"


def _more(evidence: Evidence) -> str:
    if evidence.items_needed is None and evidence.n_clusters is not None:
        return "no number of such relations that anyone would measure decides it."
    if evidence.items_needed is None and not evidence.sigma_recompression:
        return "the loss lies on the margin itself, where no number of items decides."
    if evidence.items_needed is None:
        return "no number of items would decide against this spread of re-compressions: use a reproducible method."
    items = "item" if evidence.items_needed == 1 else "items"
    of = _of_more(evidence, evidence.counts.n_items)
    return f"about {evidence.items_needed:,} more {items}{of} would decide, or a larger margin in the policy."


def _of_more(evidence: Evidence | RecoveryEvidence, n_items: int) -> str:
    if evidence.n_clusters is None:
        return ""
    return " in more such relations" if evidence.n_clustered == n_items else " of all tasks, in more such relations,"
