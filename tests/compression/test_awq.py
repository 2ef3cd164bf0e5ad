"""Awq: the library's own scaled model in the coordinates of the dense one, and better than rounding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import harness.compression.oneshot as door
from harness.compression import recipe_digest
from harness.compression.awq import Awq
from harness.compression.calibration import CalibrationText
from harness.compression.rtn import Rtn
from harness.compression.scopes import Scoped
from harness.core.errors import CompressionError, ConfigError
from harness.models import MODELS
from harness.models.decoder import Decoder
from harness.models.digest import digest_weights
from harness.models.tiny import make_tiny

SMALL = {"group_size": 32, "n_samples": 8, "sample_tokens": 32}


def states(model: Any, text: CalibrationText) -> Tensor:
    start = model.document_start_id
    sample = text.draw(model.tokenizer, n_samples=8, sample_tokens=32, seed=0, separator_id=start)
    with torch.inference_mode():
        out: Tensor = model.module.base_model(torch.from_numpy(sample.token_ids))[0]
    return out


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_it_computes_what_the_librarys_scaled_model_does(
    architecture: str, text: CalibrationText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Decoder()
    model = family.load(make_tiny(tmp_path, architecture), device="cpu", dtype="float32")
    run, scaled = door.oneshot, []
    monkeypatch.setattr(door, "oneshot", lambda **asked: (run(**asked), scaled.append(copy.deepcopy(asked["model"]))))
    before = model.module.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    layers = family.linear_layers(model)
    Awq(bits=4, **SMALL).compress(model, layers, text)
    theirs = copy.copy(model)
    theirs.module = scaled[0]
    torch.testing.assert_close(states(model, text), states(theirs, text), rtol=1e-3, atol=1e-3)
    after = model.module.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} <= {f"{name}.weight" for name in layers}
    norms = [name for name in before if "norm" in name and name.endswith("weight")]
    assert not all(torch.equal(scaled[0].state_dict()[name], after[name]) for name in norms)  # theirs carries the scales


def test_it_loses_less_than_rounding(text: CalibrationText, another: Any) -> None:
    errors = {}
    for method in (Awq(bits=3, **SMALL), Rtn(bits=3, group_size=32)):
        model, layers = another()
        for layer in list(layers.values())[:3]:  # a few strong channels, which is what the method is for
            layer.weight.data[:, :4] *= 0.2
        model.module.model.layers[0].input_layernorm.weight.data[:4] *= 20
        reference = copy.deepcopy(model)
        method.compress(model, layers, text)
        errors[method.name] = float((states(model, text) - states(reference, text)).square().mean())
    assert errors["awq"] < errors["rtn"]


def test_in_a_scope_the_other_layers_stay(another: Any, text: CalibrationText) -> None:
    model, layers = another()
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    made = Scoped(Awq(bits=4, **SMALL), "feed_forward").compress(model, layers, text)
    changed = {name for name, layer in layers.items() if not torch.equal(before[name], layer.weight)}
    assert changed == {name for name in layers if ".mlp." in name}
    assert made.effective_bits == 4.5


def test_the_same_recipe_gives_the_same_weights(another: Any, text: CalibrationText) -> None:
    digests = set()
    for _ in range(2):
        model, layers = another()
        Awq(bits=4, **SMALL).compress(model, layers, text)
        digests.add(digest_weights(model.module))
    assert len(digests) == 1
    assert recipe_digest(Awq(4), text) != recipe_digest(Awq(4, n_grid=5), text)


def test_a_class_of_which_it_is_not_known_what_feeds_what_is_refused(text: CalibrationText, tmp_path: Path) -> None:
    model = Decoder().load(make_tiny(tmp_path, "gpt_neox"), device="cpu", dtype="float32")
    with pytest.raises(CompressionError, match="where the scales of a GPTNeoXForCausalLM go is not known: take method 'gptq'"):
        Awq(bits=4, **{**SMALL, "group_size": 16}).compress(model, Decoder().linear_layers(model), text)


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_another_family_than_decoders_is_refused(architecture: str, text: CalibrationText, tmp_path: Path) -> None:
    family = MODELS.load({"bert": "encoder", "t5": "seq2seq"}[architecture])()
    model = family.load(make_tiny(tmp_path, architecture), device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match=r"awq.* take method 'rtn'.* or awq with a model of family 'decoder'"):
        Awq(bits=4, **SMALL).compress(model, family.linear_layers(model), text)


@pytest.mark.parametrize(("field", "value"), [("bits", 5), ("group_size", -1), ("symmetric", 1), ("n_grid", 2)])
def test_impossible_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"awq: {field} = "):
        Awq(**{"bits": 4, field: value})
