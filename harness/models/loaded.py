"""A model in memory, and what a family must know about its kind of model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from harness.models.roots import SoftRoots


@dataclass(slots=True)
class LoadedModel:
    """A model in memory with its tokenizer. ``module`` is changed in place by compression; the digests are of the model
    as it was loaded. ``empty_context_id`` is the token that an empty context stands for, None where the family has no
    such thing. ``soft_roots``: what a recovery lets stand before every input."""

    module: nn.Module
    tokenizer: Any
    family: str
    folder: Path
    weights_digest: str
    tokenizer_digest: str
    device: str
    dtype: str
    empty_context_id: int | None
    soft_roots: SoftRoots | None = None

    @property
    def prefix_token_id(self) -> int:
        """What an empty context stands for (BOS, else EOS). Raises ModelError for a family that reads no continuations."""
        if self.empty_context_id is None:
            raise ModelError(
                f"a model of family {self.family!r} has no token that a text without context would begin with: "
                "expected a decoder or an encoder-decoder; take another task or method for it."
            )
        return self.empty_context_id

    @property
    def document_start_id(self) -> int:
        """What a document in a stream of text begins with: BOS, else EOS; for an encoder CLS. Raises ModelError."""
        start = self.tokenizer.cls_token_id if self.empty_context_id is None else self.empty_context_id
        if start is None:
            raise ModelError(f"the tokenizer in {self.folder} has no CLS: a text for this encoder can't be cut into blocks.")
        return int(start)


class ModelFamily(Protocol):
    """The contract of the shelf ``MODELS``."""

    name: str

    def load(self, folder: Path, *, device: str, dtype: str) -> LoadedModel:
        """The model of a local safetensors folder, in evaluation mode. Raises ModelError."""

    def load_tokenizer(self, folder: Path) -> Any:
        """The tokenizer of a local folder, checked: fast, and giving plain English back, as far as the family's models see
        it. Raises ModelError."""

    def linear_layers(self, model: LoadedModel) -> dict[str, nn.Linear]:
        """Every linear layer of the blocks by its module name, in module order, shared ones once; no head, nothing else
        outside of the blocks."""


def bos_or_eos(tokenizer: Any, folder: Path) -> int:
    """What an empty context stands for: BOS, else EOS. Raises ModelError where there is neither."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise ModelError(f"the tokenizer in {folder} has neither BOS nor EOS: an empty context can't be scored; name one of them.")
