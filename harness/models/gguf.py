"""From a GGUF file to a safetensors folder in float32, once: weights by transformers, the tokenizer by ourselves.

transformers 5 unpacks the weights rightly, but rebuilds byte-level BPE tokenizers with the wrong EOS (it writes BOS there)
and without the model's own pre-tokenization. Both stand in the file, so the tokenizer is built from it here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from safetensors import SafetensorError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast

from harness.core.errors import ModelError, StorageError
from harness.models.quiet import quiet_transformers

_CONTROL, _USER_DEFINED = 3, 4
"""Token types of GGUF (gguf.TokenType)."""


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


_PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _byte_level,
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()]),
}
"""llama.cpp's names (``tokenizer.ggml.pre``) of the ways to cut text before BPE that are rebuilt exactly."""


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer to ``folder`` as transformers saves them. Raises ModelError, StorageError."""
    tokenizer = build_tokenizer(_fields(file), file.name)
    with quiet_transformers(), redirect_stderr(io.StringIO()):  # one of its bars can't be switched off
        model = _load_weights(file)
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:  # its only trouble when writing is the file system
            raise StorageError(f"{folder} was not written ({error}): check the free space and permissions.") from error
    tokenizer.save_pretrained(folder)


def _load_weights(file: Path) -> Any:
    """The file's model as an ordinary dense one: transformers refuses to save what it calls quantized."""
    try:
        packed = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
        )
    except (ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"transformers can't read {file.name} ({error}): take the model in safetensors form.") from error
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path = ""
    auto: Any = AutoModelForCausalLM  # not annotated
    with torch.device("meta"):
        dense = auto.from_config(config, dtype=torch.float32)
    dense.load_state_dict(packed.state_dict(), strict=True, assign=True)
    dense.tie_weights()
    return dense


def build_tokenizer(fields: dict[str, Any], name: str) -> Any:
    """The byte-level BPE tokenizer that a GGUF file's metadata describe. Raises ModelError for any other kind."""
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise ModelError(
            f"{name} has a tokenizer of kind {kind!r}, cut the way {pre!r}: expected byte-level BPE ('gpt2') cut the way "
            f"{' or '.join(map(repr, _PRE_TOKENIZERS))}; take the model in safetensors form with 'hub:' or 'dir:'."
        )
    try:
        tokens: list[str] = fields["tokenizer.ggml.tokens"]
        special = {
            f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
            for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
            if f"tokenizer.ggml.{key}_token_id" in fields
        }
        backend = _byte_level_bpe(fields, tokens, _PRE_TOKENIZERS[pre]())
        adds_bos = bool(fields.get("tokenizer.ggml.add_bos_token", False))
        if adds_bos:
            bos = special["bos_token"]
            backend.post_processor = processors.TemplateProcessing(
                single=[bos, "$A"], special_tokens=[(bos, tokens.index(bos))]
            )
    except (KeyError, IndexError) as error:
        raise ModelError(f"the tokenizer in {name} is incomplete (no {error}): take the model in safetensors form.") from error
    fast: Any = PreTrainedTokenizerFast  # not annotated
    window = fields.get(f"{fields.get('general.architecture')}.context_length")
    made = fast(tokenizer_object=backend, clean_up_tokenization_spaces=False, model_max_length=window, **special)
    made.chat_template = fields.get("tokenizer.chat_template")
    return made


def _byte_level_bpe(fields: dict[str, Any], tokens: list[str], pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    """Vocabulary, merges and added tokens of the file, with the way to cut text before BPE."""
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in fields["tokenizer.ggml.merges"])]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    types = fields.get("tokenizer.ggml.token_type", [])
    for added, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
        chosen = [token for token, kind in zip(tokens, types, strict=False) if kind == added]
        made = [AddedToken(token, normalized=False, special=is_special) for token in chosen]
        if is_special:
            backend.add_special_tokens(made)
        else:
            backend.add_tokens(made)
    return backend


def _fields(file: Path) -> dict[str, Any]:
    """The metadata of a GGUF file as plain values."""
    try:
        return {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{file.name} is not a readable GGUF file ({error}): get it again.") from error
