"""Decoders: causal language models that transformers' AutoModelForCausalLM loads (LLaMA, OPT, Qwen2, Gemma, …)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from harness.core.errors import ModelError
from harness.models.folders import bos_or_eos, check_round_trip, load_folder, load_tokenizer, unchanged
from harness.models.loaded import LoadedModel


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
        """Every linear layer by its module name, the output head left out, in module order. Raises ModelError.

        GPT-2 keeps its weights transposed in ``Conv1D`` modules, which no compression method here reads: refused.
        """
        head = model.module.get_output_embeddings()  # type: ignore[operator]
        modules = dict(model.module.named_modules())
        layers = {name: m for name, m in modules.items() if isinstance(m, nn.Linear) and m is not head}
        n_conv1d = sum(isinstance(m, Conv1D) for m in modules.values())
        if n_conv1d or not layers:
            found = f"{n_conv1d} transposed Conv1D layers (GPT-2)" if n_conv1d else "none"
            raise ModelError(
                f"{type(model.module).__name__} in {model.folder} has no plain linear layers to compress: expected nn.Linear, "
                f"found {found}; it can be measured with compression 'none' only."
            )
        return layers


def check_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raise ModelError unless the tokenizer is a fast one and gives plain English back unchanged."""
    check_round_trip(tokenizer, folder, unchanged)
