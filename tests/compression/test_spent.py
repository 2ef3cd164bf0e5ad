"""What a compression left and took is measured, not computed from its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.compression.last_dense import LastDense
from harness.compression.rtn import Rtn
from harness.compression.spent import Peak, cost_of, peak_memory, relative_error
from harness.models.decoder import Decoder
from harness.models.tiny import make_tiny


def test_zeros_and_errors_are_those_of_the_weights_beside_the_dense_files(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    model = Decoder().load(folder, device="cpu", dtype="float32")
    layers = Decoder().linear_layers(model)
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    LastDense(0.25, unit="row").compress(model, layers, None)
    cost = cost_of(model.module, layers, folder, Peak())
    worst = "model.layers.1.mlp.down_proj"
    n_weights = sum(layer.weight.numel() for layer in layers.values())
    assert cost.sparsity == 8 * 64 / n_weights
    assert cost.worst_layer == worst
    assert cost.error_max == pytest.approx(float((layers[worst].weight - before[worst]).norm() / before[worst].norm()))
    assert cost.error_mean == pytest.approx(cost.error_max / len(layers))
    assert cost.memory_bytes == 4 * sum(parameter.numel() for parameter in model.module.parameters())


def test_where_the_files_name_their_weights_otherwise_there_is_no_error(tmp_path: Path) -> None:
    model = Decoder().load(make_tiny(tmp_path / "a"), device="cpu", dtype="float32")
    layers = Decoder().linear_layers(model)
    other = make_tiny(tmp_path / "b", "gpt_neox")
    cost = cost_of(model.module, layers, other, Peak())
    assert (cost.error_mean, cost.error_max, cost.worst_layer) == (None, None, "")


def test_errors_are_to_the_weights_that_the_model_was_loaded_from(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, folder / "model_average.safetensors")
    model = Decoder().load(folder, device="cpu", dtype="float32")
    assert cost_of(model.module, Decoder().linear_layers(model), folder, Peak()).error_max == 0.0


def test_more_bits_leave_less_error(another: Any) -> None:
    errors = []
    for bits in (2, 3, 4, 8):
        model, layers = another()
        before = layers["model.layers.0.mlp.up_proj"].weight.clone()
        Rtn(bits, 32).compress(model, layers, None)
        errors.append(relative_error(layers["model.layers.0.mlp.up_proj"].weight, before))
    assert errors == sorted(errors, reverse=True)


def test_the_peak_sees_memory_that_is_given_back_again() -> None:
    with peak_memory("cpu") as before:
        pass
    with peak_memory("cpu") as peak:
        for _ in range(3):
            torch.ones(60_000_000).sum()
    assert peak.n_bytes > before.n_bytes + 100e6
