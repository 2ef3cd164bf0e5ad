"""Pickled checkpoints, only where the user asked for it: tensors and nothing else, by torch's own restricted reader."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - only to name what torch's reader raises

import torch
from torch import Tensor

from harness.core.errors import ModelError


def read_pickled(file: Path) -> dict[str, Tensor]:
    """The tensors of a ``.bin`` or ``.pt`` file. Raises ModelError for what is no plain tensor by name; none of it is run."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 - tensors only
    except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"{file} holds more than tensors, or is broken ({first}): nothing of it was run; save it as safetensors."
        ) from error
    plain = isinstance(found, dict) and all(type(key) is str and type(value) is Tensor for key, value in found.items())
    if not plain or not found:
        raise ModelError(f"{file} holds no tensors by name: expected a state dict; save the checkpoint as safetensors.")
    return dict(found)
