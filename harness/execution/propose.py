"""A proposal for a cell's baseline, with the evidence that it needs: the same cell measured several times (A/A), varied in
what should not matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

from harness.baseline import (
    INFORMATIVE_AS_SHIPPED,
    MIN_NOISE_RUNS,
    Baseline,
    Informative,
    Proposal,
    Repeat,
    WriteMode,
    Written,
    accept,
    drop_proposal,
    load_baseline,
    renew_noise,
    require_reason,
    write_noise_proposal,
    write_proposal,
)
from harness.core.command import propose_command
from harness.core.errors import ConfigError, EvidenceError
from harness.core.records import Stability
from harness.execution.candidate import Variant
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import CellPlan, Matrix
from harness.execution.progress import Progress
from harness.execution.store import Store

AS_DECLARED = "as declared"
"""The label of the run in which nothing is varied. Of runs that are equally good the lowest label is stored: this one."""

BATCH_STEP_TOKENS = 256
"""Stable cells are scored in batches of so many tokens, twice as many, and so on."""


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
    informative: Informative = INFORMATIVE_AS_SHIPPED,
) -> Written:
    """Propose a cell's baseline and accept it in one go, as pytest's ``--harness-baselines`` asks.

    Raises EvidenceError, naming the commands to use instead, for an update that loosens the gate: its proposal then stays.
    """
    home = root / plan.profile / plan.cell.id
    if mode == "check":
        return "not written"
    if mode == "add-new" and home.exists():
        return "kept"
    measuring = Measuring(matrix, plan, options, store, progress)
    made = propose_baseline(measuring, root=root, reason=reason, n_runs=MIN_NOISE_RUNS, informative=informative)
    if mode == "add-new" and made.record.replaces is not None:  # another process added one meanwhile
        drop_proposal(root, plan.profile, plan.cell)
        return "kept"
    cells = {plan.cell: tuple(plan.tasks)}
    return accept(root, plan.profile, cells, informative=informative, only=made.record.digest)[0].written


def propose_baseline(measuring: Measuring, *, root: Path, reason: str, n_runs: int, informative: Informative) -> Proposal:
    """Measure a cell ``n_runs`` times and propose the run of median accuracy; nothing is taken from the present baseline.

    Cells with stable weights are scored with other batch sizes and thread counts, re-compressed ones are compressed again
    with other calibration samples. Raises HarnessError; what was measured stays in the store.
    """
    measuring.require_whole(n_runs)
    plan = measuring.plan
    require_reason(plan.cell.id, reason)
    first = measuring.repeat(None, 1, n_runs)
    record = first.measured().record
    varied = _variants(plan, record.compression.stability, int(record.provenance.engine["threads"]))
    repeats = [first, *(measuring.repeat(variant, n, n_runs) for n, variant in enumerate(islice(varied, n_runs - 1), start=2))]
    return write_proposal(root, repeats, reason=reason, declared_tasks=tuple(plan.tasks), informative=informative)


def propose_noise(
    measuring: Measuring, *, root: Path, n_runs: int, informative: Informative
) -> tuple[Baseline, Proposal | None]:
    """Measure the A/A runs of an accepted cell, of which the accepted one counts as the first; propose what they show.

    Returns the baseline with that noise, and the proposal; None where the accepted baseline says the same already.
    """
    measuring.require_whole(n_runs)
    plan = measuring.plan
    accepted = load_baseline(root, plan.profile, plan.cell)
    noise = None if accepted is None else accepted.record.noise
    if accepted is None or noise is None:
        raise EvidenceError(
            f"{plan.cell.id} has no accepted baseline whose noise could be measured: {propose_command(plan.cell.id)} "
            "measures both."
        )
    stored = noise.runs[0]
    threads = next((run.threads for run in noise.runs if run.label == AS_DECLARED), stored.threads)
    variants = [None, *islice(_variants(plan, accepted.record.compression.stability, threads), n_runs)]
    others = [variant for variant in variants if _label(variant) != stored.label][: n_runs - 1]
    repeats = [measuring.repeat(variant, n, n_runs) for n, variant in enumerate(others, start=2)]
    renewed = renew_noise(accepted, repeats)
    if renewed.record.digest == accepted.record.digest:
        return renewed, None
    return renewed, write_noise_proposal(root, renewed, informative=informative)


@dataclass(frozen=True, slots=True)
class Measuring:
    """One cell and how to measure it."""

    matrix: Matrix
    plan: CellPlan
    options: MeasureOptions
    store: Store
    progress: Progress

    def require_whole(self, n_runs: int) -> None:
        """Refuse, before anything is measured, what can't become evidence."""
        cell = self.plan.cell.id
        if n_runs < MIN_NOISE_RUNS:
            raise ConfigError(f"--runs expects at least {MIN_NOISE_RUNS} A/A runs, got {n_runs}: fewer show no spread.")
        if self.options.limit is not None:
            raise EvidenceError(
                f"a run of {cell} on a part of its items is no evidence for a baseline: measure it without --limit."
            )

    def repeat(self, variant: Variant | None, number: int, n_runs: int) -> Repeat:
        """One A/A run: as declared, or varied."""
        plan = self.plan
        self.progress.say(f"{plan.cell.id}: A/A run {number} of {n_runs}, {_label(variant)}")
        options = replace(self.options, variant=variant)
        run = measure_cell(self.matrix, plan, tuple(plan.tasks), options=options, store=self.store, progress=self.progress)
        if variant is not None:
            return Repeat(variant.label, variant.seed, variant.threads, variant.batch_tokens, run)
        seed = _seed(plan) if run.record.compression.stability == "re-compressed" else None
        return Repeat(AS_DECLARED, seed, int(run.record.provenance.engine["threads"]), None, run)


def _variants(plan: CellPlan, stability: Stability, threads: int) -> Iterator[Variant]:
    """What should not matter, varied without end: every second variant runs on another number of threads."""
    other = 1 if threads > 1 else 2
    for index in count(1):
        n_threads = other if index % 2 else threads
        told = f"{n_threads} thread{'s' if n_threads > 1 else ''}"
        if stability == "stable":
            n_tokens = index * BATCH_STEP_TOKENS
            yield Variant(f"batches of {n_tokens} tokens, {told}", None, n_threads, n_tokens)
        else:
            seed = _seed(plan) + index
            yield Variant(f"calibration sample {seed}, {told}", seed, n_threads)


def _label(variant: Variant | None) -> str:
    return AS_DECLARED if variant is None else variant.label


def _seed(plan: CellPlan) -> int:
    return int(plan.compression[1].get("seed", 0))
