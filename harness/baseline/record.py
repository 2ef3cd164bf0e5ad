"""What a baseline is: a reviewable record, and the outcomes that its digests answer for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from harness.baseline.compare import identity_differences
from harness.baseline.noise import Noise, NoiseRun, make_noise
from harness.core.digest import digest_json
from harness.core.outcomes import Outcomes
from harness.core.records import SCHEMA_VERSION, Cell, CellRun, CompressionRecord, Provenance, TaskInfo, TaskRun, record
from harness.core.serial import as_mapping

T = TypeVar("T")


@record
class BaselineTask:
    """One task of a baseline. ``outcomes_digest`` covers the content of its parquet file, not the file's bytes."""

    info: TaskInfo
    scorer: str
    n_correct: int
    outcomes_digest: str


@record
class BaselineRecord:
    """The reviewable part of a baseline. ``digest`` covers every other field, so that an edit shows.

    ``noise`` is None only while a record is built: one without is never accepted, and refused where it is read.
    """

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
        if task is None or replace(task.info, n_clusters=info.n_clusters) != info or task.scorer != scorer:
            return None
        return None if identity_differences(self.record.provenance, provenance) else self.outcomes[info.name]

    def with_noise(self, runs: Sequence[NoiseRun]) -> Baseline:
        """The same baseline with other A/A runs, the stored one first."""
        sizes = {name: task.info.n_items for name, task in self.record.tasks.items()}
        pooled = [name for name, task in self.record.tasks.items() if task.info.pooled]
        return Baseline(sealed(replace(self.record, noise=make_noise(runs, sizes, pooled))), self.outcomes)

    def without_tasks(self, names: Sequence[str]) -> Baseline:
        """The same baseline without some of its tasks; its noise is worked out again from the runs that it tells."""
        kept = {name: task for name, task in self.record.tasks.items() if name not in names}
        left = Baseline(replace(self.record, tasks=kept), {name: self.outcomes[name] for name in kept})
        runs = self.record.noise.runs if self.record.noise else ()
        return left.with_noise(
            [
                replace(run, accuracy={n: run.accuracy[n] for n in kept}, n_flips={n: run.n_flips[n] for n in kept})
                for run in runs
            ]
        )


def make_baseline(run: CellRun, reason: str, noise_runs: Sequence[NoiseRun] = ()) -> Baseline:
    """A baseline of a measured cell, with its A/A runs, the stored one first; whether it may become one is
    ``write_proposal``'s to say. What was generated, or a blank's likeliest word, stays out: where it
    is right it is the data set's own answer."""
    measured = run.record
    outcomes = {name: replace(task.outcomes, texts=None) for name, task in run.runs.items()}
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
                n_correct=int(outcomes[name].correct.sum()),
                outcomes_digest=digest_outcomes(outcomes[name]),
            )
            for name, task in run.runs.items()
        },
        noise=None,
        reason=reason,
        digest="",
    )
    baseline = Baseline(sealed(made), outcomes)
    return baseline.with_noise(noise_runs) if noise_runs else baseline


def digest_record(made: Any) -> str:
    """The digest of a record's fields, but its field ``digest`` itself, and where they say nothing the cost of compressing and
    the number of clusters: records older than these fields keep their digest."""
    fields = {key: value for key, value in as_mapping(made).items() if key != "digest"}
    if isinstance(compression := fields.get("compression"), dict):
        fields["compression"] = _without_nothing(compression, "cost")
    if isinstance(tasks := fields.get("tasks"), dict):
        fields["tasks"] = {
            name: {**task, "info": _without_nothing(task["info"], "n_clusters")} for name, task in tasks.items()
        }
    return digest_json(fields)


def _without_nothing(fields: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != key or value is not None}


def sealed(made: T) -> T:
    """The record with the digest of its other fields in ``digest``."""
    stamped: T = replace(made, digest=digest_record(made))  # type: ignore[type-var]
    return stamped


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
    if (rows := outcomes.option_logliks_nats) is not None:
        state.update(rows.ends.astype("<i8").tobytes() + rows.values.astype("<f4").tobytes())
    for text in outcomes.texts or ():
        encoded = text.encode()
        state.update(len(encoded).to_bytes(4, "little") + encoded)
    if outcomes.choices is not None:
        state.update(f"choices {json.dumps(outcomes.choices)}".encode())
    if outcomes.are_cut is not None:
        state.update(b"cut" + outcomes.are_cut.astype("|u1").tobytes())
    return state.hexdigest()
