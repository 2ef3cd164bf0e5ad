"""What a compressed checkpoint says about itself: its format, bits and groups, and which files hold its weights.

Each tool writes it in its own words, into ``config.json`` (``quantization_config``) or a file of its own beside it. Needs
no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import MissingDependencyError, ModelError
from harness.models.digest import shards_of

_BITS = (2, 3, 4, 8)
_PICKLED = (".bin", ".pt", ".pth")

_OWN_FILES = ("quantize_config.json", "quant_config.json")
"""Where AutoGPTQ and AutoAWQ write what ``config.json`` lacks."""

_NEEDS_ITS_OWNER = {
    "fp8": "its weights are 8-bit floats",
    "mxfp4": "its weights are 4-bit floats",
}


@dataclass(frozen=True, slots=True)
class Group:
    """How the layers that ``targets`` names are packed; ``group_size`` 0 is one group a row. A target is a class of modules,
    a module's name, or ``re:`` and a pattern."""

    targets: tuple[str, ...]
    bits: int
    group_size: int


@dataclass(frozen=True, slots=True)
class Quantization:
    """A checkpoint's format (a key of ``artifact_layers.FORMATS``) and how its layers are packed; without ``groups`` each
    layer says so itself. ``zero_offset`` is what GPTQ's stored zero points lack. ``identity`` is what all of this was read
    from."""

    format: str
    groups: tuple[Group, ...]
    identity: Mapping[str, Any]
    zero_offset: int = 0

    @property
    def words(self) -> str:
        """For people: the format, its bits and groups."""
        if not self.groups:
            return self.format
        return " or ".join(
            f"{group.bits} bits in groups of {group.group_size}" if group.group_size else f"{group.bits} bits, one group a row"
            for group in self.groups
        )

    def bits_of(self, layer: str) -> int:
        """The bits of a layer's codes."""
        return self._group_of(layer).bits

    def group_size_of(self, layer: str) -> int:
        """The weights that share a scale in a layer; 0 is a row."""
        return self._group_of(layer).group_size

    def _group_of(self, layer: str) -> Group:
        by_name = [group for group in self.groups if any(_names(target, layer) for target in group.targets)]
        return (by_name or self.groups)[0]


def read_quantization(folder: Path) -> Quantization | None:
    """What a folder says about its packing; None: it is a plain one. Raises ModelError, MissingDependencyError."""
    said = _said(folder)
    if said is None:
        return None
    unnamed = "awq" if "w_bit" in said else "gptq"  # neither names itself in its own file
    method = str(said.get("quant_method") or said.get("quant_type") or unnamed).lower()
    if method in _NEEDS_ITS_OWNER:
        raise MissingDependencyError(
            f"{folder} is quantized by {method}: {_NEEDS_ITS_OWNER[method]}, which this harness does not do; dequantize it "
            "with the tool that wrote it, and name the plain folder with dir:."
        )
    try:
        if method == "gptq":
            return _gptq(folder, said)
        if method == "awq":
            return _awq(folder, said)
        if method == "compressed-tensors":
            return _compressed(folder, said)
        if method == "bitsandbytes":
            return _bitsandbytes(said)
        if method == "torchao":
            return Quantization("torchao", (), {**said, "headers": _headers(folder)})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the quantization config of {folder} can't be understood ({type(error).__name__}: {error}): take the config that "
            "was written with the weights."
        ) from error
    raise ModelError(
        f"{folder} is quantized by {method!r}: expected gptq, awq, compressed-tensors, bitsandbytes or torchao; dequantize it "
        "with the tool that wrote it, and name the plain folder with dir:."
    )


def weight_files(folder: Path, *, pickled: bool = False) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, all there; its pickled ones where it has no others and ``pickled`` is said.

    Raises ModelError for a missing shard, for no file, or for several of which none is named as transformers or AutoGPTQ do.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder}: expected a checkpoint's; correct its path.")
    found = _files(folder, "model.safetensors", (".safetensors",))
    if found:
        return found
    other = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if other and pickled:
        return _files(folder, "pytorch_model.bin", _PICKLED)
    hint = f", only pickled ones, which run code when they are loaded ({other[0]})" if other else ""
    ask = "; `pickled = true` beside the folder reads nothing but tensors out of them" if other else ""
    raise ModelError(f"{folder} holds no safetensors weights{hint}: save the checkpoint as safetensors{ask}.")


def _files(folder: Path, usual_name: str, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """All shards that an index names, or the one file of these suffixes; none where there is none."""
    index = folder / f"{usual_name}.index.json"
    if index.is_file():
        named = shards_of(index)
        if (folder / usual_name).is_file() and folder / usual_name not in named:
            raise ModelError(
                f"{folder} holds {usual_name}, and an index that names other files ({named[0].name}): tools differ in what "
                "they load; remove what is not meant."
            )
        return named
    found = sorted(path for path in folder.iterdir() if path.suffix in suffixes)
    usual = [path for path in found if path.name == usual_name or path.name.startswith("gptq_model")]
    chosen = usual or found
    if len(chosen) > 1:
        raise ModelError(
            f"{folder} has {len(found)} {suffixes[0][1:]} files and no index ({', '.join(path.name for path in found)}): "
            f"expected one, or {index.name}; it is missing, or so are shards."
        )
    return tuple(chosen)


def _said(folder: Path) -> dict[str, Any] | None:
    config = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    said = config.get("quantization_config") or config.get("compression_config")
    for name in _OWN_FILES:
        if said is None and (folder / name).is_file():
            said = _json(folder / name)
    if said is not None and not isinstance(said, dict):
        raise ModelError(f"the quantization config of {folder} is no JSON object: get the checkpoint again.")
    return said


def _gptq(folder: Path, said: Mapping[str, Any]) -> Quantization:
    version = str(said.get("checkpoint_format") or "gptq").lower()
    if said.get("is_marlin_format") or version not in ("gptq", "gptq_v2"):
        layout = "marlin" if said.get("is_marlin_format") else version
        raise ModelError(
            f"{folder} is in the layout {layout!r}: expected GPTQ's own; save it again with checkpoint_format 'gptq'."
        )
    group = Group(("Linear",), _bits(said["bits"]), _group_size(said["group_size"]))
    return Quantization("gptq", (group,), said, zero_offset=0 if version == "gptq_v2" else 1)


def _awq(folder: Path, said: Mapping[str, Any]) -> Quantization:
    version = str(said.get("version", "gemm")).lower()
    if version != "gemm":
        raise ModelError(f"{folder} is in AWQ's layout {version!r}: expected 'gemm'; save it again with version 'GEMM'.")
    bits = said.get("bits", said.get("w_bit"))
    if bits != 4:
        raise ValueError(f"AWQ checkpoints have 4 bits, it says {bits}")
    size = said.get("group_size", said.get("q_group_size"))
    return Quantization("awq", (Group(("Linear",), 4, _group_size(size)),), said)


def _compressed(folder: Path, said: Mapping[str, Any]) -> Quantization:
    _check_weights_only(folder, said)
    groups, formats = [], set()
    for name, group in said["config_groups"].items():
        weights = group["weights"]
        if group.get("input_activations"):
            raise ModelError(
                f"{folder} quantizes inputs too (group {name}): only its weights could be measured, which is not the model "
                "that will run; take a weight-only scheme (W4A16, W8A16)."
            )
        formats.add(group.get("format") or said.get("format"))
        if weights.get("type", "int") != "int":
            raise ModelError(f"{folder} has weights of type {weights['type']!r} (group {name}): expected 'int'.")
        if weights.get("strategy", "group") not in ("group", "channel", "tensor"):
            raise ValueError(f"strategy {weights['strategy']!r} of group {name}")
        for target in group["targets"]:
            _check_pattern(target)
        groups.append(Group(tuple(group["targets"]), _bits(weights["num_bits"]), _group_size(weights.get("group_size"))))
    if not groups:
        raise ValueError("its config_groups are empty")
    if len(formats) != 1 or not formats <= {"pack-quantized", "int-quantized", "naive-quantized"}:
        raise ModelError(
            f"{folder} is in the format {' and '.join(sorted(map(str, formats)))} of compressed-tensors: expected "
            "pack-quantized, naive-quantized or int-quantized alone; save it again so."
        )
    packed = formats == {"pack-quantized"}
    return Quantization("pack-quantized" if packed else "int-quantized", tuple(groups), said)


def _check_weights_only(folder: Path, said: Mapping[str, Any]) -> None:
    """Raise ModelError for what compressed-tensors does beside packing weights."""
    sparse = (said.get("sparsity_config") or {}).get("format", "dense")
    if sparse != "dense":
        raise ModelError(f"{folder} stores its zeros in the format {sparse!r}: expected 'dense'; save it again without.")
    for key, what in (("kv_cache_scheme", "quantizes keys and values"), ("transform_config", "rotates what its layers get")):
        if said.get(key):
            raise ModelError(
                f"{folder} {what} as it runs ({key}): only its weights could be measured, which is not the model that will "
                "run; take a weight-only scheme (W4A16, W8A16)."
            )


def _check_pattern(target: str) -> None:
    try:
        re.compile(target.removeprefix("re:") if target.startswith("re:") else "")
    except re.error as error:
        raise ValueError(f"target {target!r}: {error}") from error


def _bitsandbytes(said: Mapping[str, Any]) -> Quantization:
    if said.get("load_in_8bit"):
        return Quantization("bitsandbytes-int8", (), said)
    kind = said.get("bnb_4bit_quant_type", "fp4")
    if not said.get("load_in_4bit") or kind not in ("nf4", "fp4"):
        raise ValueError(f"neither load_in_8bit nor load_in_4bit with nf4 or fp4, but {kind!r}")
    return Quantization(f"bitsandbytes-{kind}", (), said)


def _headers(folder: Path) -> dict[str, str]:
    """What torchao writes into the headers of its files: the blocks, dtypes and kinds of their tensors."""
    found: dict[str, str] = {}
    for file in _files(folder, "model.safetensors", (".safetensors",)):
        with file.open("rb") as stream:
            try:
                found |= json.loads(stream.read(int.from_bytes(stream.read(8), "little"))).get("__metadata__", {})
            except (OverflowError, MemoryError, ValueError) as error:
                raise ModelError(f"{file} is not a readable safetensors file ({error}): get it again.") from error
    return found


def _bits(bits: Any) -> int:
    if bits not in _BITS or type(bits) is not int:
        raise ValueError(f"{bits!r} bits, expected one of {', '.join(map(str, _BITS))}")
    return int(bits)


def _group_size(size: Any) -> int:
    if size is not None and (type(size) is not int or size < -1):
        raise ValueError(f"group_size {size!r}, expected a whole number, or -1 for a row")
    return 0 if size in (None, -1) else int(size)


def _names(target: str, layer: str) -> bool:
    if target.startswith("re:"):
        return re.match(target[3:], layer) is not None
    return layer == target or layer.endswith(f".{target}")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read as JSON ({error}): get the checkpoint again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object: get the checkpoint again.")
    return found
