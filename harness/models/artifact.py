"""Compressed checkpoints that other tools wrote, as plain weights: what they are is read off their config, never guessed.

GPTQ (AutoGPTQ, GPTQModel), AWQ (AutoAWQ's GEMM layout), compressed-tensors (llm-compressor's ``pack-quantized`` and
``int-quantized``), bitsandbytes (nf4, fp4, LLM.int8()) and torchao (weight-only integers and 8-bit floats) are unpacked here,
whatever is installed, so that a checkpoint is the same model on every machine. No code of a checkpoint is run; pickled files
are read only where the caller says so, and only for their tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.core.errors import MissingDependencyError, ModelError
from harness.models.artifact_config import Quantization, read_quantization, weight_files
from harness.models.artifact_layers import FORMATS, Layer, said_of

TORCHAO_TYPES = ("Int8Tensor", "IntxUnpackedToInt8Tensor", "Float8Tensor")
"""torchao's tensors that are codes, scales and zero points by blocks; the others are laid out for a kernel."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A checkpoint as plain tensors by name. ``packed_bits``: what each packed layer takes in the file, scales, zero points
    and indices with it, by the layer's name; ``size_bytes``: all of its weight files."""

    format: str
    tensors: Mapping[str, Tensor]
    packed_bits: Mapping[str, int]
    size_bytes: int


def read_artifact(folder: Path, *, pickled: bool = False) -> Artifact:
    """The plain tensors of a checkpoint's folder; ``pickled``: also of ``.bin`` and ``.pt`` files, where there are no others.

    A weight keeps the dtype of its scales, or the one that its format names. Biases of zeros beside packed layers (AutoGPTQ
    writes one for each) are left out where the model has none; see ``compression.artifact``. Raises ModelError, and
    MissingDependencyError for a layout that only its owner knows.
    """
    quantization = read_quantization(folder)
    files = weight_files(folder, pickled=pickled)
    tensors: dict[str, Tensor] = {}
    header: dict[str, str] = {}
    for file in files:
        tensors.update(_read(file, header))
    packed_bits: dict[str, int] = {}
    if quantization is not None:
        if quantization.format == "torchao":
            _check_torchao(folder, header)
        for layer in list(_packed_layers(tensors, quantization.format)):
            weight, bits = _unpack(folder, layer, tensors, quantization, header)
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


def _read(file: Path, header: dict[str, str]) -> dict[str, Tensor]:
    """A file's tensors; what it says of them is added to ``header``."""
    if not file.stat().st_size:
        raise ModelError(f"{file} is empty (0 bytes): its download or its writing was cut off; get it again.")
    if file.suffix != ".safetensors":
        from harness.models.pickled import read_pickled

        return read_pickled(file)
    try:
        with safe_open(file, framework="pt") as stored:
            header.update(stored.metadata() or {})
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a readable safetensors file ({error}): get it again.") from error


def _packed_layers(tensors: Mapping[str, Tensor], kind: str) -> Iterator[str]:
    marker = FORMATS[kind].marker
    for name, tensor in tensors.items():
        if name.endswith(f".{marker}") and (marker != "weight" or not tensor.is_floating_point()):
            yield name.removesuffix(f".{marker}")


def _unpack(
    folder: Path, layer: str, tensors: dict[str, Tensor], quantization: Quantization, header: Mapping[str, str]
) -> tuple[Tensor, int]:
    """A layer's plain weight and the bits that it took; its packed tensors are gone from ``tensors`` afterwards."""
    kind = FORMATS[quantization.format]
    lacking = [part for part in kind.needed if f"{layer}.{part}" not in tensors]
    if lacking:
        raise ModelError(f"{folder}: packed layer {layer} has no {' and no '.join(lacking)}: the checkpoint is incomplete.")
    all_parts = (kind.marker, *kind.needed, *kind.optional)
    parts = {part: tensors.pop(f"{layer}.{part}") for part in all_parts if f"{layer}.{part}" in tensors}
    try:
        weight = kind.unpack(Layer(layer, parts, quantization, header))
    except (ValueError, RuntimeError, LookupError) as error:
        shapes = ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in parts.items())
        raise ModelError(
            f"{folder}: layer {layer} does not hold what its config says, {quantization.words} ({shapes}; {error}): "
            "take the config that was written with it."
        ) from error
    return weight, sum(part.numel() * part.element_size() * 8 for part in parts.values())


def _check_torchao(folder: Path, header: Mapping[str, str]) -> None:
    """Raise MissingDependencyError for a tensor whose layout only torchao knows, ModelError for one that rounds inputs."""
    for layer in (name.removesuffix(".weight") for name in header if name.endswith(".weight")):
        try:
            said = said_of(header, layer)
        except ValueError:
            continue  # a plain tensor
        if said.get("_type") not in TORCHAO_TYPES:
            raise MissingDependencyError(
                f"{folder}: {layer} is torchao's {said.get('_type')}, whose layout only torchao knows: dequantize the model "
                "with it (pip install torchao), and name the plain folder with dir:."
            )
        if any(said["_data"].get(key) for key in ("act_quant_kwargs", "activation_quantization")):
            raise ModelError(
                f"{folder} quantizes inputs too ({layer}): only its weights could be measured, which is not the model that "
                "will run; take a weight-only config."
            )
