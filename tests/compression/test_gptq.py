"""Gptq: better than rounding for the same bits, repeatable, and gone without a trace."""

from __future__ import annotations

import logging
import os
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.compression import recipe_digest
from harness.compression.calibration import CalibrationText
from harness.compression.checks import QUANTIZED_BITS
from harness.compression.gptq import Gptq
from harness.compression.grid import fit_grid
from harness.compression.rtn import Rtn
from harness.core.errors import CompressionError, ConfigError
from harness.models.digest import digest_weights
from harness.models.loaded import LoadedModel

SMALL = {"group_size": 32, "n_samples": 12, "sample_tokens": 32}


def inputs_of(model: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText) -> dict[str, Tensor]:
    """What each layer of the dense model is given on the calibration sample, one row a token."""
    sample = text.draw(model.tokenizer, n_samples=12, sample_tokens=32, seed=0, separator_id=1)
    seen: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0].flatten(0, 1)))
        for name, layer in layers.items()
    ]
    with torch.inference_mode():
        model.module(input_ids=torch.from_numpy(sample.token_ids))
    for hook in hooks:
        hook.remove()
    return seen


def weighted_errors(another: Any, method: Any, text: CalibrationText) -> dict[str, float]:
    """Each layer's relative squared output error on the calibration sample."""
    model, layers = another()
    inputs = inputs_of(model, layers, text)
    dense = {name: inputs[name] @ layer.weight.T for name, layer in layers.items()}
    method.compress(model, layers, text)
    return {
        name: float((inputs[name] @ layer.weight.T - dense[name]).square().sum() / dense[name].square().sum())
        for name, layer in layers.items()
    }


@pytest.mark.parametrize("bits", QUANTIZED_BITS)
def test_layer_errors_on_the_calibration_text_are_below_those_of_rounding(
    another: Any, text: CalibrationText, bits: int
) -> None:
    solved = weighted_errors(another, Gptq(bits=bits, **SMALL), text)
    rounded = weighted_errors(another, Rtn(bits=bits, group_size=32), text)
    assert sum(solved.values()) < 0.8 * sum(rounded.values())
    first = [name for name in solved if name.startswith("model.layers.0.self_attn") and "o_proj" not in name]
    assert all(solved[name] < rounded[name] for name in first)


@pytest.mark.parametrize("group_size", [0, 32])
@pytest.mark.parametrize("act_order", [True, False])
def test_weights_lie_on_the_grid_of_rounding(another: Any, text: CalibrationText, group_size: int, act_order: bool) -> None:
    model, layers = another()
    grids = {name: fit_grid(layer.weight, bits=4, group_size=group_size, symmetric=True) for name, layer in layers.items()}
    Gptq(bits=4, act_order=act_order, **{**SMALL, "group_size": group_size}).compress(model, layers, text)
    for name, layer in layers.items():
        assert torch.equal(grids[name].weights(grids[name].codes(layer.weight)), layer.weight)


def test_the_same_recipe_gives_the_same_weights_and_another_seed_others(another: Any, text: CalibrationText) -> None:
    digests = []
    for seed in (0, 0, 1):
        model, layers = another()
        Gptq(bits=4, seed=seed, **SMALL).compress(model, layers, text)
        digests.append(digest_weights(model.module))
    assert digests[0] == digests[1] != digests[2]


def test_the_number_of_threads_changes_no_weight(another: Any, text: CalibrationText) -> None:
    before = torch.get_num_threads()
    digests = set()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            model, layers = another()
            Gptq(bits=4, **SMALL).compress(model, layers, text)
            assert torch.get_num_threads() == n_threads
            digests.add(digest_weights(model.module))
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_only_weights_of_the_given_layers_change(
    tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText
) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.module.state_dict().items()}
    structure = repr(tiny.module)
    chosen = {name: layer for name, layer in layers.items() if "self_attn" in name}
    record = Gptq(bits=4, **SMALL).compress(tiny, chosen, text)
    after = tiny.module.state_dict()
    assert list(after) == list(before)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {f"{name}.weight" for name in chosen}
    assert repr(tiny.module) == structure
    for module in tiny.module.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not [name for name in vars(module) if "quantization" in name]
    assert tiny.module.lm_head.weight is tiny.module.model.embed_tokens.weight
    assert record.effective_bits == 4.5
    assert record.recipe_digest == recipe_digest(Gptq(bits=4, **SMALL), text)


def global_state() -> tuple[Any, ...]:
    return dict(os.environ), random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002


def test_no_file_connection_environment_or_random_draw_is_left_behind(
    tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    folder = sorted(tiny.folder.iterdir())
    before = global_state()
    Gptq(bits=4, **SMALL).compress(tiny, layers, text)
    assert global_state() == before
    assert not list(work.iterdir())
    assert sorted(tiny.folder.iterdir()) == folder


def test_progress_goes_to_logging_and_nothing_to_the_terminal(
    another: Any, text: CalibrationText, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model, layers = another()
    with caplog.at_level(logging.INFO, logger="harness"):
        Gptq(bits=4, **SMALL).compress(model, layers, text)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "it/s]" not in printed.err
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "gptq: 7 of 14 layers compressed",
        "gptq: 14 of 14 layers compressed",
    ]


def test_layers_that_could_only_be_rounded_are_said_in_a_warning(
    tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText, caplog: pytest.LogCaptureFixture
) -> None:
    Gptq(bits=4, group_size=32, n_samples=1, sample_tokens=4, dampening=1e-12).compress(tiny, layers, text)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "round-to-nearest instead of GPTQ" in warnings[0]


def test_a_failure_of_the_library_is_one_sentence_and_leaves_the_model(
    tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("out of memory")

    import harness.compression.oneshot as door

    monkeypatch.setattr(door, "oneshot", fail)
    before = digest_weights(tiny.module)
    with pytest.raises(CompressionError, match=r"could not compress the model \(out of memory\): it was left as it was"):
        Gptq(bits=4, **SMALL).compress(tiny, layers, text)
    assert digest_weights(tiny.module) == before


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"bits": 16}, "bits = 16 is not possible: expected one of 2, 3, 4, 8"),
        ({"bits": 4, "n_samples": 0}, "n_samples = 0 is not possible: expected a whole number of at least 1"),
        ({"bits": 4, "dampening": 0.0}, "dampening = 0.0 is not possible: expected a number between 0 and 1"),
        ({"bits": 4, "dampening": "0.01"}, "dampening = '0.01'"),
        ({"bits": 4, "act_order": "weight"}, "act_order = 'weight'"),
        ({"bits": 4, "seed": -1}, "seed = -1"),
    ],
)
def test_impossible_fields_are_refused_when_the_recipe_is_made(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Gptq(**fields)


def test_what_does_not_fit_the_model_is_refused_before_anything_is_done(
    tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText
) -> None:
    before = digest_weights(tiny.module)
    with pytest.raises(ConfigError, match="needs a calibration text"):
        Gptq(bits=4).compress(tiny, layers, None)
    with pytest.raises(CompressionError, match="sample_tokens = 256 is more than the model's 128 positions"):
        Gptq(bits=4, group_size=32).compress(tiny, layers, text)
    with pytest.raises(CompressionError, match="group_size = 48 does not divide"):
        Gptq(bits=4, group_size=48).compress(tiny, layers, text)
    with pytest.raises(CompressionError, match="take fewer or shorter samples"):
        Gptq(bits=4, group_size=32, n_samples=10_000, sample_tokens=128).compress(tiny, layers, text)
    layers["model.layers.0.mlp.up_proj"].weight.data[0, 0] = float("nan")
    with pytest.raises(CompressionError, match="NaN"):
        Gptq(bits=4, **SMALL).compress(tiny, layers, text)
    layers["model.layers.0.mlp.up_proj"].weight.data[0, 0] = 0.0
    assert digest_weights(tiny.module) != before  # the 0 that this test put there, and nothing else


def test_text_fields_and_library_versions_are_part_of_the_recipe(text: CalibrationText) -> None:
    recipe = Gptq(bits=4).recipe(text)
    assert set(recipe["libraries"]) == {"llmcompressor", "compressed-tensors", "torch", "transformers"}
    assert recipe["calibration"] == text.digest
    other = CalibrationText("tiny", text.documents[1:])
    recipes = [(Gptq(4), text), (Gptq(4), other), (Gptq(4, seed=1), text), (Gptq(4, n_samples=8), text), (Gptq(3), text)]
    assert len({recipe_digest(method, words) for method, words in recipes}) == len(recipes)
