"""Where a model runs and in which precision: the only place where "auto" is resolved."""

from __future__ import annotations

import torch

from harness.core.errors import ConfigError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str) -> str:
    """A device that this machine has: "auto" is cuda, else mps, else cpu. Raises ConfigError.

    >>> pick_device("cpu")
    'cpu'
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in has.items() if there)
    if not has.get(device.partition(":")[0], False):
        here = ", ".join(name for name, there in has.items() if there)
        raise ConfigError(f"device {device!r} is not on this machine: choose auto or one of {here}.")
    return device


def pick_dtype(dtype: str, device: str) -> str:
    """The dtype to load with: "auto" is bfloat16 on cuda, else float32. Raises ConfigError.

    >>> pick_dtype("auto", "cpu"), pick_dtype("auto", "cuda:1")
    ('float32', 'bfloat16')
    """
    if dtype == "auto":
        return "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not known: choose auto or one of {', '.join(_DTYPES)}.")
    return dtype


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a name that ``pick_dtype`` gave."""
    return _DTYPES[name]
