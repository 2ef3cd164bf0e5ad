"""Linear layers by oneDNN, where that multiplies float32 faster than the library that torch takes for it.

torch gives float32 products on x86 to MKL, which uses vectors of 256 bits on AMD's processors; oneDNN, which torch carries for
other types, uses all 512 bits there: 2.1 to 2.3 times as fast on a Zen 5. On Intel's processors the two are alike (0 to 5 %).
The sums are float32 in both.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.models.loaded import LoadedModel
from harness.scoring.lean import Forward, computing_in_place

FEWEST_PRODUCTS = 2**22
"""Multiplications below which a call's own cost, and a kernel made for each new shape, outweigh the gain."""

_CPUINFO = Path("/proc/cpuinfo")
_NO_KERNEL = "could not create a primitive"
log = logging.getLogger(__name__)


@cache
def onednn_is_faster() -> bool:
    """Whether this processor has vectors that MKL leaves unused, and torch the operator that uses them."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and "AuthenticAMD" in _processor() and _operator_works()


def multiplies_by_onednn(device: str, dtype: str) -> bool:
    """Whether linear layers do, on this device in this dtype."""
    return device == "cpu" and dtype == "float32" and onednn_is_faster()


def product_forwards(model: LoadedModel) -> dict[nn.Module, Forward]:
    """The plain linear layers of a model, each with its product by oneDNN; empty where that gains nothing."""
    if not multiplies_by_onednn(model.device, model.dtype):
        return {}
    return {
        module: partial(_linear, module)
        for module in model.module.modules()
        if isinstance(module, nn.Linear) and _is_plain(module)
    }


@contextmanager
def inferring(model: LoadedModel) -> Iterator[None]:
    """torch's inference mode, in which the model's plain linear layers multiply by the faster library."""
    with torch.inference_mode(), computing_in_place(product_forwards(model)):
        yield


def product(x: Float[Tensor, "... width"], weight: Float[Tensor, "out width"], bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias, float32 on a CPU, weights and bias without gaps: by oneDNN where it is worth it."""
    if x.numel() * len(weight) < FEWEST_PRODUCTS:
        return nn.functional.linear(x, weight, bias)
    try:
        return _multiply(x.contiguous(), weight, bias)
    except RuntimeError as error:
        if _NO_KERNEL not in str(error):
            raise
        _tell_no_kernel()
        return nn.functional.linear(x, weight, bias)


@cache
def _tell_no_kernel() -> None:
    """Said once: where memory for a kernel was lacking, oneDNN makes no other one in this process, however much there is."""
    log.warning("oneDNN lacked memory for a kernel: torch's own products take its place where it makes none")


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return made


def _operator_works() -> bool:
    """Whether torch has the operator as it is called here: nothing promises that it stays."""
    with torch.inference_mode():
        try:
            made = _multiply(torch.full((2, 3), 2.0), torch.full((4, 3), 5.0), torch.ones(4))
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
    return made.shape == (2, 4) and bool((made == 31).all())


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if _has_plain_parts(layer):  # they may have been replaced since the layer was chosen
        return product(x, layer.weight, layer.bias)
    return nn.functional.linear(x, layer.weight, layer.bias)


def _is_plain(module: nn.Linear) -> bool:
    """Whether it is torch's own layer over a plain matrix, with its own code."""
    return type(module) is nn.Linear and "forward" not in vars(module) and _has_plain_parts(module)


def _has_plain_parts(layer: nn.Linear) -> bool:
    """Whether its weight and bias are what the operator takes: with gaps, it is slow with the one and wrong with the other."""
    parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return all(type(part) is nn.Parameter and part.dtype == torch.float32 and part.is_contiguous() for part in parts)


def _processor() -> str:
    return _CPUINFO.read_text() if _CPUINFO.exists() else platform.processor()
