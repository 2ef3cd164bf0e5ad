"""Blocks of well-known form, computed in place while a batch is fed: on a CPU their own code spends a tenth of the time on
writing what is read once.

A module is replaced only where it is of that form by its parts and gives the same on a probe, so no list of architectures is
needed: a gated feed-forward, down(silu(gate(x)) * up(x)), and a root mean square norm, w * x / sqrt(mean(x²) + e) (Zhang and
Sennrich 2019, arXiv 1910.07467). The last feed-forward is computed only where something is read: no later layer sees the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from harness.models.loaded import LoadedModel

Forward = Callable[[Tensor], Tensor]

_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_PROBE_SCALES = (0.001, 0.1, 3.0, 100.0, 10_000.0)
"""How large the rows of the probe are: a norm's small term counts in small rows, a clamp in large ones."""

_RELATIVE = 1e-5
"""How far the two may be apart on a row of the probe, of its largest value: float32 rounds at 1e-7."""


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """Which of a row's tokens are read."""

    n_tokens: int
    places: Int[Tensor, " read"]


_READ: ContextVar[_Read | None] = ContextVar("read", default=None)


@contextmanager
def reading_only(n_tokens: int, places: Int[Tensor, " read"]) -> Iterator[None]:
    """While the block runs, of a row of ``n_tokens`` only these places' last hidden states are asked for."""
    token = _READ.set(_Read(n_tokens, places))
    try:
        yield
    finally:
        _READ.reset(token)


def lean_forwards(model: LoadedModel, *, last_where_read: bool = False) -> dict[nn.Module, Forward]:
    """The modules that can be computed in place, each with how. Empty but on a CPU in float32: elsewhere fused kernels do it,
    or a norm is computed in a wider type.

    ``last_where_read``: the last feed-forward leaves out what ``reading_only`` does not ask for. Whether it is the last to
    mix tokens, too, the caller finds out.
    """
    if model.device != "cpu" or model.dtype != "float32":
        return {}
    found: dict[nn.Module, Forward] = {}
    for module in model.module.modules():
        lean = _lean_form(module)
        if lean is not None and _gives_the_same(module, lean):
            found[module] = lean
    gated = [module for module in found if hasattr(module, "gate_proj")]
    if last_where_read and gated:
        found[gated[-1]] = partial(_gated_where_read, gated[-1])
    return found


@contextmanager
def computing_in_place(forwards: dict[nn.Module, Forward]) -> Iterator[None]:
    """While the block runs, these modules compute so, but for those whose parts somebody watches; then all is as it was."""
    before: dict[nn.Module, Any] = {}
    try:
        for module, lean in forwards.items():
            if not _is_watched(module):
                before[module] = vars(module).get("forward")
                module.forward = lean  # hides the class's own
        yield
    finally:
        for module, own in before.items():
            if own is None:
                vars(module).pop("forward", None)
            else:
                module.forward = own


def _is_watched(module: nn.Module) -> bool:
    """Whether a hook would miss a call, or see its output overwritten."""
    watched = [("gate_proj", "_forward_hooks"), ("act_fn", "_forward_hooks"), ("act_fn", "_forward_pre_hooks")]
    return any(getattr(getattr(module, part, None), hooks, None) for part, hooks in watched)


def _lean_form(module: nn.Module) -> Forward | None:
    if "forward" in vars(module):
        return None  # somebody has replaced it already
    children = dict(module.named_children())
    if set(children) == _GATED and not list(module.parameters(recurse=False)):
        return partial(_gated, module)
    parameters = dict(module.named_parameters(recurse=False))
    eps = getattr(module, "variance_epsilon", None)
    if not children and set(parameters) == {"weight"} and parameters["weight"].ndim == 1 and isinstance(eps, float):
        return partial(_norm, module)
    return None


def _gated(module: Any, x: Tensor) -> Tensor:
    gate = nn.functional.silu(module.gate_proj(x), inplace=True)
    made: Tensor = module.down_proj(gate.mul_(module.up_proj(x)))
    return made


def _gated_where_read(module: Any, x: Tensor) -> Tensor:
    read = _READ.get()
    if read is None or x.ndim != 3 or x.shape[:2] != (1, read.n_tokens):
        return _gated(module, x)
    made = torch.zeros_like(x)
    if len(read.places):
        made[0].index_copy_(0, read.places, _gated(module, x[0].index_select(0, read.places)))
    return made


def _norm(module: Any, x: Tensor) -> Tensor:
    mean_square: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    made: Tensor = (x * mean_square.add_(module.variance_epsilon).rsqrt_()).mul_(module.weight)
    return made


def _gives_the_same(module: nn.Module, lean: Forward) -> bool:
    layer: Any = getattr(module, "gate_proj", module)
    with torch.inference_mode():
        try:
            width = layer.weight.shape[-1]
            x = torch.sin(torch.arange(width, dtype=torch.float32)) * torch.tensor(_PROBE_SCALES)[:, None]
            own, ours = module(x.clone()), lean(x.clone())
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return False  # another form that only looks like this one
    if own.shape != ours.shape:
        return False
    return bool(((own - ours).abs().amax(-1) <= _RELATIVE * own.abs().amax(-1)).all())
