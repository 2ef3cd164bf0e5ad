"""Codes that are scaled block by block, as bitsandbytes and torchao store them, as plain weights.

Products are taken in float32 and rounded once to the weight's own dtype, as in the owners' own code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

_LLM_INT8_STEPS = 127
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def said_in(stored: UInt8[Tensor, " bytes"]) -> dict[str, Any]:
    """The JSON object whose text bitsandbytes stores as a tensor. Raises ValueError."""
    found = json.loads(bytes(stored.tolist()))
    if not isinstance(found, dict):
        raise ValueError(f"its quant_state is {found!r}, expected an object")
    return found


def unpack_table(
    packed: Shaped[Tensor, " ..."],
    scales: Shaped[Tensor, " blocks"],
    table: Float[Tensor, " codes"],
    nested: tuple[Float[Tensor, " outer"], Float[Tensor, " inner"]] | None,
    said: Mapping[str, Any],
) -> Float[Tensor, "out in"]:
    """A layer of bitsandbytes' nf4 or fp4: two codes a byte, the first one high; a code's value stands in ``table``.

    Weights are counted along the rows, ``blocksize`` of them share one of ``scales`` (the largest absolute value). Where these
    are codes themselves (double quantization), ``nested`` has their own scales and table. ``said`` is the quant state: shape,
    block sizes, dtype, and the mean that was taken off nested scales. Raises ValueError for what does not go together.
    """
    shape, size = tuple(said.get("shape") or ()), said.get("blocksize")
    if len(shape) != 2 or type(size) is not int or size < 1 or said.get("dtype") not in _DTYPES:
        raise ValueError(f"its quant_state says shape {shape}, blocksize {size!r} and dtype {said.get('dtype')!r}")
    if nested is not None:
        outer, inner_size = nested[0], said.get("nested_blocksize")
        if type(inner_size) is not int or inner_size < 1 or type(said.get("nested_offset")) is not float:
            raise ValueError("its quant_state has no nested_blocksize or nested_offset")
        scales = _scaled(nested[1][scales.long()], outer, inner_size) + said["nested_offset"]
    codes = packed.reshape(-1).view(torch.uint8)
    both = torch.stack((codes >> 4, codes & 0xF), dim=1).flatten().long()
    n_weights = math.prod(shape)
    if both.numel() not in (n_weights, n_weights + 1):
        raise ValueError(f"it holds {both.numel()} codes for {n_weights} weights")
    values = _scaled(table.float()[both[:n_weights]], scales.float(), size)
    return values.reshape(shape).to(_DTYPES[said["dtype"]])


def unpack_rows(codes: Int[Tensor, "out in"], largest: Float[Tensor, " out"]) -> Float[Tensor, "out in"]:
    """A layer of bitsandbytes' LLM.int8(): 127 is the ``largest`` absolute value of the row. In float32."""
    if codes.ndim != 2 or largest.shape != codes.shape[:1]:
        raise ValueError("it does not have one scale a row")
    return codes.float() * largest.float()[:, None] * (1 / _LLM_INT8_STEPS)


def unpack_affine(
    codes: Shaped[Tensor, "out in"],
    scales: Float[Tensor, " ..."],
    zeros: Shaped[Tensor, " ..."] | None,
    *,
    block: Sequence[int],
    dtype: str,
) -> Float[Tensor, "out in"]:
    """A layer of torchao: codes (integers, 8-bit floats) less their zero points, times the scales of each ``block``.

    ``block`` is rows × columns. Raises ValueError for blocks that do not fill the layer, or another number of scales.
    """
    if (
        codes.ndim != 2
        or len(block) != 2
        or any(type(b) is not int or b < 1 or n % b for n, b in zip(codes.shape, block, strict=True))
    ):
        raise ValueError(f"blocks of {list(block)} do not fill {tuple(codes.shape)}")
    if dtype not in _DTYPES:
        raise ValueError(f"its dtype is {dtype!r}")
    shape = codes.shape[0] // block[0], codes.shape[1] // block[1]

    def spread(values: Tensor) -> Tensor:
        return values.float().reshape(shape).repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)

    shifted = codes.float() if zeros is None else codes.float() - spread(zeros)
    return (shifted * spread(scales)).to(_DTYPES[dtype])


def _scaled(values: Float[Tensor, " n"], scales: Float[Tensor, " blocks"], size: int) -> Float[Tensor, " n"]:
    """Values times the scale of their block; the last block may be shorter."""
    if scales.numel() != -(-values.numel() // size):
        raise ValueError(f"{values.numel()} values in blocks of {size} have {scales.numel()} scales")
    return values * scales.repeat_interleave(size)[: values.numel()]
