"""Tiny random models, made in a second without a network: what conformance tests run every method on.

A tiny model knows nothing, but its weights are large enough for its scores to depend strongly on what it attends to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from harness.models.quiet import quiet_transformers

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}

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
"""The architectures by transformers' ``model_type``, with their sizes. bloom (ALiBi) and mamba take no tree masks."""

_TEXT = (
    "The capital of France is Paris. The capital of Germany is Berlin. The currency of Japan is the yen.",
    "Lisbon is the capital of Portugal, and the people there speak Portuguese. The symbol of gold is Au.",
)


def make_tiny(folder: Path, architecture: str = "llama", *, seed: int = 0, adds_bos: bool = False, **changes: Any) -> Path:
    """Write a tiny random model of an architecture of ``TINY`` with a byte-level tokenizer to ``folder``; gives it back.

    ``changes`` go into its config. The same arguments give the same weights.
    """
    tokenizer = tiny_tokenizer(adds_bos=adds_bos)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **{**TINY[architecture], **ids, **changes})
    auto: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):  # transformers draws first weights from the global generator
        model = auto.from_config(config, dtype=torch.float32)
    _fill(model, torch.Generator().manual_seed(seed))
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer(*, adds_bos: bool = False) -> Any:
    """A byte-level BPE tokenizer of 320 tokens with BOS and EOS; ``adds_bos``: whether it puts BOS before every text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(_TEXT, trainer)
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast: Any = PreTrainedTokenizerFast  # not annotated
    roles = {"bos_token": special[0], "eos_token": special[1]}
    return fast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **roles)


def _fill(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter anew: matrices wide enough for sharp distributions, norms around 1, biases around 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_norm else 0.25 * noise if parameter.ndim > 1 else 0.1 * noise)
