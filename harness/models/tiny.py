"""Tiny random models, made in a second without a network: what conformance tests run every method on.

A tiny model knows nothing, but its weights are large enough for its scores to depend strongly on what it attends to.
There is one for every class of model in the registry, each with a tokenizer of its class's kind.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from harness.models.quiet import quiet_transformers
from harness.models.tiny_tokenizers import albert_tokenizer, bert_tokenizer, roberta_tokenizer, t5_tokenizer, tiny_tokenizer

_STACK: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_SIZES: dict[str, Any] = {**_STACK, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}

TINY: dict[str, dict[str, Any]] = {
    "llama": {**_SIZES},
    "qwen2": {**_SIZES, "tie_word_embeddings": True},
    "mistral": {**_SIZES, "sliding_window": 8},
    "gemma": {**_SIZES},
    "gemma2": {**_SIZES, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "cohere": {**_SIZES, "logit_scale": 0.25},
    "granite": {**_SIZES, "logits_scaling": 4.0},
    "gpt_neox": {**_SIZES},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "opt": {**_SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}
"""Decoders by transformers' ``model_type``, with their sizes. bloom (ALiBi) and mamba take no tree masks."""

TINY_ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {**_STACK, "max_position_embeddings": 128},
    "roberta": {**_STACK, "max_position_embeddings": 130},  # two positions stand before the first
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 128},
    "albert": {**_STACK, "embedding_size": 16, "max_position_embeddings": 128},
}
"""Masked language models; ALBERT's two blocks share one set of weights."""

TINY_SEQ2SEQ: dict[str, dict[str, Any]] = {
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "n_positions": 128,
        "relative_attention_max_distance": 32,
        "feed_forward_proj": "gated-gelu",  # as Flan-T5, whose head is not tied either
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    },
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    },
}
"""Encoder-decoders; BART has no sentinels."""

TINY_OF_FAMILY = {"decoder": TINY, "encoder": TINY_ENCODERS, "seq2seq": TINY_SEQ2SEQ}
"""The architectures of each family; the first is the one that stands for it."""

_AUTO: dict[str, Any] = {
    "decoder": AutoModelForCausalLM,
    "encoder": AutoModelForMaskedLM,
    "seq2seq": AutoModelForSeq2SeqLM,
}

_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bert": bert_tokenizer,
    "roberta": roberta_tokenizer,
    "distilbert": bert_tokenizer,
    "albert": albert_tokenizer,
    "t5": t5_tokenizer,
    "bart": roberta_tokenizer,
}


def make_tiny(folder: Path, architecture: str = "llama", *, seed: int = 0, adds_bos: bool = False, **changes: Any) -> Path:
    """Write a tiny random model of an architecture of ``TINY_OF_FAMILY`` with its tokenizer to ``folder``; gives it back.

    ``changes`` go into its config; ``adds_bos`` is for decoders. The same arguments give the same weights.
    """
    family = tiny_family(architecture)
    tokenizer = tiny_tokenizer(adds_bos=adds_bos) if family == "decoder" else _TOKENIZERS[architecture]()
    pad = None if family == "decoder" else tokenizer.pad_token_id
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": pad}
    sizes = TINY_OF_FAMILY[family][architecture]
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **{**sizes, **ids, **changes})
    with torch.random.fork_rng(devices=[]):  # transformers draws first weights from the global generator
        model = _AUTO[family].from_config(config, dtype=torch.float32)
    if architecture == "t5" and not {**sizes, **changes}["tie_word_embeddings"]:
        untie_head(model)
    fill(model, torch.Generator().manual_seed(seed))
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def untie_head(model: Any) -> None:
    """Give a T5 an output layer of its own, as Flan-T5 has it.

    transformers ties every new one, whatever its config says, but keeps one that it finds in a file. It also forgets when
    saving that such a model's head gets its states unscaled, unless the config says so as it did for Flan-T5.
    """
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = False


def tiny_family(architecture: str) -> str:
    """The family of an architecture.

    >>> tiny_family("llama"), tiny_family("bert"), tiny_family("t5")
    ('decoder', 'encoder', 'seq2seq')
    """
    return next(family for family, table in TINY_OF_FAMILY.items() if architecture in table)


def fill(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter anew: matrices wide enough for sharp distributions, norms around 1, biases around 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_norm else 0.25 * noise if parameter.ndim > 1 else 0.1 * noise)
