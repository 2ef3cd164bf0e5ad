"""Compressed checkpoints that other tools wrote, as plain weights: what they are is read off their config, never guessed.

GPTQ (AutoGPTQ, GPTQModel), AWQ (AutoAWQ's GEMM layout) and compressed-tensors (llm-compressor's ``pack-quantized`` and
``int-quantized``) are unpacked here, whatever is installed, so that a checkpoint is the same model on every machine. Only
safetensors are read; nothing is unpickled, no code of a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.core.errors import ModelError
from harness.models.artifact_config import Quantization, read_quantization, weight_files
from harness.models.packings import unpack_awq, unpack_compressed, unpack_gptq

_PACKED = {
    "gptq": ("qweight", ("qzeros", "scales"), ("g_idx",)),
    "awq": ("qweight", ("qzeros", "scales"), ()),
    "pack-quantized": ("weight_packed", ("weight_scale", "weight_shape"), ("weight_zero_point", "weight_g_idx")),
    "int-quantized": ("weight", ("weight_scale",), ("weight_zero_point",)),
}
"""By format: the tensor that marks a packed layer, what must stand beside it, and what may."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A checkpoint as plain tensors by name. ``packed_bits``: what each packed layer takes in the file, scales, zero points
    and indices with it, by the layer's name; ``size_bytes``: all of its weight files."""

    format: str
    tensors: Mapping[str, Tensor]
    packed_bits: Mapping[str, int]
    size_bytes: int


def read_artifact(folder: Path) -> Artifact:
    """The plain tensors of a checkpoint's folder. Raises ModelError.

    A weight keeps the dtype of its scales. Biases of zeros beside packed layers (AutoGPTQ writes one for each) are left out
    where the model has none; see ``compression.artifact``.
    """
    quantization = read_quantization(folder)
    files = weight_files(folder)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_read(file))
    packed_bits: dict[str, int] = {}
    if quantization is not None:
        for layer in list(_packed_layers(tensors, quantization.format)):
            weight, bits = _unpack(folder, layer, tensors, quantization)
            tensors[f"{layer}.weight"] = weight
            packed_bits[layer] = bits
        if not packed_bits:
            raise ModelError(
                f"{folder} says that it is quantized ({quantization.format}), but none of its tensors is: its config is that "
                "of another checkpoint; get both again."
            )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{folder}: {name} has NaN or infinite weights: the checkpoint is broken; write or get it again.")
    described = "plain" if quantization is None else quantization.format
    return Artifact(described, tensors, packed_bits, sum(file.stat().st_size for file in files))


def _read(file: Path) -> dict[str, Tensor]:
    if not file.stat().st_size:
        raise ModelError(f"{file} is empty (0 bytes): its download or its writing was cut off; get it again.")
    try:
        with safe_open(file, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a readable safetensors file ({error}): get it again.") from error


def _packed_layers(tensors: Mapping[str, Tensor], kind: str) -> Iterator[str]:
    marker = _PACKED[kind][0]
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        if part == marker and not tensor.is_floating_point():
            yield layer


def _unpack(folder: Path, layer: str, tensors: dict[str, Tensor], quantization: Quantization) -> tuple[Tensor, int]:
    """A layer's plain weight and the bits that it took; its packed tensors are gone from ``tensors`` afterwards."""
    marker, needed, optional = _PACKED[quantization.format]
    lacking = [part for part in needed if f"{layer}.{part}" not in tensors]
    if lacking:
        raise ModelError(f"{folder}: packed layer {layer} has no {' and no '.join(lacking)}: the checkpoint is incomplete.")
    parts = {part: tensors.pop(f"{layer}.{part}") for part in (marker, *needed, *optional) if f"{layer}.{part}" in tensors}
    try:
        weight = _UNPACKERS[quantization.format](layer, parts, quantization)
    except (ValueError, RuntimeError, IndexError) as error:
        shapes = ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in parts.items())
        raise ModelError(
            f"{folder}: layer {layer} does not hold what its config says, {quantization.words} ({shapes}; {error}): "
            "take the config that was written with it."
        ) from error
    return weight, sum(part.numel() * part.element_size() * 8 for part in parts.values())


# ------------------------------------------------------------------------------------------------ one layer of each format


def _gptq(layer: str, parts: Mapping[str, Tensor], quantization: Quantization) -> Tensor:
    scales, group_of = parts["scales"], parts.get("g_idx")
    bits = quantization.bits_of(layer)
    n_in = parts["qweight"].shape[0] * 32 // bits
    _expect_groups(n_in, quantization.group_size_of(layer), scales.shape[0])
    if group_of is not None and (
        group_of.numel() != n_in or not 0 <= int(group_of.min()) <= int(group_of.max()) < len(scales)
    ):
        raise ValueError(f"g_idx names {group_of.numel()} inputs in groups up to {int(group_of.max())}")
    return unpack_gptq(parts["qweight"], parts["qzeros"], scales, group_of, bits=bits, zero_offset=quantization.zero_offset)


def _awq(layer: str, parts: Mapping[str, Tensor], quantization: Quantization) -> Tensor:
    _expect_groups(parts["qweight"].shape[0], quantization.group_size_of(layer), parts["scales"].shape[0])
    return unpack_awq(parts["qweight"], parts["qzeros"], parts["scales"])


def _pack_quantized(layer: str, parts: Mapping[str, Tensor], quantization: Quantization) -> Tensor:
    packed, scales = parts["weight_packed"], parts["weight_scale"]
    n_out, n_in = (int(size) for size in parts["weight_shape"].tolist())
    if packed.shape[0] != n_out:
        raise ValueError(f"weight_shape says {n_out} rows")
    _expect_groups(n_in, quantization.group_size_of(layer), scales.shape[1])
    zeros = parts.get("weight_zero_point")
    return unpack_compressed(packed, scales, zeros, parts.get("weight_g_idx"), bits=quantization.bits_of(layer), n_in=n_in)


def _int_quantized(layer: str, parts: Mapping[str, Tensor], quantization: Quantization) -> Tensor:
    codes, scales = parts["weight"], parts["weight_scale"]
    scales = scales.reshape(-1, 1) if scales.ndim < 2 else scales
    _expect_groups(codes.shape[1], quantization.group_size_of(layer), scales.shape[1])
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


_UNPACKERS: dict[str, Callable[[str, Mapping[str, Tensor], Quantization], Tensor]] = {
    "gptq": _gptq,
    "awq": _awq,
    "pack-quantized": _pack_quantized,
    "int-quantized": _int_quantized,
}
