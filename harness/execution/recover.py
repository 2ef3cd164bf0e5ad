"""Training a cell's recovery on this machine: on text without probes, resumable, its artifact beside the baselines."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import ConfigError, RecoveryError
from harness.execution.local import MeasureOptions, make_candidate
from harness.execution.matrix import CellPlan, Matrix
from harness.execution.progress import Progress
from harness.execution.store import Store
from harness.recovery import is_trained
from harness.recovery.artifact import ArtifactRecord, fitting_folder, new_record, read_artifact, write_artifact

if TYPE_CHECKING:
    from harness.recovery.loop import Step


@dataclass(frozen=True, slots=True)
class Recovered:
    """A cell's artifact, and whether it was there already."""

    folder: Path
    record: ArtifactRecord
    was_there: bool


def train_recovery(matrix: Matrix, plan: CellPlan, *, options: MeasureOptions, store: Store, progress: Progress) -> Recovered:
    """Train what the cell's recovery needs, unless it is there; with ``options.fresh`` in any case.

    Raises ContaminationError for a text that holds what the cell's tasks probe, ConfigError for a recovery that is not
    trained, RecoveryError for a training that went wrong. A training that is stopped goes on when it is asked for again.
    """
    from harness.recovery.trained import library_versions

    candidate = make_candidate(matrix, plan, options=options, store=store, progress=progress)
    method = candidate.recovery()
    if not is_trained(method):
        raise ConfigError(f"{plan.cell.id}: recovery {method.name!r} is not trained; measure the cell as it is.")
    wanted = candidate.trained_for(method)
    with store.lock(wanted.key):
        folder = fitting_folder(candidate.artifacts, wanted)
        if folder is not None and not options.fresh:
            try:
                return Recovered(folder, read_artifact(folder), was_there=True)
            except RecoveryError as error:
                progress.say(f"{plan.cell.id}: {error} It is trained again.")
        text = candidate.training_text()
        text.refuse_probes(candidate.probes(), "training")
        manifest, model = candidate.weights(), candidate.compressed()
        checkpoints = store.training_folder(wanted.key)
        if options.fresh and checkpoints.exists():
            shutil.rmtree(checkpoints)
        tell = _Telling(plan.cell.id, progress)
        made = method.train(model, text, checkpoints=checkpoints, tell=tell)
        record = new_record(plan.cell.id, wanted, manifest.weights_digest, made.trainings, library_versions())
        written = write_artifact(candidate.artifacts, record, made.tensors)
        shutil.rmtree(checkpoints, ignore_errors=True)  # only now: until here a kill loses nothing
    return Recovered(written, read_artifact(written), was_there=False)


@dataclass(slots=True)
class _Telling:
    """A training's steps as progress; one that begins again at a lower step is the next prompt's."""

    cell: str
    progress: Progress
    _last: int = 0
    _first: int = 0
    _number: int = 0

    def __call__(self, step: Step) -> None:
        if self._number == 0 or step.number <= self._last:
            self._number += 1
            self._first = step.number - 1  # a resumed training has done these before
            which = f", part {self._number}" if self._number > 1 else ""
            self.progress.start(f"{self.cell}: training{which}")
        self._last = step.number
        note = f"loss {step.loss_nats:.3f} nats a token, best validation perplexity {step.perplexity:.4g}"
        self.progress.update(step.number - self._first, step.n_steps - self._first, note)
