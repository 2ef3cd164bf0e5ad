"""A rounded model's layers as other tools store them: codes in int32 words, scales, zero points.

As compressed-tensors does (``pack-quantized``), or in GPTQ's own layout as AutoGPTQ wrote it; ``gptq_v2`` is GPTQModel's
second version of that, whose zero points are stored as they are. Codes are found again from the dense weights: both ``rtn``
and ``gptq`` round to the grid that reaches over each group of them. Nothing is guessed: a weight that does not lie on its grid
is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.compression.grid import Grid, fit_grid
from harness.core.errors import CompressionError
from harness.models.packings import pack_gptq, pack_words

PACKABLE = ("rtn", "gptq")
"""The methods whose weights lie on the grid of their dense weights."""

ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
"""What is taken off a zero point before it is stored, by version of GPTQ's layout."""

_WORD_BITS = 32


def packed_layers(
    layers: Mapping[str, nn.Linear], dense: Mapping[str, nn.Linear], recipe: Mapping[str, Any], form: str
) -> dict[str, Tensor]:
    """The tensors of a checkpoint for layers that ``recipe`` (of ``PACKABLE``) made out of ``dense``, by their names.

    ``form``: ``compressed-tensors``, or one of ``ZERO_OFFSETS``. Raises CompressionError for a weight off its grid, and for
    what GPTQ's layout can't hold.
    """
    made: dict[str, Tensor] = {}
    for name, layer in layers.items():
        grid, codes = _coded(name, layer, dense[name], recipe)
        found = _gptq_tensors(name, layer, grid, codes, form) if form in ZERO_OFFSETS else _tensors(grid, codes, recipe)
        made |= {f"{name}.{part}": value.cpu() for part, value in found.items()}
    return made


def quantization_config(
    module: nn.Module, layers: Mapping[str, nn.Linear], recipe: Mapping[str, Any], form: str
) -> dict[str, Any]:
    """What ``config.json`` says of such a checkpoint, in the words of the format's owner."""
    if form in ZERO_OFFSETS:
        act_order = recipe.get("act_order", False)
        solved = {"damp_percent": recipe["dampening"]} if "dampening" in recipe else {}
        return {
            "quant_method": "gptq",
            "checkpoint_format": form,
            "bits": recipe["bits"],
            "group_size": recipe["group_size"] or -1,
            "sym": recipe["symmetric"],
            "desc_act": act_order,
            "static_groups": act_order,  # neighbours share a group also where columns were done in another order
            **solved,
        }
    linear = [name for name, one in module.named_modules() if isinstance(one, nn.Linear)]
    weights = {
        "num_bits": recipe["bits"],
        "type": "int",
        "symmetric": recipe["symmetric"],
        "strategy": "group" if recipe["group_size"] else "channel",
        "group_size": recipe["group_size"] or None,
        "dynamic": False,
        "actorder": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "format": "pack-quantized"}},
        "ignore": [name for name in linear if name not in layers],
    }


def _coded(name: str, layer: nn.Linear, dense: nn.Linear, recipe: Mapping[str, Any]) -> tuple[Grid, Tensor]:
    """The grid of a layer and its weights' codes on it, (out, in)."""
    grid = fit_grid(
        dense.weight.detach(),
        bits=recipe["bits"],
        group_size=recipe["group_size"],
        symmetric=recipe["symmetric"],
        scale_dtype=recipe.get("scale_dtype", "float16"),
        computed_in=dense.weight.dtype if recipe["method"] == "gptq" else torch.float32,
    )
    weight = layer.weight.detach()
    if not recipe["symmetric"]:
        grid = _reaching(grid, weight)
    codes = grid.codes(weight)
    n_off = int((grid.weights(codes).to(weight.dtype) != weight).sum())
    if n_off:
        raise CompressionError(
            f"layer {name!r} has {n_off} weights that do not lie on the grid of its dense weights: it can't be packed; "
            "export it with --format plain."
        )
    return grid, codes.flatten(1)


def _reaching(grid: Grid, weight: Tensor) -> Grid:
    """The grid with each zero point moved no further than its codes must reach: llm-compressor divides by the scale before it
    is rounded, so that a zero point of 8 bits may be another."""
    lowest, highest = -(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1
    steps = (weight.float().reshape(len(weight), grid.scales.shape[1], -1) / grid.scales).round()
    least, most = lowest - steps.amin(-1, keepdim=True), highest - steps.amax(-1, keepdim=True)
    return replace(grid, zeros=grid.zeros.clamp(least, most).clamp(lowest, highest))


def _tensors(grid: Grid, codes: Tensor, recipe: Mapping[str, Any]) -> dict[str, Tensor]:
    unsigned, scales, zeros = _unsigned(grid, codes)
    made = {
        "weight_packed": pack_words(unsigned, grid.bits),
        "weight_scale": scales,
        "weight_shape": torch.tensor(codes.shape),
    }
    if not recipe["symmetric"]:
        made["weight_zero_point"] = pack_words(zeros.t(), grid.bits).t().contiguous()
    return made


def _gptq_tensors(name: str, layer: nn.Linear, grid: Grid, codes: Tensor, form: str) -> dict[str, Tensor]:
    """With the bias of zeros that AutoGPTQ writes for a layer that has none."""
    n_out, n_in = codes.shape
    if n_in % _WORD_BITS or n_out % _WORD_BITS:
        raise CompressionError(
            f"GPTQ's layout has widths that are multiples of {_WORD_BITS}, and {name!r} has {n_in} inputs and {n_out} "
            "outputs: take --format compressed-tensors."
        )
    unsigned, scales, zeros = _unsigned(grid, codes)
    try:
        qweight, qzeros = pack_gptq(unsigned, zeros, bits=grid.bits, zero_offset=ZERO_OFFSETS[form])
    except ValueError as error:
        raise CompressionError(
            f"{name!r} does not go into the first version of GPTQ's layout ({error}): take --format gptq_v2 or "
            "compressed-tensors."
        ) from error
    made = {
        "qweight": qweight,
        "qzeros": qzeros,
        "scales": scales.t().contiguous(),
        "g_idx": (torch.arange(n_in) // (n_in // scales.shape[1])).int(),
    }
    return made if layer.bias is not None else made | {"bias": torch.zeros(n_out)}


def _unsigned(grid: Grid, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes from 0, scales and zero points from 0 by (out, group). Scales stay in 32 bits: in 16 the product would be rounded
    once more than when it was scored."""
    first = 2 ** (grid.bits - 1)
    return (codes + first).long(), grid.scales.squeeze(-1).float(), (grid.zeros.squeeze(-1) + first).long()
