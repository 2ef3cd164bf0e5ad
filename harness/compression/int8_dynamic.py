"""Dynamic int8 as Namburi et al. (2023, arXiv 2312.00960) apply it (torch's ``quantize_dynamic``): weights in 8 bits with one
scale a matrix, inputs in 8 bits on the fly. Simulated, so that it runs on every device and any dtype."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import check_choice, check_layers
from harness.compression.cost import record_of
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

_BITS = 8
_SCALE_BITS = 32
_KERNEL = 1
"""Part of the recipe: raise it when the kernel's results change, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class Int8Dynamic:
    """Rounds each weight matrix to 8 bits with one float32 scale, and has each layer round its inputs as they come.

    ``per``: one scale a ``token`` of the inputs (the default, torchao's; an item's scores then depend on that item alone) or
    one for the whole ``tensor`` (torch's: on all that is in the batch). ``input_bits``: 8, or 7 as torch takes on x86, where
    sums of products of 8 bits can overflow. ``per = "tensor"`` with 7 bits is what the paper's calls compute there.
    """

    name: ClassVar[str] = "int8_dynamic"
    stability: ClassVar[Stability] = "stable"
    needs_text: ClassVar[bool] = False

    per: str = "token"
    input_bits: int = 8

    def __post_init__(self) -> None:
        check_choice(self.name, "per", self.per, ("token", "tensor"))
        check_choice(self.name, "input_bits", self.input_bits, (7, 8))

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:  # noqa: ARG002 - the contract's
        """The fields and the kernel's version; the text plays no part."""
        return {"method": self.name, "kernel": _KERNEL, **asdict(self)}

    def compress(
        self,
        model: LoadedModel,
        layers: Mapping[str, nn.Linear],
        text: CalibrationText | None,  # noqa: ARG002 - the contract's
    ) -> CompressionRecord:
        """Round the layers in place and have them round their inputs. Raises CompressionError."""
        from harness.compression.grid import round_to_nearest
        from harness.compression.inputs import RoundInputs, attach

        started_s = time.perf_counter()
        check_layers(self.name, layers, group_size=0)
        for layer in layers.values():
            weight = layer.weight.detach()
            rounded = round_to_nearest(weight.reshape(1, -1), bits=_BITS, group_size=0, symmetric=True, scale_dtype="float32")
            layer.weight.data.copy_(rounded.view_as(weight))
        attach(layers, RoundInputs(self.input_bits, self.per))
        return record_of(
            model.module,
            layers.values(),
            method=self.name,
            recipe=self.recipe(),
            stability=self.stability,
            compressed_bits=sum(_BITS * layer.weight.numel() + _SCALE_BITS for layer in layers.values()),
            wall_s=time.perf_counter() - started_s,
        )
