"""What may be worth a look and decides nothing: cells less sure of their right answers, tasks and relations that lost more.

**Early warnings**: a paired t on sigmoid(margin), one of each task and pool, each at its part of 5 % a run (Bonferroni). A
model may grow less sure long before an answer flips; a harmless flattening of all logits by 2 % fires it, too. **Suspects**:
mid-p McNemar of every task, and of every relation, against its baseline; of those listed one in ten is expected to be chance
(Benjamini-Hochberg). No verdict rests on either, and cells whose weights are the baseline's have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtrit

from harness.core.records import CellRun
from harness.core.verdicts import POOLED, Estimate, Status
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.pairs import Compared, Pair, clusters_of, compared
from harness.stats.clusters import FEWEST_CLUSTERS, Alone, Scores, p_mean_above
from harness.stats.continuous import paired_t, soft_losses
from harness.stats.multiplicity import benjamini_hochberg
from harness.stats.paired import mcnemar_midp

WARNED = 0.05
"""How often a run in which no cell grew less sure shows any early warning."""

FALSE_SUSPECTS = 0.10
"""The share of the suspects that is expected to be chance."""

MOST_LINES = 5
"""Early warnings that a terminal shows."""

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class EarlyWarning:
    """A task, or a cell's pooled tasks, that gives its right answers a smaller share than its baseline did.

    ``less_sure``: the mean of sigmoid(margin) before - now, in (-1, 1). ``n_clusters``: relations that stand for others.
    """

    cell: str
    task: str
    n_items: int
    less_sure: Estimate
    p: float
    level: float
    n_clusters: int | None

    @property
    def sentence(self) -> str:
        """One line for people."""
        size = fmt.points(self.less_sure.value, 2, signed=False)
        return (
            f"{self.cell}-{self.task}: less sure of its right answers than the baseline by {size} on "
            f"{fmt.count(self.n_items)} items (p {fmt.p_value(self.p)}): an early warning, never part of a verdict"
        )


@dataclass(frozen=True, slots=True)
class Suspect:
    """A task, or a relation of one, that lost more than it gained; ``p_adjusted`` is at most ``FALSE_SUSPECTS``."""

    cell: str
    task: str
    relation: str | None
    n_items: int
    n_lost: int
    n_gained: int
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class Hints:
    """All of them, the most striking first, and among how many they were found."""

    warnings: tuple[EarlyWarning, ...]
    tasks: tuple[Suspect, ...]
    relations: tuple[Suspect, ...]
    n_margins: int
    n_tasks: int
    n_relations: int


@lru_cache(maxsize=1)
def hints(bundle: RunBundle) -> Hints:
    """What a run gives reason to look at. Kept for the bundle at hand."""
    margins = list(_margins(bundle))
    found = [one for one in (_warning(*each, WARNED / len(margins)) for each in margins) if one is not None]
    tasks, relations = list(_tasks(bundle)), list(_relations(bundle))
    return Hints(
        warnings=tuple(sorted(found, key=lambda one: one.p)),
        tasks=_suspects(tasks),
        relations=_suspects(relations),
        n_margins=len(margins),
        n_tasks=len(tasks),
        n_relations=len(relations),
    )


def early_warnings(bundle: RunBundle) -> tuple[str, ...]:
    """A line for each of the first early warnings, for a terminal, and one that counts the others."""
    found = hints(bundle).warnings
    more = [f"{fmt.plural(len(found) - MOST_LINES, 'more early warning')} in the report"] if len(found) > MOST_LINES else []
    return (*(one.sentence for one in found[:MOST_LINES]), *more)


def _changed(bundle: RunBundle) -> Iterator[tuple[CellRun, dict[str, tuple[Compared, Pair]]]]:
    """Cells whose weights or recovery are not the baseline's, with their tasks of right and wrong answers.

    Where a verdict compared nothing (another scorer, tie rule or version of the data), a hint would compare no more.
    """
    for entry in bundle.cells:
        known = bundle.baselines.get(entry.record.cell.id) if isinstance(entry, CellRun) else None
        if known is None or not isinstance(entry, CellRun):
            continue
        was, now = known.provenance, entry.record.provenance
        if (was.weights_digest, was.recovery_digest) == (now.weights_digest, now.recovery_digest):
            continue
        judged = bundle.verdict_of(entry.record.cell.id)
        invalid = {one.task for one in judged.tasks if one.status is Status.INVALID} if judged is not None else set()
        able = {}
        for name, run in entry.runs.items():
            one = compared(bundle)[entry.record.cell.id, name]
            pair = one.pairs.get("baseline")
            if pair is not None and name not in invalid and run.info.score_class != "perplexity":
                able[name] = one, pair
        yield entry, able


# ------------------------------------------------------------------------------------------------ early warnings


def _margins(bundle: RunBundle) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Cell, task, how much less sure of each item, and the item's relation (-1: none that stands for others)."""
    for entry, able in _changed(bundle):
        pool = []
        for name, (one, pair) in able.items():
            losses = soft_losses(pair.reference.margins_nats[pair.places], one.run.outcomes.margins_nats)
            if len(losses) < 2 or not losses.any():
                continue
            each = losses, clusters_of(bundle, entry.record.cell, one.run)
            pool += [each] if one.run.info.pooled else []
            yield entry.record.cell.id, name, *each
        if len(pool) > 1:
            losses, clusters = (np.concatenate(column) for column in zip(*pool, strict=True))
            yield entry.record.cell.id, POOLED, losses, clusters


def _warning(cell: str, task: str, losses: np.ndarray, clusters: np.ndarray, level: float) -> EarlyWarning | None:
    by_items = paired_t(losses, 0.0, LEVEL)
    p, estimate, n_clusters = by_items.p_above, by_items.mean, None
    apart = clusters < 0
    places = np.unique(clusters[~apart], return_inverse=True)[1]
    if len(places) and places.max() + 1 < FEWEST_CLUSTERS:
        return None  # too few relations were asked to say anything of others like them
    if len(places):
        alone = Alone(float(losses[apart].sum()), float((losses[apart] ** 2).sum()), int(apart.sum()))
        scores = Scores(np.bincount(places, weights=losses[~apart]), np.bincount(places), alone)
        p, n_clusters = max(p, float(p_mean_above(scores, 0.0))), len(scores.n_items)
        half = float(stdtrit(scores.df, (1 + LEVEL) / 2)) * math.sqrt(float(scores.moments()[1]))
        estimate = Estimate(estimate.value, estimate.value - half, estimate.value + half, LEVEL, "cluster t")
    return EarlyWarning(cell, task, len(losses), estimate, p, level, n_clusters) if p < level else None


# ------------------------------------------------------------------------------------------------ suspects


def _tasks(bundle: RunBundle) -> Iterator[Suspect]:
    for entry, able in _changed(bundle):
        for name, (one, _) in able.items():
            lost, gained = (int(side.sum()) for side in one.flipped)
            yield Suspect(entry.record.cell.id, name, None, len(one.run.outcomes), lost, gained, 1.0)


def _relations(bundle: RunBundle) -> Iterator[Suspect]:
    for entry, able in _changed(bundle):
        for name, (one, _) in able.items():
            if len(one.groups) > 1:
                for group, lost, gained in zip(one.groups, *(side.tolist() for side in one.flipped), strict=True):
                    yield Suspect(entry.record.cell.id, name, group.group, group.n_items, lost, gained, 1.0)


def _suspects(tested: Sequence[Suspect]) -> tuple[Suspect, ...]:
    if not tested:
        return ()
    p = mcnemar_midp(np.array([one.n_lost for one in tested]), np.array([one.n_gained for one in tested]))
    adjusted = benjamini_hochberg(np.asarray(p))
    found = [
        Suspect(one.cell, one.task, one.relation, one.n_items, one.n_lost, one.n_gained, float(adjusted[i]))
        for i, one in enumerate(tested)
        if adjusted[i] <= FALSE_SUSPECTS
    ]
    return tuple(sorted(found, key=lambda one: (one.p_adjusted, -one.n_lost + one.n_gained)))
