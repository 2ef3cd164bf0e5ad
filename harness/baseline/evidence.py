"""What makes measured runs, or a record that tells of them, evidence enough for a baseline; EvidenceError says what lacks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.baseline.noise import MIN_NOISE_RUNS, Noise, NoiseRun, Repeat, make_noise
from harness.baseline.record import Baseline, BaselineRecord
from harness.core.command import propose_command
from harness.core.errors import ConfigError, EvidenceError
from harness.core.records import Cell, CellRecord, CellRun, TaskInfo, TaskRun

_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")


def require_measured(repeats: Sequence[Repeat], declared_tasks: Sequence[str]) -> None:
    """Refuse A/A runs that are no evidence: failed, partial, limited, taken from a baseline, too few, not of one thing.

    Raises EvidenceError; ConfigError for names that can't be files.
    """
    runs = [repeat.measured() for repeat in repeats]
    if not runs:
        raise EvidenceError("nothing was measured, so nothing can become a baseline: measure a cell first.")
    for run in runs:
        _require_run(run, declared_tasks)
        _require_same(_Asked.by_run(runs[0]), run)
    _require_labels(runs[0].record.cell.id, [repeat.label for repeat in repeats])


def require_noise_of(accepted: Baseline, repeats: Sequence[Repeat]) -> NoiseRun:
    """Refuse runs that don't show the noise of an accepted baseline; returns its stored run, one of the A/A runs beside them.

    Raises EvidenceError.
    """
    made = accepted.record
    if made.noise is None:
        raise EvidenceError(_too_few(made.cell.id, 0))
    for run in [repeat.measured() for repeat in repeats]:
        _require_run(run, list(made.tasks))
        _require_same(_Asked.by_baseline(made), run)
    stored = made.noise.runs[0]
    _require_labels(made.cell.id, [stored.label, *(repeat.label for repeat in repeats)])
    return stored


def require_proven(made: BaselineRecord, declared_tasks: Sequence[str]) -> None:
    """Refuse a record that tells of too little evidence, or of noise that its own runs don't show. Raises EvidenceError."""
    cell = made.cell.id
    _require_tasks(cell, list(made.tasks), declared_tasks)
    for name, task in made.tasks.items():
        if task.info.limit is not None:
            raise EvidenceError(_limited(cell, name, task.info.n_items))
    if made.noise is None:
        raise EvidenceError(_too_few(cell, 0))
    _require_labels(cell, [run.label for run in made.noise.runs])
    sizes = {name: task.info.n_items for name, task in made.tasks.items()}
    _require_noise_runs(cell, made.noise.runs, sizes)
    stored = made.noise.runs[0]
    accuracy = {name: task.n_correct / task.info.n_items for name, task in made.tasks.items()}
    shown = make_noise(made.noise.runs, sizes, [name for name, task in made.tasks.items() if task.info.pooled])
    if not (_agree(accuracy, stored.accuracy) and not any(stored.n_flips.values()) and _agree_all(made.noise, shown)):
        raise EvidenceError(
            f"the noise that the baseline of {cell} states is not what its A/A runs show: it was edited; make it again with "
            f"{propose_command(cell)}."
        )


def require_reason(cell: str, reason: str) -> None:
    """Refuse a baseline that nobody says why."""
    if not reason.strip():
        raise EvidenceError(f"a baseline of {cell} needs a reason: say in a sentence why it is what later runs must keep.")


def _require_run(run: CellRun, declared_tasks: Sequence[str]) -> None:
    cell = run.record.cell.id
    for name in (run.record.profile, *run.runs):
        if not _FILE_NAME.fullmatch(name):
            raise ConfigError(f"{name!r} can't name a baseline's folder or file: use letters, digits, '_', '-' and '.'.")
    _require_tasks(cell, list(run.runs), declared_tasks)
    for name, task in run.runs.items():
        _require_task(cell, name, task)


def _require_task(cell: str, name: str, task: TaskRun) -> None:
    if task.origin == "baseline":
        raise EvidenceError(
            f"{cell}-{name} was not measured, its outcomes are those of the present baseline: a baseline is no evidence "
            "for itself; measure it afresh (--harness-fresh)."
        )
    if task.info.limit is not None or len(task.outcomes) != task.info.n_items:
        raise EvidenceError(_limited(cell, name, len(task.outcomes)))
    if len(task.outcomes) == 0 or len(set(task.outcomes.digests)) != len(task.outcomes):
        raise EvidenceError(f"{cell}-{name} holds no item, or one twice: its items were mixed; measure it again.")


def _require_tasks(cell: str, names: Sequence[str], declared_tasks: Sequence[str]) -> None:
    left_out = [name for name in declared_tasks if name not in names]
    if left_out or not names:
        raise EvidenceError(
            f"the run of {cell} left out {', '.join(left_out) or 'every task'}: a baseline holds all tasks of its cell; "
            "run it without -k on tasks."
        )


def _require_labels(cell: str, labels: Sequence[str]) -> None:
    if len(labels) < MIN_NOISE_RUNS:
        raise EvidenceError(_too_few(cell, len(labels)))
    if len(set(labels)) != len(labels):
        raise EvidenceError(f"two A/A runs of {cell} have the same label: the same run twice is no spread.")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What all A/A runs of a cell have in common: the cell, its tasks, the model, and how it was compressed."""

    cell: Cell
    profile: str
    tasks: Mapping[str, TaskInfo]
    scorers: Mapping[str, str]
    source: tuple[str, ...]
    recipe: Mapping[str, Any]
    weights: str

    @classmethod
    def by_run(cls, run: CellRun) -> _Asked:
        tasks = {name: task.info for name, task in run.runs.items()}
        scorers = {name: task.scorer for name, task in run.runs.items()}
        return cls._of(run.record, tasks, scorers)

    @classmethod
    def by_baseline(cls, made: BaselineRecord) -> _Asked:
        tasks = {name: task.info for name, task in made.tasks.items()}
        return cls._of(made, tasks, {name: task.scorer for name, task in made.tasks.items()})

    @classmethod
    def _of(cls, made: CellRecord | BaselineRecord, tasks: Mapping[str, TaskInfo], scorers: Mapping[str, str]) -> _Asked:
        known, recipe = made.provenance, made.compression.recipe
        return cls(
            cell=made.cell,
            profile=made.profile,
            tasks=tasks,
            scorers=scorers,
            source=(known.dense_digest, known.config_digest, known.tokenizer_digest, known.recovery_digest),
            recipe={key: value for key, value in recipe.items() if key != "seed"},
            weights=known.weights_digest if made.compression.stability == "stable" else "",
        )


def _require_same(asked: _Asked, run: CellRun) -> None:
    found, cell = _Asked.by_run(run), asked.cell.id
    if replace(found, weights=asked.weights) != asked:
        words = ", ".join(
            part
            for part in ("cell", "profile", "tasks", "scorers", "source", "recipe")
            if getattr(found, part) != getattr(asked, part)
        )
        raise EvidenceError(
            f"the A/A runs of {cell} are not of one thing ({words} differ): something else than their noise was varied; "
            f"measure all of them again, {propose_command(cell)}."
        )
    if found.weights != asked.weights:
        raise EvidenceError(
            f"the compression of {cell} says that it gives the same weights each time, and gave {asked.weights[:12]} and "
            f"{found.weights[:12]}: if the recipe did not change, its method must declare itself re-compressed."
        )


def _require_noise_runs(cell: str, runs: Sequence[NoiseRun], sizes: Mapping[str, int]) -> None:
    for made in runs:
        if missing := [name for name in sizes if name not in made.accuracy or name not in made.n_flips]:
            raise EvidenceError(f"A/A run {made.label!r} of {cell} tells nothing about {', '.join(missing)}.")
        if not all(0 <= accuracy <= 1 for accuracy in made.accuracy.values()):
            raise EvidenceError(f"A/A run {made.label!r} of {cell} has an accuracy outside 0 to 1: {made.accuracy}.")
        if not all(0 <= made.n_flips[name] <= n_items for name, n_items in sizes.items()):
            raise EvidenceError(
                f"A/A run {made.label!r} of {cell} has more flips than items, or fewer than none: {made.n_flips}."
            )


def _agree_all(stated: Noise, shown: Noise) -> bool:
    return _agree(stated.sigma, shown.sigma) and _agree(stated.flip_rate, shown.flip_rate)


def _agree(stated: Mapping[str, float], shown: Mapping[str, float]) -> bool:
    return stated.keys() == shown.keys() and all(math.isclose(stated[k], shown[k], abs_tol=1e-12) for k in shown)


def _too_few(cell: str, n_runs: int) -> str:
    return (
        f"a baseline of {cell} needs at least {MIN_NOISE_RUNS} A/A runs to know what it moves by when nothing changes, "
        f"{n_runs} came; {propose_command(cell)} makes them."
    )


def _limited(cell: str, name: str, n_items: int) -> str:
    return f"{cell}-{name} was measured on a part of its items ({n_items}): run it without --harness-limit."
