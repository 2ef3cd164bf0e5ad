"""Dynamic int8, beside torch's own ``quantize_dynamic``."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.compression.grid import round_to_nearest
from harness.compression.inputs import RoundInputs, attach, attached, round_inputs
from harness.compression.int8_dynamic import Int8Dynamic
from harness.core.errors import ConfigError, FileFormatError
from harness.models.loaded import LoadedModel


def theirs(layer: nn.Linear, inputs: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the API is deprecated; it is what the paper called
        made = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear}, dtype=torch.qint8)
        return made(inputs)


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="torch has no int8 engine of x86 here")
@pytest.mark.parametrize("seed", range(3))
def test_with_one_scale_a_tensor_and_7_bits_it_is_torchs(tiny: LoadedModel, layers: dict[str, nn.Linear], seed: int) -> None:
    name, layer = list(layers.items())[seed]
    inputs = torch.randn(5, 9, layer.in_features, generator=torch.Generator().manual_seed(seed)) + 0.3
    with torch.inference_mode():
        expected = theirs(layer, inputs)
        Int8Dynamic(per="tensor", input_bits=7).compress(tiny, {name: layer}, None)
        came = layer(inputs)
    # A value half-way between two codes may go either way: at most a step of one input, times one weight.
    step = (inputs.max().clamp(min=0) - inputs.min().clamp(max=0)) / 127
    difference = (came - expected).abs()
    assert difference.max() <= 2 * step * layer.weight.abs().max()
    assert (difference <= 1e-4).float().mean() > 0.95


def test_weights_have_one_scale_a_matrix(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    made = Int8Dynamic().compress(tiny, layers, None)
    for name, layer in layers.items():
        flat = round_to_nearest(before[name].reshape(1, -1), bits=8, group_size=0, symmetric=True, scale_dtype="float32")
        assert torch.equal(layer.weight, flat.reshape(layer.weight.shape))
    n_weights = sum(layer.weight.numel() for layer in layers.values())
    assert made.effective_bits == pytest.approx(8 + 32 * len(layers) / n_weights)
    assert attached(tiny.module) == dict.fromkeys(layers, "8-bit per token")


def test_a_token_is_rounded_alone_and_a_tensor_as_a_whole() -> None:
    inputs = torch.tensor([[0.0, 0.5, 1.0], [0.0, 50.0, 100.0]])
    alone = round_inputs(inputs[:1], bits=8, per="token")
    assert torch.equal(round_inputs(inputs, bits=8, per="token")[:1], alone)
    assert not torch.equal(round_inputs(inputs, bits=8, per="tensor")[:1], alone)


@pytest.mark.parametrize("per", ["token", "tensor"])
@pytest.mark.parametrize("bits", [7, 8])
def test_no_input_moves_by_more_than_a_step(per: str, bits: int) -> None:
    inputs = torch.randn(40, 33, generator=torch.Generator().manual_seed(0))
    rounded = round_inputs(inputs, bits=bits, per=per)
    reach = inputs.amax(-1, keepdim=True) - inputs.amin(-1, keepdim=True) if per == "token" else inputs.max() - inputs.min()
    assert ((rounded - inputs).abs() <= 1.01 * reach / (2**bits - 1)).all()  # half a step, and what the zero point moved
    assert torch.equal(round_inputs(torch.zeros(2, 3), bits=bits, per=per), torch.zeros(2, 3))


def test_the_last_to_be_told_decides_how_inputs_are_rounded() -> None:
    layer = nn.Linear(2, 2)
    for per in ("token", "tensor"):
        attach({"a": layer}, RoundInputs(8, per))
    assert attached(nn.ModuleDict({"a": layer})) == {"a": "8-bit per tensor"}


def test_a_label_is_read_back_and_another_is_refused() -> None:
    assert RoundInputs.parse(RoundInputs(7, "tensor").label) == RoundInputs(7, "tensor")
    with pytest.raises(FileFormatError, match="expected '<bits>-bit per token'"):
        RoundInputs.parse("8-bit a row")


@pytest.mark.parametrize(("field", "value"), [("per", "row"), ("input_bits", 4), ("input_bits", True)])
def test_impossible_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"int8_dynamic: {field} = "):
        Int8Dynamic(**{field: value})
