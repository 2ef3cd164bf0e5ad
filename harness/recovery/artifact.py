"""What training a recovery leaves on disk: a folder named by the digest of all that it was made from.

    <key>/recipe.json           what it was trained for, on and how, and how that went
    <key>/tensors.safetensors   the trained tensors

The key covers the dense model, the compression recipe, the tokenizer, the recovery's recipe and the training text: all that
is known before training. The compressed weights' own digest stands beside it and is only a note: solvers such as GPTQ give
other bits on another CPU, and a prompt for the one serves the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.digest import digest_file, digest_json
from harness.core.errors import FileFormatError, RecoveryError, StorageError
from harness.core.records import SCHEMA_VERSION, record
from harness.core.serial import as_mapping, atomic_path, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

RECIPE, TENSORS = "recipe.json", "tensors.safetensors"


@record
class TrainedFor:
    """What an artifact fits: digests of the dense weights, the model's config, the tokenizer and the compression recipe
    (versions of libraries left out), the recovery's recipe as far as training depends on it, the digest of the text."""

    dense_digest: str
    config_digest: str
    tokenizer_digest: str
    compression_digest: str
    recipe: dict[str, Any]
    text_digest: str

    @property
    def key(self) -> str:
        """The digest that names the artifact's folder."""
        return digest_json(as_mapping(self))


@record
class TrainingSummary:
    """How one training went. Perplexities are of the validation text: ``perplexity_before`` without any recovery, then at
    the first step and at ``best_step``, whose tensors were kept. ``stopped`` says why after ``steps`` steps."""

    steps: int
    best_step: int
    perplexity_before: float
    perplexity_first: float
    perplexity_best: float
    stopped: str
    n_parameters: int
    wall_s: float


@record
class ArtifactRecord:
    """``recipe.json``. ``digest`` is of all other fields; ``weights_digest`` of the weights that it was trained on."""

    schema_version: int
    cell: str
    trained_for: TrainedFor
    weights_digest: str
    trainings: tuple[TrainingSummary, ...]
    libraries: dict[str, str]
    files: dict[str, str]
    digest: str = ""


def write_artifact(parent: Path, made: ArtifactRecord, tensors: Mapping[str, Tensor]) -> Path:
    """Store what a training made in its folder under ``parent``, in place of an older one; gives the folder back.

    ``made`` needs no ``files`` and no ``digest``. Raises StorageError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = parent / made.trained_for.key
    path = folder / TENSORS
    (folder / RECIPE).unlink(missing_ok=True)  # while the two files differ there is no artifact
    try:
        with atomic_path(path) as neighbour:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, neighbour)
    except SafetensorError as error:
        raise StorageError(f"{path} can't be written ({error}): free some space and train again.") from error
    write_json(folder / RECIPE, _sealed(replace(made, files={TENSORS: digest_file(path)})))
    return folder


def read_artifact(folder: Path) -> ArtifactRecord:
    """An artifact's record, after checking that neither file was touched since. Raises RecoveryError."""
    try:
        made = read_json(folder / RECIPE, ArtifactRecord)
    except FileFormatError as error:
        raise RecoveryError(f"the artifact in {folder} can't be read: {error} {_again()}") from error
    if made.trained_for.key != folder.name or _sealed(made) != made:
        raise RecoveryError(f"{folder / RECIPE} is not what training wrote: it was edited or moved. {_again()}")
    path = folder / TENSORS
    if set(made.files) != {TENSORS} or not path.is_file() or digest_file(path) != made.files[TENSORS]:
        raise RecoveryError(f"{path} is not the file that training wrote: it was edited, cut short or lost. {_again()}")
    return made


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """An artifact's tensors, checked as by ``read_artifact``. Raises RecoveryError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_artifact(folder)
    try:
        return load_file(folder / TENSORS)
    except SafetensorError as error:
        raise RecoveryError(f"{folder / TENSORS} can't be read ({error}). {_again()}") from error


def fitting_folder(parent: Path, wanted: TrainedFor) -> Path | None:
    """Where an artifact that was trained for this lies: in ``parent``, which is ``<baselines>/<profile>/artifacts``, or in
    that folder of another profile; None where nowhere."""
    baselines = parent.parent.parent
    others = sorted(baselines.glob(f"*/{parent.name}/{wanted.key}"))
    return next((folder for folder in [parent / wanted.key, *others] if folder.is_dir()), None)


def find_artifact(parent: Path, cell: str, wanted: TrainedFor) -> tuple[Path, ArtifactRecord]:
    """The folder and record of the artifact that fits. Raises RecoveryError, naming what the cell's artifacts were trained
    for instead, where there is none."""
    folder = fitting_folder(parent, wanted)
    if folder is not None:
        return folder, read_artifact(folder)
    for other in _of_cell(parent, cell):
        raise RecoveryError(
            f"the artifact of {cell} was trained for {_difference(other.trained_for, wanted)} (in "
            f"{parent / other.trained_for.key}): a recovery fits only what it was trained for; train it again with "
            f"`harness recover {cell}`."
        )
    raise RecoveryError(
        f"{cell} has no trained artifact in {parent}: train it with `harness recover {cell}` (a gate run never trains)."
    )


def _of_cell(parent: Path, cell: str) -> Iterator[ArtifactRecord]:
    for path in sorted(parent.glob(f"*/{RECIPE}")):
        found = read_artifact(path.parent)
        if found.cell == cell:
            yield found


def _difference(made: TrainedFor, wanted: TrainedFor) -> str:
    """In words, the first of what an artifact was trained for that is not what is wanted."""
    named = {
        "dense_digest": "another base model",
        "config_digest": "another base model (its config.json differs)",
        "tokenizer_digest": "another tokenizer",
        "compression_digest": "another compression recipe",
        "recipe": "another recipe of the recovery",
        "text_digest": "another training text",
    }
    field = next(name for name in named if getattr(made, name) != getattr(wanted, name))
    if field != "recipe":
        return f"{named[field]} ({getattr(made, field)[:12]}, not {getattr(wanted, field)[:12]})"
    keys = sorted(key for key in made.recipe.keys() | wanted.recipe.keys() if made.recipe.get(key) != wanted.recipe.get(key))
    told = ", ".join(f"{key} = {made.recipe.get(key)!r}, not {wanted.recipe.get(key)!r}" for key in keys)
    return f"{named[field]} ({told})"


def _sealed(made: ArtifactRecord) -> ArtifactRecord:
    return replace(made, digest=digest_json(as_mapping(replace(made, digest=""))))


def _again() -> str:
    return "Restore it from version control, or train it again with `harness recover CELL`."


def new_record(
    cell: str, trained_for: TrainedFor, weights_digest: str, trainings: tuple[TrainingSummary, ...], libraries: dict[str, str]
) -> ArtifactRecord:
    """The record of a training that has just ended, for ``write_artifact``."""
    return ArtifactRecord(SCHEMA_VERSION, cell, trained_for, weights_digest, trainings, libraries, files={})
