"""Round-to-nearest quantization: no data, no solver, the same bits on every machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import QUANTIZED_BITS, check_choice, check_count, check_layers
from harness.compression.cost import quantized_bits, record_of
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

log = logging.getLogger(__name__)

_SCALE_BITS = {"float16": 16, "float32": 32}
_KERNEL = 1
"""Part of the recipe: raise it when the kernel's results change, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class Rtn:
    """Rounds each weight to the nearest point of its group's uniform grid.

    ``bits`` a code; ``group_size`` weights a scale along a row (0: the whole row); ``symmetric``: no zero point, the grid
    of W4A16 checkpoints; ``scale_dtype``: what scales are rounded to, as shipped formats store them.
    """

    name: ClassVar[str] = "rtn"
    stability: ClassVar[Stability] = "stable"
    needs_text: ClassVar[bool] = False

    bits: int
    group_size: int = 64
    symmetric: bool = True
    scale_dtype: str = "float16"

    def __post_init__(self) -> None:
        check_choice(self.name, "bits", self.bits, QUANTIZED_BITS)
        check_count(self.name, "group_size", self.group_size, least=0)
        check_choice(self.name, "symmetric", self.symmetric, (True, False))
        check_choice(self.name, "scale_dtype", self.scale_dtype, tuple(_SCALE_BITS))

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:  # noqa: ARG002 - the contract's
        """The fields and the kernel's version; the text plays no part."""
        return {"method": self.name, "kernel": _KERNEL, **asdict(self)}

    def compress(
        self,
        model: LoadedModel,
        layers: Mapping[str, nn.Linear],
        text: CalibrationText | None,  # noqa: ARG002 - the contract's
    ) -> CompressionRecord:
        """Round the layers in place. Raises CompressionError."""
        from harness.compression.grid import round_to_nearest

        started_s = time.perf_counter()
        check_layers(self.name, layers, self.group_size)
        log.info("rtn: %d layers to %d bits", len(layers), self.bits)
        for layer in layers.values():
            rounded = round_to_nearest(
                layer.weight.detach(),
                bits=self.bits,
                group_size=self.group_size,
                symmetric=self.symmetric,
                scale_dtype=self.scale_dtype,
            )
            layer.weight.data.copy_(rounded)
        return record_of(
            model.module,
            layers.values(),
            method=self.name,
            recipe=self.recipe(),
            stability=self.stability,
            compressed_bits=sum(map(self._bits_of, layers.values())),
            wall_s=time.perf_counter() - started_s,
        )

    def _bits_of(self, layer: nn.Linear) -> int:
        return quantized_bits(
            layer.out_features,
            layer.in_features,
            bits=self.bits,
            group_size=self.group_size,
            scale_bits=_SCALE_BITS[self.scale_dtype],
            symmetric=self.symmetric,
        )
