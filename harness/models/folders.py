"""From a local folder to a model in memory: what every family does alike.

A folder is read by the family that its architecture belongs to and by no other: transformers would load BERT as a causal
language model, with half of the attention masked and a warning in the log, and every score would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig
from transformers.models.auto import modeling_auto

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
"""What a tokenizer must give back; one that can't would score other text than the task asks about."""

_KINDS = {"decoder": "causal language", "encoder": "masked language", "seq2seq": "encoder-decoder"}

_PACKED = ("gptq", "awq", "compressed-tensors", "bitsandbytes", "torchao")
"""What ``models.artifact`` unpacks: with transformers it would depend on what is installed, and keep layers that can't be
compressed."""

_SAID = ("quantization_config", "compression_config")

_LOADING = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)
"""What transformers raises for a folder that it can't load."""


def load_folder(
    folder: Path,
    *,
    family: str,
    auto: Any,
    tokenizer_of: Callable[[Path], Any],
    empty_context_id: Callable[[Any, Path], int | None],
    device: str,
    dtype: str,
) -> LoadedModel:
    """The model of a folder through transformers' class ``auto``, in evaluation mode. Raises ModelError, ConfigError."""
    device = pick_device(device)
    dtype = pick_dtype(dtype, device)
    weights_digest = digest_weights_folder(folder)
    tokenizer_digest = digest_tokenizer(folder)
    check_folder(folder, weights_digest)
    with quiet_transformers():
        check_family(folder, family)
        tokenizer = tokenizer_of(folder)
        module = _load_module(folder, family, auto, torch_dtype(dtype)).to(device)
    _check_vocabulary(tokenizer, module, folder)
    return LoadedModel(
        module=module.eval().requires_grad_(False),
        tokenizer=tokenizer,
        family=family,
        folder=folder,
        weights_digest=weights_digest,
        tokenizer_digest=tokenizer_digest,
        device=device,
        dtype=dtype,
        empty_context_id=empty_context_id(tokenizer, folder),
    )


def config_of(folder: Path) -> Any:
    """The config of a folder's model. Raises ModelError."""
    try:
        written, _ = PretrainedConfig.get_config_dict(folder, local_files_only=True)
        for name in _SAID:
            if not isinstance(said := written.get(name) or {}, dict):
                raise ModelError(
                    f"{folder}: its config.json has {said!r} as {name}, expected an object: take an undamaged copy."
                )
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _LOADING as error:
        raise ModelError(f"transformers can't load a model from {folder} ({first_line(error)}).") from error


def check_family(folder: Path, family: str) -> None:
    """Raise ModelError when a folder's architecture is of another family, or its weights are packed."""
    config = config_of(folder)
    said: dict[str, Any] = next(filter(None, (getattr(config, name, None) for name in _SAID)), {})
    packed_by = str(said.get("quant_method", ""))
    if packed_by.lower() in _PACKED:
        raise ModelError(
            f"{folder} is a compressed checkpoint ({packed_by}), and only plain weights are loaded as they lie: write "
            "artifact: in place of dir: or hub: before it, and it is unpacked."
        )
    found = family_of(config)
    if found != family:
        named = ", ".join(config.architectures or ()) or config.model_type
        raise ModelError(
            f"{folder} holds a model of family {found!r} ({named}), expected one of family {family!r}: "
            f'write family = "{found}" in the matrix.'
        )


def family_of(config: Any) -> str:
    """The family that an architecture belongs to: what config.json names, else what its type of model is made for.

    >>> from transformers import BertConfig, LlamaConfig, T5Config
    >>> [family_of(config()) for config in (LlamaConfig, BertConfig, T5Config)]
    ['decoder', 'encoder', 'seq2seq']
    >>> family_of(BertConfig(is_decoder=True, architectures=["BertLMHeadModel"]))
    'decoder'
    """
    if config.is_encoder_decoder:
        return "seq2seq"
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    named = set(config.architectures or ())
    if named & (set(causal.values()) - set(masked.values())):
        return "decoder"
    return "encoder" if named & set(masked.values()) or config.model_type in masked else "decoder"


def block_layers(model: LoadedModel) -> dict[str, nn.Linear]:
    """The linear layers of a model's blocks by their module names, in module order; one that blocks share, once.

    So neither the head is there, whatever it is made of, nor a factor of the embeddings (ALBERT's), nor a pooler: all that
    is left is a block's attention or its feed-forward. Raises ModelError when there are none.
    """
    lists = tuple(f"{name}." for name, module in model.module.named_modules() if isinstance(module, nn.ModuleList))
    modules = model.module.named_modules()
    layers = {name: m for name, m in modules if isinstance(m, nn.Linear) and name.startswith(lists)}
    if not layers:
        raise ModelError(
            f"{type(model.module).__name__} in {model.folder} has no plain linear layers to compress: expected nn.Linear in "
            "its blocks, found none; it can be measured with compression 'none' only."
        )
    return layers


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, not checked. Raises ModelError."""
    with quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"transformers can't load the tokenizer in {folder} ({first_line(error)}).") from error


def check_round_trip(tokenizer: Any, folder: Path, alike: Callable[[str], str]) -> None:
    """Raise ModelError unless a tokenizer is a fast one and gives plain English back, as far as ``alike`` looks at it."""
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {folder} is a slow one: expected a fast tokenizer (tokenizer.json); convert it.")
    for text in PLAIN_ENGLISH:
        ids = tokenizer.encode(text, add_special_tokens=False)
        came = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if alike(came) != alike(text) or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids):
            raise ModelError(
                f"the tokenizer in {folder} does not give plain English back: expected {text!r}, came {came!r}; its scores "
                "would be of other text. Take the model's original tokenizer."
            )


def _check_vocabulary(tokenizer: Any, module: Any, folder: Path) -> None:
    """Raise ModelError where the tokenizer writes plain English in tokens that the model does not have."""
    n_known = module.get_input_embeddings().num_embeddings
    highest = max(max(tokenizer.encode(text)) for text in PLAIN_ENGLISH)
    if highest >= n_known:
        raise ModelError(
            f"the tokenizer in {folder} writes plain English with the token {highest}, the model knows {n_known} tokens: the "
            "tokenizer is another model's; take the model's original one."
        )


def unchanged(text: str) -> str:
    """For ``check_round_trip``: every character counts."""
    return text


def first_line(error: Exception) -> str:
    """An error's first line, without its full stop."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


# ------------------------------------------------------------------------------------------------ weights


def _load_module(folder: Path, family: str, auto: Any, dtype: torch.dtype) -> nn.Module:
    """The model with all its weights. A folder that lacks a weight is refused: transformers would fill it with noise."""
    settings: dict[str, Any] = {
        "dtype": dtype,
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "ignore_mismatched_sizes": True,  # they are refused below, by name: transformers' own error names none
    }
    try:
        try:
            module, info = _from_pretrained(auto, folder, attn_implementation="sdpa", **settings)
        except ValueError as error:
            if "attention" not in str(error):
                raise
            module, info = _from_pretrained(auto, folder, attn_implementation="eager", **settings)
    except _LOADING as error:
        raise ModelError(
            f"transformers can't load a model of family {family!r} ({_KINDS[family]} model) from {folder} "
            f"({first_line(error)})."
        ) from error
    if mismatched := sorted(info["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise ModelError(
            f"{folder} holds {len(mismatched)} weights in another shape than its config says (first: {name}, "
            f"{tuple(stored)}, expected {tuple(expected)}): its config or its weights are another model's; get it again."
        )
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise ModelError(
            f"{folder} lacks {len(lacking)} of the model's weights (first: {lacking[0]}): the folder is incomplete; get the "
            "model again."
        )
    return module


def _from_pretrained(auto: Any, folder: Path, **settings: Any) -> tuple[nn.Module, dict[str, Any]]:
    module, info = auto.from_pretrained(folder, output_loading_info=True, **settings)
    return module, info
