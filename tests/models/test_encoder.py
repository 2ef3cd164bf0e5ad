"""Encoders: loaded whole or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer

from harness.core.errors import ModelError
from harness.models import MODELS
from harness.models.encoder import Encoder, check_tokenizer
from harness.models.tiny import TINY_ENCODERS, make_tiny
from harness.models.tiny_tokenizers import albert_tokenizer, bert_tokenizer, roberta_tokenizer

ATTENTION = ("attention.self.", "attention.output.dense", ".attention.")
"""What names a linear layer of attention, BERT's output projection with it."""


def test_the_shelf_has_the_encoder() -> None:
    assert MODELS.load("encoder")().name == "encoder"


@pytest.mark.parametrize("architecture", TINY_ENCODERS)
def test_a_folder_is_loaded_for_evaluation_and_begins_texts_with_its_cls(architecture: str, tmp_path: Path) -> None:
    model = Encoder().load(make_tiny(tmp_path, architecture), device="cpu", dtype="float32")
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert (model.device, model.dtype, model.family, model.empty_context_id) == ("cpu", "float32", "encoder", None)
    assert model.document_start_id == model.tokenizer.encode("a")[0]
    with pytest.raises(ModelError, match="family 'encoder' has no token that a text without context would begin with"):
        _ = model.prefix_token_id


@pytest.mark.parametrize("architecture", TINY_ENCODERS)
def test_linear_layers_are_each_blocks_attention_and_feed_forward_and_nothing_else(architecture: str, tmp_path: Path) -> None:
    model = Encoder().load(make_tiny(tmp_path, architecture), device="cpu")
    layers = Encoder().linear_layers(model)
    n_blocks = 1 if architecture == "albert" else 2  # ALBERT's blocks are one block
    attention = [name for name in layers if any(part in name for part in ATTENTION)]
    assert (len(attention), len(layers)) == (4 * n_blocks, 6 * n_blocks)
    assert len({id(layer) for layer in layers.values()}) == len(layers)
    assert all(type(layer) is nn.Linear for layer in layers.values())
    left_out = {name for name, m in model.module.named_modules() if isinstance(m, nn.Linear)} - set(layers)
    heads = {
        "bert": {"cls.predictions.transform.dense", "cls.predictions.decoder"},
        "roberta": {"lm_head.dense", "lm_head.decoder"},
        "distilbert": {"vocab_transform", "vocab_projector"},
        "albert": {"albert.encoder.embedding_hidden_mapping_in", "predictions.dense", "predictions.decoder"},
    }
    assert left_out == heads[architecture]


def test_a_folder_that_lacks_a_weight_is_refused_not_filled_with_noise(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, "bert")
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 .*layer\.1\.output\.dense"):
        Encoder().load(folder, device="cpu")


def test_weights_as_they_lie_on_the_hub_are_taken(tmp_path: Path) -> None:
    """bert-base-uncased has a pooler and a sentence head that are not used, and names of norms from before PyTorch."""
    folder = make_tiny(tmp_path, "bert")
    before = Encoder().load(folder, device="cpu").module.state_dict()
    tensors = load_file(folder / "model.safetensors")
    old = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): t for name, t in tensors.items()}
    unused = {"bert.pooler.dense.bias": torch.ones(32), "cls.seq_relationship.bias": torch.ones(2)}
    save_file({**old, **unused}, folder / "model.safetensors", metadata={"format": "pt"})
    after = Encoder().load(folder, device="cpu").module.state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())


# ------------------------------------------------------------------------------------------------ tokenizers


@pytest.mark.parametrize("make", [bert_tokenizer, roberta_tokenizer, albert_tokenizer])
def test_uncased_tokenizers_that_lose_spaces_are_taken(make: Any) -> None:
    check_tokenizer(make(), Path("m"))


class _Changed:
    """A tokenizer that is right but for what a test makes wrong."""

    def __init__(self, **changes: Any) -> None:
        self.real, self.changes = bert_tokenizer(), changes

    def __getattr__(self, name: str) -> Any:
        return self.changes[name] if name in self.changes else getattr(self.real, name)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"is_fast": False}, "is a slow one: expected a fast tokenizer"),
        ({"mask_token": None}, "has no mask token: an encoder is read at a mask"),
        ({"mask_token": "[MASKED]"}, r"writes its mask '\[MASKED\]' as \d+ tokens, expected one"),
        ({"decode": lambda ids, **_: "the capital of"}, "does not give plain English back: expected 'The capital"),
        ({"unk_token_id": bert_tokenizer().encode("the", add_special_tokens=False)[0]}, "does not give plain English back"),
    ],
)
def test_a_tokenizer_that_can_not_be_read_at_a_mask_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        check_tokenizer(_Changed(**changes), Path("m"))


def test_a_mask_that_the_model_has_never_seen_is_refused(tmp_path: Path) -> None:
    """transformers adds a mask that is missing from the vocabulary behind it, beyond the model's embeddings."""
    folder = make_tiny(tmp_path, "bert")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "mask_token": "<mask>"}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    with pytest.raises(ModelError, match=r"the mask token in .* has the id 169, the model knows 169 tokens"):
        Encoder().load(folder, device="cpu")
