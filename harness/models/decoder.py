"""Decoders: causal language models that transformers' AutoModelForCausalLM loads (LLaMA, OPT, Qwen2, Gemma, …)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from harness.core.errors import ModelError
from harness.models.folders import block_layers, check_round_trip, load_folder, load_tokenizer, unchanged
from harness.models.loaded import LoadedModel, bos_or_eos


@dataclass(frozen=True, slots=True)
class Decoder:
    """The family of causal decoders. ``device`` and ``dtype`` may be "auto" (see ``models.device``)."""

    name: str = "decoder"

    def load(self, folder: Path, *, device: str = "auto", dtype: str = "auto") -> LoadedModel:
        """The model of a local safetensors folder, in evaluation mode. Raises ModelError, ConfigError."""
        return load_folder(
            folder,
            family=self.name,
            auto=AutoModelForCausalLM,
            tokenizer_of=self.load_tokenizer,
            empty_context_id=bos_or_eos,
            device=device,
            dtype=dtype,
        )

    def load_tokenizer(self, folder: Path) -> Any:
        """The tokenizer of a local folder, checked. Raises ModelError."""
        tokenizer = load_tokenizer(folder)
        check_tokenizer(tokenizer, folder)
        return tokenizer

    def linear_layers(self, model: LoadedModel) -> dict[str, nn.Linear]:
        """Every linear layer of the blocks by its module name, in module order. Raises ModelError.

        So neither the head is there nor what stands between embeddings and blocks (``project_in`` of OPT-350m). GPT-2 keeps
        its weights transposed in ``Conv1D`` modules, which no compression method here reads: refused.
        """
        n_conv1d = sum(isinstance(module, Conv1D) for module in model.module.modules())
        if n_conv1d:
            raise ModelError(
                f"{type(model.module).__name__} in {model.folder} has no plain linear layers to compress: expected nn.Linear, "
                f"found {n_conv1d} transposed Conv1D layers (GPT-2); it can be measured with compression 'none' only."
            )
        return block_layers(model)


def check_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raise ModelError unless the tokenizer is a fast one and gives plain English back unchanged."""
    check_round_trip(tokenizer, folder, unchanged)
