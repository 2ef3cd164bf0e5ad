"""Decoders: causal language models that transformers' AutoModelForCausalLM loads (LLaMA, OPT, Qwen2, Gemma, …)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from harness.core.errors import ModelError
from harness.models.cache import check_folder
from harness.models.device import pick_device, pick_dtype, torch_dtype
from harness.models.digest import digest_tokenizer, digest_weights_folder
from harness.models.loaded import LoadedModel
from harness.models.quiet import quiet_transformers

PLAIN_ENGLISH = (
    "The capital of France is Paris.",
    'In 1998, about 12,345 people lived there (3.5% more); it\'s "old".',
    "Tungsten's symbol is W: its number is 74 -- isn't it?",
)
"""What a tokenizer must give back unchanged; one that can't would score other text than the task asks about."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """The family of causal decoders. ``device`` and ``dtype`` may be "auto" (see ``models.device``)."""

    name: str = "decoder"

    def load(self, folder: Path, *, device: str = "auto", dtype: str = "auto") -> LoadedModel:
        """The model of a local safetensors folder, in evaluation mode. Raises ModelError, ConfigError."""
        device = pick_device(device)
        dtype = pick_dtype(dtype, device)
        weights_digest = digest_weights_folder(folder)
        tokenizer_digest = digest_tokenizer(folder)
        check_folder(folder, weights_digest)
        with quiet_transformers():
            tokenizer = _load_tokenizer(folder)
            module = _load_module(folder, torch_dtype(dtype)).to(device)
        return LoadedModel(
            module=module.eval().requires_grad_(False),
            tokenizer=tokenizer,
            family=self.name,
            folder=folder,
            weights_digest=weights_digest,
            tokenizer_digest=tokenizer_digest,
            device=device,
            dtype=dtype,
            prefix_token_id=_prefix_token_id(tokenizer, folder),
        )

    def load_tokenizer(self, folder: Path) -> Any:
        """The tokenizer of a local folder, checked. Raises ModelError."""
        with quiet_transformers():
            return _load_tokenizer(folder)

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


def _load_module(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The model with all its weights. A folder that lacks a weight is refused: transformers would fill it with noise."""
    settings: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    try:
        try:
            module, info = _from_pretrained(folder, attn_implementation="sdpa", **settings)
        except ValueError as error:
            if "attention" not in str(error):
                raise
            module, info = _from_pretrained(folder, attn_implementation="eager", **settings)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"transformers can't load a causal language model from {folder} ({_first_line(error)}).") from error
    lacking = sorted(info["missing_keys"]) + sorted(str(entry) for entry in info["mismatched_keys"])
    if lacking:
        raise ModelError(
            f"{folder} lacks {len(lacking)} of the model's weights or holds them in another shape (first: {lacking[0]}): "
            "the folder is incomplete; get the model again."
        )
    return module


def _from_pretrained(folder: Path, **settings: Any) -> tuple[nn.Module, dict[str, Any]]:
    auto: Any = AutoModelForCausalLM
    module, info = auto.from_pretrained(folder, output_loading_info=True, **settings)
    return module, info


# ------------------------------------------------------------------------------------------------ tokenizers


def _load_tokenizer(folder: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"transformers can't load the tokenizer in {folder} ({_first_line(error)}).") from error
    check_tokenizer(tokenizer, folder)
    return tokenizer


def check_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Raise ModelError unless the tokenizer is a fast one and gives plain English back unchanged."""
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {folder} is a slow one: expected a fast tokenizer (tokenizer.json); convert it.")
    for text in PLAIN_ENGLISH:
        ids = tokenizer.encode(text, add_special_tokens=False)
        came = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if came != text or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids):
            raise ModelError(
                f"the tokenizer in {folder} does not give plain English back: expected {text!r}, came {came!r}; its scores "
                "would be of other text. Take the model's original tokenizer."
            )


def _prefix_token_id(tokenizer: Any, folder: Path) -> int:
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise ModelError(f"the tokenizer in {folder} has neither BOS nor EOS: an empty context can't be scored; name one of them.")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
