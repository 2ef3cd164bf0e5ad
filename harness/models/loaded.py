"""A model in memory, and what a family must know about its kind of model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


@dataclass(slots=True)
class LoadedModel:
    """A model in memory with its tokenizer. ``module`` is changed in place by compression; the digests are of the model
    as it was loaded. ``prefix_token_id`` is what an empty context stands for (BOS, else EOS)."""

    module: nn.Module
    tokenizer: Any
    family: str
    folder: Path
    weights_digest: str
    tokenizer_digest: str
    device: str
    dtype: str
    prefix_token_id: int


class ModelFamily(Protocol):
    """The contract of the shelf ``MODELS``."""

    name: str

    def load(self, folder: Path, *, device: str, dtype: str) -> LoadedModel:
        """The model of a local safetensors folder, in evaluation mode. Raises ModelError."""

    def load_tokenizer(self, folder: Path) -> Any:
        """The tokenizer of a local folder, checked: fast, and giving plain English back unchanged. Raises ModelError."""

    def linear_layers(self, model: LoadedModel) -> dict[str, nn.Linear]:
        """Every linear layer by its module name, the output head left out, in module order."""
