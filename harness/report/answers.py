"""Forgotten or displaced, for every recovered cell and task of a run: its dense model, its compressed sibling and the dense
model under the same recovery put beside it, item by item.

Descriptive, not judged: no verdict hangs on these numbers, and their intervals are not corrected for how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.core.digest import digest_text
from harness.core.records import Cell, CellRun, Outcomes, TaskRun
from harness.report.bundle import RunBundle
from harness.stats.answer import Answer, answer
from harness.stats.attribution import LostItems, split_lost

LEVEL = 0.95

TUNING = "lora"
"""The recovery method that adds weights: what only it brings back was learnt again."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One task of a recovered cell. ``answer`` is None where a run is missing, and ``missing`` says which; ``lost`` are the
    lost items by what brings them back, None for LoRA itself and without a LoRA cell beside a prompted one."""

    cell: Cell
    task: str
    method: str
    answer: Answer | None
    lost: LostItems | None
    missing: str


def find_answers(bundle: RunBundle) -> Iterator[Answered]:
    """Every task of every recovered compressed cell, in the bundle's order."""
    runs = {entry.record.cell: entry for entry in bundle.cells if isinstance(entry, CellRun)}
    for cell, run in runs.items():
        if cell.sibling is not None and cell.compression != "none":
            yield from (_answered(bundle, runs, run, name) for name in run.runs)


def _answered(bundle: RunBundle, runs: Mapping[Cell, CellRun], recovered: CellRun, name: str) -> Answered:
    cell, method, task = recovered.record.cell, recovered.record.recovery_method, recovered.runs[name]
    beside = {
        "dense": _dense(bundle, cell, name),
        "compressed": _outcomes(runs, Cell(cell.model, cell.compression, "none"), name),
        "control": _outcomes(runs, Cell(cell.model, "none", cell.recovery), name),
    }
    right = {who: right_on(task, outcomes) for who, outcomes in beside.items()}
    dense, compressed = right["dense"], right["compressed"]
    missing = _missing(cell, task, dense is not None, compressed is not None)
    if missing or dense is None or compressed is None:
        return Answered(cell, name, method, None, None, missing)
    now = task.outcomes.correct
    rng = np.random.default_rng(int(digest_text(f"answer:{cell.id}:{name}")[:12], 16))
    made = answer(dense, compressed, now, right["control"], chance=task.info.chance, level=LEVEL, rng=rng)
    tuned = None if method == TUNING else _tuned(runs, cell, task)
    return Answered(cell, name, method, made, None if tuned is None else split_lost(dense, compressed, now, tuned), "")


def _missing(cell: Cell, task: TaskRun, has_dense: bool, has_compressed: bool) -> str:
    """Which of the runs that an answer needs is not there; empty where all are."""
    if len(task.outcomes) < task.info.n_items:
        return "it was decided early, and a part of its items is no fair sample: measure it in full (--harness-full)"
    if not has_compressed:
        return f"{Cell(cell.model, cell.compression, 'none').id} was not measured on the same items in this run"
    if not has_dense:
        return f"{cell.dense.id} was not asked the same items"
    return ""


def _dense(bundle: RunBundle, cell: Cell, name: str) -> Outcomes | None:
    found = bundle.dense.get(cell.model)
    return None if found is None else found.outcomes.get(name)


def _outcomes(runs: Mapping[Cell, CellRun], cell: Cell, name: str) -> Outcomes | None:
    return runs[cell].runs[name].outcomes if cell in runs and name in runs[cell].runs else None


def _tuned(runs: Mapping[Cell, CellRun], cell: Cell, task: TaskRun) -> np.ndarray | None:
    """Which items the first LoRA cell over the same compression has right; None without one."""
    for other, run in runs.items():
        if (other.model, other.compression) == (cell.model, cell.compression) and run.record.recovery_method == TUNING:
            return right_on(task, _outcomes(runs, other, task.info.name))
    return None


def right_on(task: TaskRun, outcomes: Outcomes | None) -> np.ndarray | None:
    """Whether each item of a task's run is right in other outcomes; None where these lack one of them."""
    if outcomes is None:
        return None
    place = {digest: i for i, digest in enumerate(outcomes.digests)}
    places = [place.get(digest) for digest in task.outcomes.digests]
    return None if None in places else np.asarray(outcomes.correct[np.array(places, dtype=np.intp)])
