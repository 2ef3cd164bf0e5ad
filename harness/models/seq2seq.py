"""Encoder-decoders that transformers' AutoModelForSeq2SeqLM loads (T5, Flan-T5, LaMini-Flan-T5, BART, …)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForSeq2SeqLM

from harness.core.errors import ModelError
from harness.models.folders import block_layers, check_round_trip, load_folder, load_tokenizer, unchanged
from harness.models.loaded import LoadedModel, bos_or_eos


@dataclass(frozen=True, slots=True)
class Seq2Seq:
    """The family of encoder-decoders. ``device`` and ``dtype`` may be "auto" (see ``models.device``)."""

    name: str = "seq2seq"

    def load(self, folder: Path, *, device: str = "auto", dtype: str = "auto") -> LoadedModel:
        """The model of a local safetensors folder, in evaluation mode. Raises ModelError, ConfigError."""
        model = load_folder(
            folder,
            family=self.name,
            auto=AutoModelForSeq2SeqLM,
            tokenizer_of=self.load_tokenizer,
            empty_context_id=bos_or_eos,
            device=device,
            dtype=dtype,
        )
        decoder_start(model)
        _say_whether_tied(model.module)
        return model

    def load_tokenizer(self, folder: Path) -> Any:
        """The tokenizer of a local folder, checked: fast, and giving plain English back unchanged. Raises ModelError.

        Whether it has sentinels is asked when they are needed: BART has none and can still score continuations.
        """
        tokenizer = load_tokenizer(folder)
        check_round_trip(tokenizer, folder, unchanged)
        return tokenizer

    def linear_layers(self, model: LoadedModel) -> dict[str, nn.Linear]:
        """Every linear layer of both stacks' blocks by its module name, in module order. Raises ModelError."""
        return block_layers(model)


def _say_whether_tied(module: Any) -> None:
    """Have a module's config say whether its head is tied to its embeddings.

    transformers says so of every T5. It keeps a head of its own that it finds in a file (Flan-T5's), but the next
    ``tie_weights()``, which lm-eval and others call on any model they are given, would throw that head away.
    """
    module.config.tie_word_embeddings = module.get_output_embeddings().weight is module.get_input_embeddings().weight


def decoder_start(model: LoadedModel) -> int:
    """The token that every decoder input starts with. Raises ModelError when the model's config names none."""
    start = getattr(model.module.config, "decoder_start_token_id", None)
    if start is None:
        raise ModelError(
            f"config.json in {model.folder} names no decoder_start_token_id: what the decoder starts from is unknown; "
            "take the model's original config."
        )
    return int(start)


def sentinel(model: LoadedModel, number: int) -> int:
    """The id of ``<extra_id_N>``, by which T5 marks a gap in a text. Raises ModelError when the model has no such token."""
    text = f"<extra_id_{number}>"
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    n_known = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if len(ids) != 1 or model.tokenizer.convert_ids_to_tokens(ids[0]) != text or ids[0] >= n_known:
        raise ModelError(
            f"the model in {model.folder} has no sentinel {text}: it can't be asked for the text at a gap; take a model of "
            "the T5 kind, or a task of continuations."
        )
    return int(ids[0])
