"""Encoders: masked language models that transformers' AutoModelForMaskedLM loads (BERT, RoBERTa, DistilBERT, ALBERT, …)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForMaskedLM

from harness.core.errors import ModelError
from harness.models.folders import block_layers, check_round_trip, load_folder, load_tokenizer
from harness.models.loaded import LoadedModel


@dataclass(frozen=True, slots=True)
class Encoder:
    """The family of masked language models. ``device`` and ``dtype`` may be "auto" (see ``models.device``)."""

    name: str = "encoder"

    def load(self, folder: Path, *, device: str = "auto", dtype: str = "auto") -> LoadedModel:
        """The model of a local safetensors folder, in evaluation mode. Raises ModelError, ConfigError."""
        model = load_folder(
            folder,
            family=self.name,
            auto=AutoModelForMaskedLM,
            tokenizer_of=self.load_tokenizer,
            empty_context_id=lambda _tokenizer, _folder: None,  # an encoder reads a text as a whole
            device=device,
            dtype=dtype,
        )
        n_known = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
        if model.tokenizer.mask_token_id >= n_known:
            raise ModelError(
                f"the mask token in {folder} has the id {model.tokenizer.mask_token_id}, the model knows {n_known} tokens: "
                "the tokenizer is another model's; take the model's original one."
            )
        return model

    def load_tokenizer(self, folder: Path) -> Any:
        """The tokenizer of a local folder, checked. Raises ModelError."""
        tokenizer = load_tokenizer(folder)
        check_tokenizer(tokenizer, folder)
        return tokenizer

    def linear_layers(self, model: LoadedModel) -> dict[str, nn.Linear]:
        """Every linear layer of the blocks by its module name, in module order. Raises ModelError.

        The whole head stays as it is, its own dense layer before the output embeddings too (BERT's ``transform``): every
        mask is read through it, and what is compressed is what is compressed in a decoder, attention and feed-forward.
        """
        return block_layers(model)


def check_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raise ModelError unless the tokenizer is fast, has a mask of one token, and gives plain English back up to case and
    spacing.

    Uncased models (bert-base-uncased, DistilBERT, ALBERT) lower all text, and WordPiece does not keep where spaces stood
    ("it's" comes back as "it ' s"): the model never saw either. Every letter, digit and sign must be there, none unknown.
    """
    check_round_trip(tokenizer, folder, letters_and_signs)
    if tokenizer.mask_token is None:
        raise ModelError(f"the tokenizer in {folder} has no mask token: an encoder is read at a mask; name the model's mask.")
    ids = tokenizer.encode(tokenizer.mask_token, add_special_tokens=False)
    if ids != [tokenizer.mask_token_id]:
        raise ModelError(
            f"the tokenizer in {folder} writes its mask {tokenizer.mask_token!r} as {len(ids)} tokens, expected one: "
            "take the model's original tokenizer."
        )


def letters_and_signs(text: str) -> str:
    """A text without case and spacing.

    >>> letters_and_signs("It's old.") == letters_and_signs("it ' s old .")
    True
    """
    return "".join(text.casefold().split())
