"""A rounded model's layers as compressed-tensors stores them (``pack-quantized``): codes in int32 words, scales, zero points.

Codes are found again from the dense weights: both ``rtn`` and ``gptq`` round to the grid that reaches over each group of
them. Nothing is guessed: a weight that does not lie on its grid is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn, tensor

from harness.compression.grid import Grid, fit_grid
from harness.core.errors import CompressionError
from harness.models.packings import pack_words

PACKABLE = ("rtn", "gptq")
"""The methods whose weights lie on the grid of their dense weights."""


def packed_layers(
    layers: Mapping[str, nn.Linear], dense: Mapping[str, nn.Linear], recipe: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The tensors of a checkpoint for layers that ``recipe`` (of ``PACKABLE``) made out of ``dense``, by their names.

    Raises CompressionError for a weight off its grid.
    """
    made: dict[str, Tensor] = {}
    for name, layer in layers.items():
        grid = fit_grid(
            dense[name].weight.detach(),
            bits=recipe["bits"],
            group_size=recipe["group_size"],
            symmetric=recipe["symmetric"],
            scale_dtype=recipe.get("scale_dtype", "float16"),
        )
        weight = layer.weight.detach()
        codes = grid.codes(weight)
        n_off = int((grid.weights(codes).to(weight.dtype) != weight).sum())
        if n_off:
            raise CompressionError(
                f"layer {name!r} has {n_off} weights that do not lie on the grid of its dense weights: it can't be packed; "
                "export it with --format plain."
            )
        made |= {f"{name}.{part}": value.cpu() for part, value in _tensors(grid, codes.flatten(1), recipe).items()}
    return made


def quantization_config(module: nn.Module, layers: Mapping[str, nn.Linear], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config.json`` says of such a checkpoint, in the words of compressed-tensors."""
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


def _tensors(grid: Grid, codes: Tensor, recipe: Mapping[str, Any]) -> dict[str, Tensor]:
    first = 2 ** (grid.bits - 1)  # codes are stored from 0
    scales = grid.scales.squeeze(-1)
    made = {
        "weight_packed": pack_words((codes + first).long(), grid.bits),
        "weight_scale": scales.float(),  # in 16 bits the product would be rounded once more than when it was scored
        "weight_shape": tensor(codes.shape),
    }
    if not recipe["symmetric"]:
        zeros = (grid.zeros.squeeze(-1) + first).long()
        made["weight_zero_point"] = pack_words(zeros.t(), grid.bits).t().contiguous()
    return made
