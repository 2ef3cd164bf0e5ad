"""A new baseline for a cell, with the evidence that it needs: fresh forward passes, and re-compressions where the method
moves by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.baseline import NoiseRun, WriteMode, Written, load_baseline, store_baseline
from harness.core.errors import BaselineError
from harness.core.records import CellRun
from harness.execution.candidate import Variant
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import CellPlan, Matrix
from harness.execution.progress import Progress
from harness.execution.store import Store

N_RECOMPRESSIONS = 3


def propose(
    matrix: Matrix,
    plan: CellPlan,
    *,
    options: MeasureOptions,
    store: Store,
    progress: Progress,
    root: Path,
    mode: WriteMode,
    reason: str,
) -> Written:
    """Measure a cell and write its baseline under ``root``, for review in version control.

    Nothing is taken over from the present baseline. A re-compressed cell is compressed ``N_RECOMPRESSIONS`` times with
    other calibration samples and thread counts; the run of median accuracy is stored, the spread goes with it.
    Raises HarnessError; what was measured stays in the store.
    """
    if mode == "add-new" and _has_baseline(root, plan):
        return "kept"
    tasks = tuple(plan.tasks)
    first = measure_cell(matrix, plan, tasks, options=options, store=store, progress=progress)
    if first.record.compression.stability == "stable":
        return store_baseline(root, first, mode=mode, reason=reason, declared_tasks=tasks)
    runs = [(_describe(first, Variant("as declared", _seed(plan), _threads(first))), first)]
    for variant in _variants(plan, first):
        progress.say(f"{plan.cell.id}: compressing again to measure its noise: {variant.label}")
        varied = replace(options, variant=variant)
        run = measure_cell(matrix, plan, tasks, options=varied, store=store, progress=progress)
        runs.append((_describe(run, variant), run))
    median = sorted(runs, key=lambda entry: (_pooled_accuracy(entry[1]), entry[0].label))[len(runs) // 2]
    return store_baseline(root, median[1], mode=mode, reason=reason, declared_tasks=tasks, noise=[noise for noise, _ in runs])


def _has_baseline(root: Path, plan: CellPlan) -> bool:
    try:
        return load_baseline(root, plan.profile, plan.cell) is not None
    except BaselineError:
        return True  # there is one, and it is broken: never overwritten by add-new


def _variants(plan: CellPlan, first: CellRun) -> list[Variant]:
    """Other calibration samples, every second one on another number of threads."""
    threads, seed = _threads(first), _seed(plan)
    other = 1 if threads > 1 else 2
    counts = [other if index % 2 else threads for index in range(1, N_RECOMPRESSIONS)]
    return [
        Variant(f"calibration sample {seed + index}, {count} threads", seed + index, count)
        for index, count in enumerate(counts, start=1)
    ]


def _seed(plan: CellPlan) -> int:
    return int(plan.compression[1].get("seed", 0))


def _threads(run: CellRun) -> int:
    return int(run.record.provenance.engine["threads"])


def _describe(run: CellRun, variant: Variant) -> NoiseRun:
    accuracy = {name: float(task.outcomes.correct.mean()) for name, task in run.runs.items()}
    return NoiseRun(label=variant.label, seed=variant.seed, threads=variant.threads, accuracy=accuracy)


def _pooled_accuracy(run: CellRun) -> float:
    pooled = [task.outcomes.correct for task in run.runs.values() if task.info.pooled]
    n_items = sum(map(len, pooled))
    return float(sum(int(correct.sum()) for correct in pooled) / n_items) if n_items else 0.0
