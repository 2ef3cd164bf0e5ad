"""What a cell kept of its dense model's knowledge: computed here because the gate compares with baselines only.

Descriptive, not judged: no verdict hangs on these numbers, and their intervals are not corrected for how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.records import CellRun, Outcomes
from harness.core.verdicts import POOLED, Estimate, NotEstimable, PairedCounts, Status
from harness.report.bundle import Reference, RunBundle
from harness.report.pairs import count_pairs, same_items
from harness.stats.intervals import wilson
from harness.stats.paired import tango_interval
from harness.stats.retention import retention

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class DenseComparison:
    """One case of a cell beside its dense model on the same items; ``loss`` is positive when the cell knows less."""

    counts: PairedCounts
    n_right_dense: int
    accuracy_dense: Estimate
    accuracy_candidate: Estimate
    loss: Estimate
    retention: Estimate | NotEstimable


def accuracy_of(outcomes: Outcomes) -> Estimate | None:
    """What share of its items a run got right; None without items."""
    return wilson(int(outcomes.correct.sum()), len(outcomes), LEVEL) if len(outcomes) else None


def compare_dense(bundle: RunBundle, run: CellRun) -> dict[str, DenseComparison]:
    """Every task of a cell, and its pool where it can be rebuilt, beside the dense model; empty for the dense cell itself.

    A task is left out where the dense model was not asked the same items. The pool is left out where one of its tasks is, or
    where the gate pooled other items than these (it caps large tasks).
    """
    dense = bundle.dense.get(run.record.cell.model)
    if dense is None or run.record.cell.is_dense:
        return {}
    pairs = {name: found for name in run.runs if (found := _pairs(run, dense, name)) is not None}
    made = {name: _compare(counts, n_right) for name, (counts, n_right) in pairs.items()}
    verdict = bundle.verdict_of(run.record.cell.id)
    if verdict is None or verdict.pooled is None or verdict.pooled.evidence is None:
        return made
    silent = {case.task for case in verdict.tasks if case.status is Status.UNINFORMATIVE}
    names = [name for name, task in run.runs.items() if task.info.pooled and name not in silent]
    counts = [pairs[name] for name in names if name in pairs]
    if counts and sum(c.n_items for c, _ in counts) == verdict.pooled.evidence.counts.n_items:
        total = PairedCounts(*(sum(getattr(c, part) for c, _ in counts) for part in ("n_lost", "n_gained", "n_unchanged")))
        made[POOLED] = _compare(total, sum(n_right for _, n_right in counts))
    return made


def _pairs(run: CellRun, dense: Reference, name: str) -> tuple[PairedCounts, int] | None:
    was, now = dense.outcomes.get(name), run.runs[name].outcomes
    if was is None or len(now) == 0 or not same_items(now, was):
        return None
    return count_pairs(now, was), int(was.correct.sum())


def _compare(counts: PairedCounts, n_right: int) -> DenseComparison:
    low, high = tango_interval(counts.n_lost, counts.n_gained, counts.n_items, LEVEL)
    return DenseComparison(
        counts=counts,
        n_right_dense=n_right,
        accuracy_dense=wilson(n_right, counts.n_items, LEVEL),
        accuracy_candidate=wilson(n_right - counts.n_lost + counts.n_gained, counts.n_items, LEVEL),
        loss=Estimate(counts.loss, low, high, LEVEL, "tango"),
        retention=retention(counts, n_right, LEVEL),
    )
