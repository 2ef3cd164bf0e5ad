"""A checkpoint's plain tensors as the weights of a model: all of them, in the right shapes, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig

from harness.core.errors import ModelError
from harness.models.folders import first_line

_NO_WEIGHTS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "position_ids")
"""Endings of tensors that old checkpoints hold and models compute themselves."""

_SAME = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "hidden_act",
    "activation_function",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "rope_parameters",
    "sliding_window",
)
"""What tensors of the right shapes could still be run with otherwise: as many heads, another rotation, another activation."""


def check_config(module: Any, folder: Path) -> None:
    """Raise ModelError where a checkpoint's ``config.json`` says of the forward pass something else than its base model's.

    What the two are compared by is ``_SAME``, as transformers reads it; a folder without one says nothing.
    """
    if not (folder / "config.json").is_file():
        return
    try:
        theirs: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"transformers can't read config.json in {folder} ({first_line(error)}).") from error
    for key in _SAME:
        if hasattr(module.config, key):
            expected, came = getattr(module.config, key), getattr(theirs, key, None)
            if came != expected:
                raise _another(folder, module, f"its config says {key} = {came!r}, expected {expected!r}")


def fitted(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """For each parameter of ``module``, by its first name, the tensor that belongs there.

    Tied parameters need one tensor, and it must be of floats. A bias of zeros where the model has none is left out:
    AutoGPTQ writes one for each layer.
    Raises ModelError for a tensor that is missing, of another shape, or too many: a checkpoint of another model.
    """
    known = dict(module.named_parameters(remove_duplicate=False))
    odd = [
        name
        for name, tensor in tensors.items()
        if name not in known and not name.endswith(_NO_WEIGHTS) and not (name.endswith(".bias") and not tensor.any())
    ]
    if odd:
        raise _another(folder, module, f"it holds {odd[0]!r}, which the model does not have ({len(odd)} such tensors)")
    made: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        found = [other for other, tied in known.items() if tied is parameter and other in tensors]
        if not found:
            raise _another(folder, module, f"it lacks {name!r}")
        tensor = tensors[found[0]]
        if tensor.shape != parameter.shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(parameter.shape)}"
            raise _another(folder, module, f"its {name!r} is of shape {shapes}")
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise _another(
                folder, module, f"its {name!r} holds {kind} numbers, and its config does not say what they stand for"
            )
        made[name] = tensor
    return made


def _another(folder: Path, module: Any, why: str) -> ModelError:
    return ModelError(
        f"{folder} is not a checkpoint of this {type(module).__name__}: {why}; it is of another base model, or its config is "
        "not its own."
    )
