"""One layer of each packed format: which tensors it is made of, and its plain weight."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.models.artifact_config import Quantization
from harness.models.blockwise import said_in, unpack_affine, unpack_rows, unpack_table
from harness.models.packings import unpack_awq, unpack_compressed, unpack_gptq, unpack_words


@dataclass(frozen=True, slots=True)
class Layer:
    """A packed layer: its name, its tensors by their part of the name, the checkpoint's config, and its files' headers."""

    name: str
    parts: Mapping[str, Tensor]
    quantization: Quantization
    header: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Format:
    """``marker`` is the tensor that a packed layer has and no other, ``needed`` must stand beside it, ``optional`` may.

    ``unpack`` raises ValueError, RuntimeError or LookupError for tensors that do not go together.
    """

    marker: str
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    unpack: Callable[[Layer], Tensor]


def said_of(header: Mapping[str, str], layer: str) -> dict[str, Any]:
    """What a header of torchao's says of a layer's weight: its ``_type``, and ``_data``. Raises ValueError."""
    found = json.loads(header.get(f"{layer}.weight", "null"))
    if not isinstance(found, dict) or not isinstance(found.get("_data"), dict):
        raise ValueError("the file's header says nothing of it")
    return found


def _gptq(layer: Layer) -> Tensor:
    parts, quantization = layer.parts, layer.quantization
    scales, group_of = parts["scales"], parts.get("g_idx")
    bits = quantization.bits_of(layer.name)
    n_in = parts["qweight"].shape[0] * 32 // bits
    _expect_groups(n_in, quantization.group_size_of(layer.name), scales.shape[0])
    if group_of is not None and (
        group_of.numel() != n_in or not 0 <= int(group_of.min()) <= int(group_of.max()) < len(scales)
    ):
        raise ValueError(f"g_idx names {group_of.numel()} inputs in groups up to {int(group_of.max())}")
    if quantization.identity.get("sym") is True:
        _expect_middle(parts["qzeros"], bits, scales.shape[1], quantization.zero_offset)
    return unpack_gptq(parts["qweight"], parts["qzeros"], scales, group_of, bits=bits, zero_offset=quantization.zero_offset)


def _expect_middle(qzeros: Tensor, bits: int, n_out: int, zero_offset: int) -> None:
    """Raise ValueError unless every zero point is the middle of the codes: a version of the layout that is not its own, or
    ``sym`` where it is not so, would move every weight by whole steps."""
    zeros = (unpack_words(qzeros, bits, n_out) + zero_offset) & (2**bits - 1)
    if not (zeros == 2 ** (bits - 1)).all():
        odd = int(zeros[zeros != 2 ** (bits - 1)][0])
        raise ValueError(f"it says sym, and a zero point is {odd}, not {2 ** (bits - 1)}")


def _awq(layer: Layer) -> Tensor:
    parts, quantization = layer.parts, layer.quantization
    _expect_groups(parts["qweight"].shape[0], quantization.group_size_of(layer.name), parts["scales"].shape[0])
    return unpack_awq(parts["qweight"], parts["qzeros"], parts["scales"])


def _pack_quantized(layer: Layer) -> Tensor:
    parts, quantization = layer.parts, layer.quantization
    packed, scales = parts["weight_packed"], parts["weight_scale"]
    n_out, n_in = (int(size) for size in parts["weight_shape"].tolist())
    if packed.shape[0] != n_out:
        raise ValueError(f"weight_shape says {n_out} rows")
    _expect_groups(n_in, quantization.group_size_of(layer.name), scales.shape[1])
    zeros = parts.get("weight_zero_point")
    return unpack_compressed(
        packed, scales, zeros, parts.get("weight_g_idx"), bits=quantization.bits_of(layer.name), n_in=n_in
    )


def _int_quantized(layer: Layer) -> Tensor:
    parts, quantization = layer.parts, layer.quantization
    codes, scales = parts["weight"], parts["weight_scale"]
    bits = quantization.bits_of(layer.name)
    lowest, highest = int(codes.min()), int(codes.max())
    if not -(2 ** (bits - 1)) <= lowest <= highest < 2 ** (bits - 1):
        raise ValueError(f"its codes reach from {lowest} to {highest}")
    scales = scales.reshape(-1, 1) if scales.ndim < 2 else scales
    _expect_groups(codes.shape[1], quantization.group_size_of(layer.name), scales.shape[1])
    zeros = parts.get("weight_zero_point")
    shifted = codes.int() if zeros is None else codes.int() - _over_columns(zeros.int().reshape(scales.shape), codes)
    return shifted.to(scales.dtype) * _over_columns(scales, codes)


def _over_columns(per_group: Tensor, codes: Tensor) -> Tensor:
    return per_group.repeat_interleave(codes.shape[1] // per_group.shape[1], dim=1)


def _expect_groups(n_in: int, group_size: int, n_groups: int) -> None:
    """Raise ValueError unless ``n_groups`` groups of ``group_size`` (0: all) make up ``n_in`` inputs."""
    expected = -(-n_in // group_size) if group_size else 1
    if n_groups != expected:
        raise ValueError(f"{n_in} inputs make {expected} groups, its scales are of {n_groups}")


def _table(layer: Layer) -> Tensor:
    parts = layer.parts
    said = said_in(parts[f"weight.quant_state.bitsandbytes__{layer.quantization.format.removeprefix('bitsandbytes-')}"])
    nested = None
    if "weight.nested_absmax" in parts:
        nested = parts["weight.nested_absmax"], parts["weight.nested_quant_map"]
    return unpack_table(parts["weight"], parts["weight.absmax"], parts["weight.quant_map"], nested, said)


def _rows(layer: Layer) -> Tensor:
    if int(layer.parts.get("weight_format", 0)):
        raise ValueError("its rows are interleaved for a kernel (weight_format)")
    return unpack_rows(layer.parts["weight"], layer.parts["SCB"])


def _affine(layer: Layer) -> Tensor:
    data, parts = said_of(layer.header, layer.name)["_data"], layer.parts
    zeros = parts.get("_weight_zero_point")
    dtype = str((data.get("dtype") or {}).get("_data"))
    return unpack_affine(
        parts["_weight_qdata"], parts["_weight_scale"], zeros, block=data.get("block_size") or (), dtype=dtype
    )


def _bitsandbytes(kind: str) -> Format:
    beside = ("weight", "weight.absmax", "weight.quant_map")
    nested = ("weight.nested_absmax", "weight.nested_quant_map")
    return Format(f"weight.quant_state.bitsandbytes__{kind}", beside, nested, _table)


FORMATS = {
    "gptq": Format("qweight", ("qzeros", "scales"), ("g_idx",), _gptq),
    "awq": Format("qweight", ("qzeros", "scales"), (), _awq),
    "pack-quantized": Format(
        "weight_packed", ("weight_scale", "weight_shape"), ("weight_zero_point", "weight_g_idx"), _pack_quantized
    ),
    "int-quantized": Format("weight", ("weight_scale",), ("weight_zero_point",), _int_quantized),
    "bitsandbytes-nf4": _bitsandbytes("nf4"),
    "bitsandbytes-fp4": _bitsandbytes("fp4"),
    "bitsandbytes-int8": Format("weight", ("SCB",), ("weight_format",), _rows),
    "torchao": Format("_weight_qdata", ("_weight_scale",), ("_weight_zero_point",), _affine),
}
