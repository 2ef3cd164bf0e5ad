"""A tiny random Llama with a folder of its own, and a text that it can be calibrated on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.compression.calibration import CalibrationText
from harness.models.loaded import LoadedModel


class Characters:
    """A tokenizer of one token a character."""

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [ord(character) % 128 for character in text]}


def make_tiny(folder: Path, dtype: torch.dtype = torch.float32) -> LoadedModel:
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    config.save_pretrained(folder)
    with torch.random.fork_rng(devices=()):
        module = LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.3, generator=generator)
    module = module.to(dtype).requires_grad_(False)
    return LoadedModel(module, Characters(), "decoder", folder, "w", "t", "cpu", str(dtype).removeprefix("torch."), 1)


def linear_layers(model: LoadedModel) -> dict[str, nn.Linear]:
    modules = model.module.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear) and name != "lm_head"}


@pytest.fixture
def tiny(tmp_path: Path) -> LoadedModel:
    folder = tmp_path / "tiny"
    folder.mkdir()
    return make_tiny(folder)


@pytest.fixture
def layers(tiny: LoadedModel) -> dict[str, nn.Linear]:
    return linear_layers(tiny)


@pytest.fixture
def another(tmp_path: Path) -> Any:
    """A maker of further models with the same weights: ``another()`` gives the model and its layers."""

    def make(dtype: torch.dtype = torch.float32) -> tuple[LoadedModel, dict[str, nn.Linear]]:
        folder = tmp_path / "another"
        folder.mkdir(exist_ok=True)
        model = make_tiny(folder, dtype)
        return model, linear_layers(model)

    return make


@pytest.fixture(scope="session")
def text() -> CalibrationText:
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "a",
        "lazy",
        "dog",
        "while",
        "seven",
        "wizards",
        "brew",
        "green",
        "tea",
        "under",
        "old",
        "oaks",
    ]
    return CalibrationText("tiny", tuple(" ".join(words[(i * k) % len(words)] for k in range(1, 12)) for i in range(1, 120)))
