"""What a cell kept of its dense model's knowledge: computed here because the gate compares with baselines only.

Descriptive, not judged: no verdict hangs on these numbers, and their intervals are not corrected for how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellRun, TaskRun
from harness.core.verdicts import POOLED, Estimate, NotEstimable, PairedCounts, Status
from harness.gate.clusters import ALONE, ClusteredItems, FewRelations
from harness.report.bundle import RunBundle
from harness.report.pairs import Pair, clusters_of, compared, count_changes, kl_nats
from harness.stats.clusters import FEWEST_CLUSTERS
from harness.stats.intervals import wilson
from harness.stats.paired import tango_interval
from harness.stats.retention import retention

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class DenseComparison:
    """One case of a cell beside its dense model on the same items; ``loss`` is positive when the cell knows less. ``kl_nats``:
    the mean of KL(dense || cell) over each item's options, None where none compete (and for the pool).

    Intervals are those of the items, and of relations like these where relations stand for others: there the retention is
    NotEstimable of fewer than ten, and the other intervals are of these items alone.
    """

    counts: PairedCounts
    n_right_dense: int
    accuracy_dense: Estimate
    accuracy_candidate: Estimate
    loss: Estimate
    retention: Estimate | NotEstimable
    kl_nats: float | None = None


def accuracy_of(outcomes: Outcomes) -> Estimate | None:
    """What share of its items a run got right, with Wilson's interval over items; None without items."""
    return wilson(int(outcomes.correct.sum()), len(outcomes), LEVEL) if len(outcomes) else None


def accuracy_in(bundle: RunBundle, cell: Cell, run: TaskRun) -> Estimate | None:
    """As ``accuracy_of``, for relations like these where ten or more stand for others."""
    by_items, clusters = accuracy_of(run.outcomes), clusters_of(bundle, cell, run)
    if by_items is None or (clusters == ALONE).all():
        return by_items
    clustered = ClusteredItems(run.outcomes.correct, run.outcomes.correct, clusters)
    return by_items if clustered.few is not None else clustered.resampled.accuracy_now(by_items)


@lru_cache(maxsize=1)
def compared_dense(bundle: RunBundle) -> Mapping[str, Mapping[str, DenseComparison]]:
    """By cell, what ``compare_dense`` finds. Kept for the bundle at hand: several parts of its report ask for it."""
    runs = (entry for entry in bundle.cells if isinstance(entry, CellRun))
    return {run.record.cell.id: compare_dense(bundle, run) for run in runs}


def compare_dense(bundle: RunBundle, run: CellRun) -> dict[str, DenseComparison]:
    """Every task of a cell, and its pool where it can be rebuilt, beside the dense model; empty for the dense cell itself.

    A task is left out where the dense model was not asked the same items. The pool is left out where one of its tasks is, or
    where a run of all items was pooled otherwise by the gate.
    """
    cell = run.record.cell
    if cell.is_dense:
        return {}
    found = {name: compared(bundle)[cell.id, name].pairs.get("dense model") for name in run.runs}
    pairs = {name: (one.was_right, one.run.outcomes.correct) for name, one in found.items() if one is not None}
    clusters = {name: clusters_of(bundle, cell, run.runs[name]) for name in pairs}
    made = {
        name: replace(_compare(*pairs[name], clusters[name]), kl_nats=_mean_kl(one))
        for name, one in found.items()
        if one is not None
    }
    verdict = bundle.verdict_of(cell.id)
    if verdict is None or verdict.pooled is None or verdict.pooled.evidence is None:
        return made
    silent = {case.task for case in verdict.tasks if case.status is Status.UNINFORMATIVE}
    names = [name for name, task in run.runs.items() if task.info.pooled and name not in silent]
    if not names or any(name not in pairs for name in names):
        return made
    kept = [_in_pool(bundle, run.runs[name]) for name in names]
    was, now = (np.concatenate([pairs[name][i][part] for name, part in zip(names, kept, strict=True)]) for i in (0, 1))
    evidence = verdict.pooled.evidence
    if len(now) == evidence.counts.n_items or evidence.counts.n_items < evidence.n_planned:
        in_pool = [clusters[name][part] for name, part in zip(names, kept, strict=True)]
        made[POOLED] = _compare(was, now, np.concatenate(in_pool))
    return made


def _in_pool(bundle: RunBundle, run: TaskRun) -> np.ndarray:
    """Which of a task's items the gate pools: at most ``pool_cap``, those of its baseline's smallest digests; all of a
    limited run of no more."""
    known = bundle.baselines[run.cell].outcomes[run.info.name].digests if run.cell in bundle.baselines else ()
    if bundle.pool_cap is None or min(len(known), run.info.n_items) <= bundle.pool_cap:
        return np.ones(len(run.outcomes), dtype=np.bool_)
    last = sorted(known)[bundle.pool_cap - 1]
    return np.array([digest <= last for digest in run.outcomes.digests], dtype=np.bool_)


def _mean_kl(made: Pair) -> float | None:
    found = kl_nats(made)
    return None if found is None else float(found.mean())


def _compare(was: np.ndarray, now: np.ndarray, clusters: np.ndarray) -> DenseComparison:
    counts, n_right = count_changes(was, now), int(was.sum())
    low, high = tango_interval(counts.n_lost, counts.n_gained, counts.n_items, LEVEL)
    by_items = DenseComparison(
        counts=counts,
        n_right_dense=n_right,
        accuracy_dense=wilson(n_right, counts.n_items, LEVEL),
        accuracy_candidate=wilson(n_right - counts.n_lost + counts.n_gained, counts.n_items, LEVEL),
        loss=Estimate(counts.loss, low, high, LEVEL, "tango"),
        retention=retention(counts, n_right, LEVEL),
    )
    return by_items if (clusters == ALONE).all() else _of_clusters(by_items, ClusteredItems(was, now, clusters))


def _of_clusters(by_items: DenseComparison, clustered: ClusteredItems) -> DenseComparison:
    """The same for relations like these, as the gate's evidence is."""
    if clustered.few is not None:
        return replace(by_items, retention=NotEstimable(_too_few(clustered.few)))
    drawn = clustered.resampled
    return replace(
        by_items,
        accuracy_dense=drawn.accuracy_before(by_items.accuracy_dense),
        accuracy_candidate=drawn.accuracy_now(by_items.accuracy_candidate),
        loss=drawn.loss(clustered.counts, LEVEL),
        retention=drawn.retention(by_items.retention),
    )


def _too_few(few: FewRelations) -> str:
    asked = f"only {few.n_relations} of the relations that stand for others were asked"
    return f"{asked}, and fewer than {FEWEST_CLUSTERS} say nothing of the rest"
