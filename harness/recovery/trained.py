"""What trained methods do alike: peft around a frozen model, and the way into a stored artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.core.errors import MissingDependencyError, RecoveryError
from harness.models.loaded import LoadedModel
from harness.recovery.artifact import TrainingSummary, read_tensors
from harness.scoring.encode import window_tokens

LIBRARIES = ("peft", "torch", "transformers")


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """The tensors of an artifact by their names, and how each of its trainings went."""

    tensors: dict[str, Tensor]
    trainings: tuple[TrainingSummary, ...]


@contextmanager
def peft_building() -> Iterator[Any]:
    """peft, to build modules with: it draws first values from the global generator, which is put back afterwards.

    Raises MissingDependencyError.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"training a recovery needs the package {error.name!r}: pip install 'retention-harness[measure]'."
        ) from error
    with torch.random.fork_rng(devices=[]):
        yield peft


def library_versions() -> dict[str, str]:
    """The versions of what trains."""
    return {library: version(library) for library in LIBRARIES}


def check_decoder(method: str, model: LoadedModel) -> None:
    """Raise RecoveryError for a model of another family: what stands before a decoder's text has no place there."""
    if model.family != "decoder":
        raise RecoveryError(
            f"recovery {method!r} is built for decoders: a model of family {model.family!r} reads its input another way, and "
            "nothing here trains or places the recovery in it; give such a model the recovery 'none'."
        )


def check_length(method: str, model: LoadedModel, n_positions: int) -> None:
    """Raise RecoveryError where a root leaves no place for a text in the model's window."""
    config: Any = model.module.config
    window = window_tokens(config, model.tokenizer)
    if n_positions >= window:
        raise RecoveryError(
            f"{method}: {n_positions} prompt positions don't fit into the model's window of {window} tokens with a text "
            "behind them: take fewer."
        )


def tensors_of(method: str, artifact: Path | None, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """An artifact's tensors. Raises RecoveryError without one, for a broken one, or for names or shapes other than these."""
    if artifact is None:
        raise RecoveryError(
            f"recovery {method!r} needs the artifact of its training and got none: run `harness recover CELL`."
        )
    tensors = read_tensors(artifact)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != dict(shapes):
        raise RecoveryError(
            f"the artifact in {artifact} holds {_listed(found)}, this model and recipe want {_listed(shapes)}: it is another "
            "model's; run `harness recover CELL`."
        )
    return tensors


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    told = [f"{name} {list(shape)}" for name, shape in sorted(shapes.items())]
    return ", ".join(told[:2]) + (f" and {len(told) - 2} more" if len(told) > 2 else "") or "nothing"
