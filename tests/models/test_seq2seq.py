"""Encoder-decoders: loaded whole or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.core.errors import ModelError
from harness.models import MODELS
from harness.models.seq2seq import Seq2Seq, sentinel
from harness.models.tiny import make_tiny

FLAN_T5: dict[str, Any] = {}
T5_1_0: dict[str, Any] = {"feed_forward_proj": "relu", "tie_word_embeddings": True}


def test_the_shelf_has_the_encoder_decoder() -> None:
    assert MODELS.load("seq2seq")().name == "seq2seq"


@pytest.mark.parametrize(("changes", "n_layers"), [(FLAN_T5, 36), (T5_1_0, 32)])
def test_linear_layers_are_those_of_both_stacks_without_the_head(
    changes: dict[str, Any], n_layers: int, tmp_path: Path
) -> None:
    model = Seq2Seq().load(make_tiny(tmp_path, "t5", **changes), device="cpu", dtype="float32")
    layers = Seq2Seq().linear_layers(model)
    assert len(layers) == n_layers
    left_out = {name for name, m in model.module.named_modules() if isinstance(m, nn.Linear)} - set(layers)
    assert left_out == {"lm_head"}
    n_attention = sum("Attention." in name for name in layers)
    assert n_attention == 2 * 4 + 2 * 8
    assert n_attention + sum(".DenseReluDense." in name for name in layers) == n_layers


@pytest.mark.parametrize(("changes", "is_tied"), [(FLAN_T5, False), (T5_1_0, True)])
def test_the_head_is_tied_and_scaled_or_its_own_as_the_files_say(
    changes: dict[str, Any], is_tied: bool, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path, "t5", **changes)
    model: Any = Seq2Seq().load(folder, device="cpu", dtype="float32").module
    stored = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in stored) == (not is_tied)
    assert model.lm_head.weight.equal(stored["shared.weight" if is_tied else "lm_head.weight"])
    assert (model.lm_head.weight is model.shared.weight) == is_tied
    model.tie_weights()  # as lm-eval does: it must not take a head away
    assert (model.lm_head.weight is model.shared.weight) == is_tied
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        states = model.decoder(input_ids=ids, encoder_hidden_states=model.encoder(input_ids=ids)[0])[0]
        expected = (states * 32**-0.5 if is_tied else states) @ model.lm_head.weight.T
        assert torch.allclose(model(input_ids=ids, decoder_input_ids=ids).logits, expected, atol=1e-5)


def test_an_empty_context_is_bos_or_eos_and_sentinels_are_tokens_of_their_own(tmp_path: Path) -> None:
    model = Seq2Seq().load(make_tiny(tmp_path, "t5"), device="cpu")
    assert model.tokenizer.bos_token_id is None
    assert model.prefix_token_id == model.document_start_id == model.tokenizer.eos_token_id
    assert model.tokenizer.convert_ids_to_tokens([sentinel(model, 0), sentinel(model, 1)]) == ["<extra_id_0>", "<extra_id_1>"]


def test_a_model_without_sentinels_is_loaded_and_says_so_when_asked(tmp_path: Path) -> None:
    model = Seq2Seq().load(make_tiny(tmp_path, "bart"), device="cpu")
    assert len(Seq2Seq().linear_layers(model)) == 32
    with pytest.raises(ModelError, match=r"has no sentinel <extra_id_0>.* take a model of the T5 kind"):
        sentinel(model, 0)


def test_a_config_that_does_not_say_where_the_decoder_starts_is_refused(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, "t5")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": None}))
    with pytest.raises(ModelError, match="names no decoder_start_token_id"):
        Seq2Seq().load(folder, device="cpu")


def test_a_folder_that_lacks_a_weight_is_refused_not_filled_with_noise(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, "t5")
    tensors = load_file(folder / "model.safetensors")
    del tensors["decoder.block.1.layer.1.EncDecAttention.k.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 .*EncDecAttention\.k"):
        Seq2Seq().load(folder, device="cpu")


def test_a_tokenizer_that_lowers_text_is_refused(tmp_path: Path) -> None:
    """Unlike an encoder's: what an encoder-decoder writes is compared with the text as it stands."""
    folder = make_tiny(tmp_path, "t5")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "TokenizersBackend"}))
    with pytest.raises(ModelError, match="does not give plain English back: expected 'The capital"):
        Seq2Seq().load_tokenizer(folder)
