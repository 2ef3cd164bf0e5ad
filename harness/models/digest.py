"""Content digests of weights and tokenizers: what a model *is*, whatever its files are called or how they are cut.

The digest of weights is SHA-256 over the sorted (tensor name, dtype, shape, SHA-256 of the bytes), each tied tensor once.
It is the same for one file and for shards, and the same for a folder and for the module that transformers loads from it,
as long as the folder is as transformers saves it, the module keeps the folder's dtype, and transformers renames or fuses
nothing on loading (it does for GPT-NeoX and mixtures of experts: there the two digests differ for one and the same model).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.digest import digest_json, digest_named, digest_text
from harness.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"

_CHUNK_BYTES = 1 << 22
_WORKERS = 4
"""Threads that hash at once: hashlib lets go of the interpreter's lock."""

_TIED_NAMES = (
    "lm_head.weight",
    "embed_out.weight",
    "predictions.decoder.weight",
    "predictions.decoder.bias",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
    "vocab_projector.weight",
    "decoder.embed_tokens.weight",
    "encoder.embed_tokens.weight",
)
"""Endings of the names under which a tied tensor appears a second time, in the order in which they are left out."""

_CONVENTION = ("bos_token", "eos_token", "add_bos_token", "add_eos_token")
"""Keys of tokenizer_config.json that decide which special tokens stand around a text."""

_REBUILDS = ("mask_token", "do_lower_case", "strip_accents", "keep_accents", "add_prefix_space", "extra_ids")
"""Keys from which transformers' classes build parts of a tokenizer anew, over what tokenizer.json says. Most have none."""

_ABOUT_THE_FILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
"""Keys of config.json that do not change what is computed here: the dtype is chosen when the model is loaded."""

_TORCH_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where one tensor's bytes lie in a safetensors file."""

    path: Path
    start: int
    n_bytes: int
    dtype: str
    shape: tuple[int, ...]


def digest_weights_folder(folder: Path) -> str:
    """The content digest of the safetensors weights that a folder is loaded from; needs no torch. Raises ModelError."""
    return digest_weights_files(loaded_files(folder))


def digest_weights_files(files: Iterable[Path]) -> str:
    """The content digest of the tensors in safetensors files together, streamed. Raises ModelError."""
    stored: dict[str, _Stored] = {}
    for path in files:
        stored.update(_read_header(path))
    return _digest_tensors({name: _hash_stored(entry) for name, entry in stored.items()})


def loaded_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that transformers takes a folder's weights from: what its config names, ``model.safetensors``, or
    the shards of its index; where there is none of them, all. What else lies there must not hide what is loaded.

    Raises ModelError.
    """
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    named = config.get("transformers_weights") if isinstance(config, dict) else None
    if isinstance(named, str):
        return shards_of(folder / named) if named.endswith(".index.json") else (folder / named,)
    if (folder / _SINGLE).is_file():
        return (folder / _SINGLE,)
    if (folder / _INDEX).is_file():
        return shards_of(folder / _INDEX)
    found = tuple(sorted(folder.glob("*.safetensors")))
    if not found:
        raise ModelError(f"{folder} holds no *.safetensors weights: convert the model to safetensors first.")
    return found


def shards_of(index: Path) -> tuple[Path, ...]:
    """The files that an index of shards names, all there. Raises ModelError."""
    said = _read_json(index)
    named = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelError(f"{index} names no shards: get the model again.")
    shards = sorted(set(named.values()))
    lacking = [name for name in shards if not (index.parent / name).is_file()]
    if lacking:
        raise ModelError(
            f"{index.parent} lacks {len(lacking)} of its {len(shards)} shards (first: {lacking[0]}): get them again."
        )
    return tuple(index.parent / name for name in shards)


def digest_weights(module: nn.Module) -> str:
    """The content digest of a module in memory (its state dict), for weights that compression changed."""
    return _digest_tensors({name: _hash_tensor(tensor) for name, tensor in module.state_dict().items()})


def digest_parameters(module: nn.Module, without: Collection[str] = ()) -> dict[str, str]:
    """The content digest of each parameter of a module in memory by name, but those named."""
    return {name: _hash_tensor(one)() for name, one in module.named_parameters() if name not in without}


def digest_tokenizer(folder: Path) -> str:
    """The digest of a folder's tokenizer.json and of what else decides its tokens. Raises ModelError when there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} holds no tokenizer.json: only fast tokenizers can be used; save the model with one.")
    config = _read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    convention = {key: _content(config.get(key)) for key in _CONVENTION}
    convention |= {key: _content(config[key]) for key in _REBUILDS if key in config}
    return digest_json([digest_json(_read_json(path)), convention])


def digest_config(folder: Path) -> str:
    """The digest of what config.json says about the forward pass: the same tensors under another activation are another
    model. What only says who wrote the file is left out. Raises ModelError when there is none, or it is broken."""
    config = _read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} holds no JSON object: get the model again.")
    return digest_json({key: value for key, value in config.items() if key not in _ABOUT_THE_FILE})


# ------------------------------------------------------------------------------------------------ from tensors to one digest


def _digest_tensors(hashers: Mapping[str, Callable[[], str]]) -> str:
    with ThreadPoolExecutor(_WORKERS) as pool:
        digests = dict(zip(hashers, pool.map(lambda hasher: hasher(), hashers.values()), strict=True))
    return digest_named(_without_tied(digests))


def _without_tied(digests: Mapping[str, str]) -> dict[str, str]:
    """Leave out the second names of tied tensors: those of ``_TIED_NAMES`` whose content another name holds too.

    >>> sorted(_without_tied({"lm_head.weight": "a", "model.embed_tokens.weight": "a", "model.norm.weight": "b"}))
    ['model.embed_tokens.weight', 'model.norm.weight']
    """
    kept = dict(digests)
    for ending in _TIED_NAMES:
        for name in [name for name in kept if name.endswith(ending)]:
            if any(kept[other] == kept[name] for other in kept if other != name):
                del kept[name]
    return kept


def _describe(dtype: str, shape: Iterable[int], content: str) -> str:
    return digest_text(f"{dtype}\0{list(shape)}\0{content}")


def _hash_stored(entry: _Stored) -> Callable[[], str]:
    def hasher() -> str:
        state, left = hashlib.sha256(), entry.n_bytes
        with entry.path.open("rb") as stream:
            stream.seek(entry.start)
            while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
                state.update(chunk)
                left -= len(chunk)
        if left:
            raise ModelError(f"{entry.path} is cut short by {left} bytes: delete it and get it again.")
        return _describe(entry.dtype, entry.shape, state.hexdigest())

    return hasher


def _hash_tensor(tensor: Tensor) -> Callable[[], str]:
    def hasher() -> str:
        import torch

        dtype = str(tensor.dtype)
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return _describe(_TORCH_DTYPES.get(dtype, dtype), tensor.shape, hashlib.sha256(flat.numpy().data).hexdigest())

    return hasher


# ------------------------------------------------------------------------------------------------ files


def _read_header(path: Path) -> dict[str, _Stored]:
    """The tensors of a safetensors file: 8 bytes of header length, a JSON header, then the bytes."""
    broken = f"{path} is not a readable safetensors file: delete it and get it again."
    try:
        with path.open("rb") as stream:
            n_header = int.from_bytes(stream.read(8), "little")
            if not 2 <= n_header <= path.stat().st_size - 8:
                raise ModelError(broken)
            header = json.loads(stream.read(n_header))
        return {
            name: _Stored(path, 8 + n_header + entry["data_offsets"][0], _size(entry), entry["dtype"], tuple(entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(broken) from error


def _size(entry: Mapping[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return int(end) - int(start)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} holds no {path.name}: expected a model folder as transformers saves it.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read as JSON ({error}): get the model again.") from error


def _content(token: Any) -> Any:
    """A special token's text: transformers writes either the text or a mapping that holds it."""
    return token.get("content") if isinstance(token, dict) else token
