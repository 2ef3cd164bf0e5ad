"""Layers that round their inputs on the fly: what a format with quantized activations does besides its weights.

It is simulated: a hook before a layer puts each input on its nearest 8-bit point and hands it on in the model's own dtype. The
grid is torch's (``quantize_dynamic``): it reaches over the inputs and 0, with a zero point, newly for each call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.core.errors import FileFormatError


@dataclass(frozen=True, slots=True)
class RoundInputs:
    """A hook before a linear layer: ``bits`` a code; ``per``: one scale a ``token``, or one for the whole ``tensor``.

    With a scale a tensor an item's scores depend on which others share its batch, as they do in torch.
    """

    bits: int
    per: str

    @property
    def label(self) -> str:
        """How files name it: ``8-bit per token``."""
        return f"{self.bits}-bit per {self.per}"

    @classmethod
    def parse(cls, label: str) -> RoundInputs:
        """The hook of a label. Raises FileFormatError."""
        bits, _, per = label.partition("-bit per ")
        if not bits.isdigit() or per not in ("token", "tensor"):
            raise FileFormatError(f"inputs rounded to {label!r}: expected '<bits>-bit per token' or '… per tensor'.")
        return cls(int(bits), per)

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG002 - torch's signature
        """The layer's arguments with the first one rounded."""
        return (round_inputs(args[0], bits=self.bits, per=self.per), *args[1:])


def attach(layers: Mapping[str, nn.Module], hook: RoundInputs) -> None:
    """Have each layer round its inputs; one that did before now does as told last."""
    for layer in layers.values():
        for key, known in list(layer._forward_pre_hooks.items()):
            if isinstance(known, RoundInputs):
                del layer._forward_pre_hooks[key]
        layer.register_forward_pre_hook(hook)


def attached(model: nn.Module) -> dict[str, str]:
    """The labels of the hooks of a model's layers, by module name."""
    return {
        name: hook.label
        for name, module in model.named_modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, RoundInputs)
    }


def round_inputs(inputs: Float[Tensor, "*batch features"], *, bits: int, per: str) -> Float[Tensor, "*batch features"]:
    """Inputs on the nearest points of a grid of 2^bits points from their lowest to their highest value (0 within).

    All of one token, or of the whole tensor, that are 0 stay 0.

    >>> round_inputs(torch.tensor([[0.0, 100.0, 255.0], [0.0, 0.6, 2.55]]), bits=8, per="token").tolist()[0]
    [0.0, 100.0, 255.0]
    """
    values = inputs.float()
    low, high = (values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)) if per == "token" else values.aminmax()
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / scale).round()
    codes = ((values / scale).round() + zero).clamp(0, 2**bits - 1)
    return ((codes - zero) * scale).to(inputs.dtype)
