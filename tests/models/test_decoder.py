"""Decoders: loaded whole or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.core.errors import ConfigError, ModelError
from harness.models import MODELS
from harness.models.decoder import Decoder, check_tokenizer
from harness.models.folders import PLAIN_ENGLISH
from harness.models.sources import ResolvedModel
from harness.models.tiny import make_tiny, tiny_tokenizer


def test_the_shelf_has_the_decoder() -> None:
    assert MODELS.load("decoder")().name == "decoder"


def test_a_folder_is_loaded_for_evaluation_with_its_digests(tiny_llama: Path) -> None:
    model = Decoder().load(tiny_llama, device="cpu", dtype="float32")
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert (model.device, model.dtype, model.family, model.prefix_token_id) == ("cpu", "float32", "decoder", 0)
    assert model.module.config._attn_implementation == "sdpa"  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_dtype_is_an_argument(tiny_llama: Path, dtype: str) -> None:
    model = Decoder().load(tiny_llama, device="cpu", dtype=dtype)
    assert {parameter.dtype for parameter in model.module.parameters()} == {getattr(torch, dtype)}


def test_loading_leaves_the_global_generator_alone(tiny_llama: Path) -> None:
    before = torch.get_rng_state()
    Decoder().load(tiny_llama, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("device", "dtype"), [("tpu", "auto"), ("cuda:99x", "float32"), ("cpu", "float8")])
def test_an_unknown_device_or_dtype_is_the_users_mistake(tiny_llama: Path, device: str, dtype: str) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has cuda")
    with pytest.raises(ConfigError, match="choose auto or one of"):
        Decoder().load(tiny_llama, device=device, dtype=dtype)


def test_linear_layers_are_those_of_the_blocks_in_module_order(tiny_llama: Path) -> None:
    model = Decoder().load(tiny_llama, device="cpu")
    layers = Decoder().linear_layers(model)
    assert list(layers)[:4] == [f"model.layers.0.self_attn.{part}_proj" for part in "qkvo"]
    assert len(layers) == 14
    assert "lm_head" not in layers
    assert all(isinstance(layer, nn.Linear) for layer in layers.values())


def test_what_stands_between_embeddings_and_blocks_is_no_layer_to_compress(tmp_path: Path) -> None:
    model = Decoder().load(make_tiny(tmp_path, "opt", word_embed_proj_dim=16), device="cpu")
    assert model.module.get_submodule("model.decoder.project_in").weight.shape == (32, 16)
    assert all(name.startswith("model.decoder.layers.") for name in Decoder().linear_layers(model))


def test_gpt2_with_its_transposed_layers_can_not_be_compressed(tmp_path: Path) -> None:
    model = Decoder().load(make_tiny(tmp_path, "gpt2"), device="cpu")
    with pytest.raises(ModelError, match="8 transposed Conv1D layers"):
        Decoder().linear_layers(model)


def test_a_folder_that_lacks_a_weight_is_refused_not_filled_with_noise(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 .*up_proj"):
        Decoder().load(folder, device="cpu")


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    with pytest.raises(ModelError, match="can't load"):
        Decoder().load(folder, device="cpu")


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    hostile = {**config, "model_type": "evil", "auto_map": {"AutoConfig": "evil.E", "AutoModelForCausalLM": "evil.E"}}
    (folder / "config.json").write_text(json.dumps(hostile))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError):
        Decoder().load(folder, device="cpu")


class _Lossy:
    """A tokenizer that is right but for what a test makes wrong."""

    def __init__(self, *, is_fast: bool = True, lowers: bool = False) -> None:
        self.real, self.is_fast, self.lowers, self.unk_token_id = tiny_tokenizer(), is_fast, lowers, None

    def encode(self, text: str, **settings: bool) -> list[int]:
        ids: list[int] = self.real.encode(text.lower() if self.lowers else text, **settings)
        return ids

    def decode(self, ids: list[int], **settings: bool) -> str:
        return str(self.real.decode(ids, **settings))


def test_a_tokenizer_that_can_not_give_english_back_is_refused() -> None:
    check_tokenizer(_Lossy(), Path("m"))
    with pytest.raises(ModelError, match="does not give plain English back: expected 'The capital"):
        check_tokenizer(_Lossy(lowers=True), Path("m"))
    with pytest.raises(ModelError, match="slow"):
        check_tokenizer(_Lossy(is_fast=False), Path("m"))


@pytest.mark.real_model
def test_the_embedded_tokenizer_cuts_as_smollm2_does(embedded_model: ResolvedModel) -> None:
    model = Decoder().load(embedded_model.folder, device="cpu", dtype="float32")
    tokenizer = model.tokenizer
    ids = tokenizer.encode("The capital of France is Paris.")
    assert ids == [504, 3575, 282, 4649, 314, 7042, 30]
    assert tokenizer.convert_ids_to_tokens(ids) == ["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis", "ĠParis", "."]
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("in  1998")) == ["in", "ĠĠ", "1", "9", "9", "8"]
    for text in (*PLAIN_ENGLISH, " leading space", "two  spaces\n\tand a tab", "naïve café 北京 😀"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert model.prefix_token_id == 1
    assert len(Decoder().linear_layers(model)) == 210
