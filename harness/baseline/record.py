"""What a baseline is: a reviewable record, and the outcomes that its digests answer for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.baseline.compare import identity_differences
from harness.core.digest import digest_json
from harness.core.records import (
    SCHEMA_VERSION,
    Cell,
    CellRun,
    CompressionRecord,
    Outcomes,
    Provenance,
    TaskInfo,
    TaskRun,
    record,
)
from harness.core.serial import as_mapping
from harness.core.verdicts import POOLED

MIN_NOISE_RUNS = 3
"""Re-compressions below which their spread is no evidence (a standard deviation of two numbers says nothing)."""


@record
class NoiseRun:
    """One re-compression of the same recipe: what was varied, and the accuracy it had on each task."""

    label: str
    seed: int
    threads: int
    accuracy: dict[str, float]


@record
class Noise:
    """The spread of re-compressions. ``sigma`` is the standard deviation (ddof 1) of the accuracy, in fractions of all
    items: per task, and under "pooled" over the pooled tasks weighted by their items."""

    runs: tuple[NoiseRun, ...]
    sigma: dict[str, float]


@record
class BaselineTask:
    """One task of a baseline. ``outcomes_digest`` covers the content of its parquet file, not the file's bytes."""

    info: TaskInfo
    scorer: str
    n_correct: int
    outcomes_digest: str


@record
class BaselineRecord:
    """The reviewable part of a baseline. ``digest`` covers every other field, so that an edit shows."""

    schema_version: int
    cell: Cell
    profile: str
    compression: CompressionRecord
    provenance: Provenance
    tasks: dict[str, BaselineTask]
    noise: Noise | None
    reason: str
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """An accepted state of a cell: its record, and its outcomes by task name."""

    record: BaselineRecord
    outcomes: Mapping[str, Outcomes]

    def task_run(self, name: str) -> TaskRun:
        """A task as it was when the baseline was made, without the items' text."""
        task = self.record.tasks[name]
        return TaskRun(self.record.cell.id, task.info, (), self.outcomes[name], task.scorer, "baseline")

    def outcomes_if_identical(self, provenance: Provenance, info: TaskInfo, scorer: str) -> Outcomes | None:
        """The stored outcomes where measuring again could only repeat them: the same weights, recovery, tokenizer,
        engine, scorer, task and items. None otherwise."""
        task = self.record.tasks.get(info.name)
        if task is None or task.info != info or task.scorer != scorer:
            return None
        return None if identity_differences(self.record.provenance, provenance) else self.outcomes[info.name]


def make_baseline(run: CellRun, reason: str, noise_runs: Sequence[NoiseRun] = ()) -> Baseline:
    """A baseline of a measured cell; whether the run may become one is ``store_baseline``'s to say."""
    measured = run.record
    made = BaselineRecord(
        schema_version=SCHEMA_VERSION,
        cell=measured.cell,
        profile=measured.profile,
        compression=measured.compression,
        provenance=measured.provenance,
        tasks={
            name: BaselineTask(
                info=task.info,
                scorer=task.scorer,
                n_correct=int(task.outcomes.correct.sum()),
                outcomes_digest=digest_outcomes(task.outcomes),
            )
            for name, task in run.runs.items()
        },
        noise=_noise(run, tuple(noise_runs)) if noise_runs else None,
        reason=reason,
        digest="",
    )
    return Baseline(replace(made, digest=digest_record(made)), {name: task.outcomes for name, task in run.runs.items()})


def recompression_sigma(runs: Sequence[NoiseRun], n_items: Mapping[str, int]) -> float:
    """The spread (standard deviation, ddof 1) of accuracy over re-compressions, tasks weighted by ``n_items``.

    In fractions of all items.

    >>> runs = [NoiseRun(str(i), i, 1, {"facts": a}) for i, a in enumerate((0.40, 0.41, 0.42))]
    >>> round(recompression_sigma(runs, {"facts": 1000}), 6)
    0.01
    """
    weights = np.array(list(n_items.values()), dtype=np.float64)
    accuracies = np.array([[run.accuracy[name] for name in n_items] for run in runs], dtype=np.float64)
    return float(np.std(accuracies @ (weights / weights.sum()), ddof=1))


def digest_record(made: BaselineRecord) -> str:
    """The digest of a record's fields, but the digest itself."""
    return digest_json({key: value for key, value in as_mapping(made).items() if key != "digest"})


def digest_outcomes(outcomes: Outcomes) -> str:
    """The SHA-256 of outcomes as content: the same for any parquet writer, byte order or compression."""
    state = hashlib.sha256(f"outcomes {len(outcomes)}\n".encode())
    state.update("\n".join(outcomes.digests).encode())
    for column, kind in (
        (outcomes.correct, "|u1"),
        (outcomes.answers, "<i4"),
        (outcomes.ranks, "<i4"),
        (outcomes.margins_nats, "<f8"),
        (outcomes.near_ties, "|u1"),
    ):
        state.update(column.astype(kind).tobytes())
    for row in outcomes.option_logliks_nats or ():
        state.update(len(row).to_bytes(4, "little") + np.array(row, dtype="<f4").tobytes())
    for text in outcomes.texts or ():
        encoded = text.encode()
        state.update(len(encoded).to_bytes(4, "little") + encoded)
    return state.hexdigest()


def _noise(run: CellRun, runs: tuple[NoiseRun, ...]) -> Noise:
    sizes = {name: len(task.outcomes) for name, task in run.runs.items()}
    sigma = {name: recompression_sigma(runs, {name: n}) for name, n in sizes.items()}
    pooled = {name: n for name, n in sizes.items() if run.runs[name].info.pooled}
    return Noise(runs, {**sigma, POOLED: recompression_sigma(runs, pooled)} if pooled else sigma)
