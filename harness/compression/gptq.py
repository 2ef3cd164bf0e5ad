"""GPTQ (Frantar et al. 2023, arXiv 2210.17323) as llm-compressor does it: each layer is rounded column by column, the error
of every column made up for by those not yet rounded, as the calibration text weighs it. Blocks are done one after the
other, each on what the blocks compressed before it put out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.calibrated import check_family, check_gptq_fields, recipe_of, run, write_back
from harness.compression.checks import check_layers
from harness.compression.cost import quantized_bits, record_of
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

_SCALE_BITS = 16
_KERNEL = 1
"""Part of the recipe: raise it when the way to call the library changes results, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class Gptq:
    """Quantizes by GPTQ on the grid of ``rtn`` (float16 scales, from each group's reach before anything is rounded).

    ``bits`` a code; ``group_size`` weights a scale along a row (0: the whole row); ``symmetric``: no zero point;
    ``act_order``: columns of the strongest inputs first (groups stay where they are, so inference costs the same);
    ``n_samples`` calibration samples of ``sample_tokens`` tokens each, drawn with ``seed``; ``dampening``: what is added
    to the diagonal of the inputs' second moments, as a share of its mean.
    """

    name: ClassVar[str] = "gptq"
    stability: ClassVar[Stability] = "re-compressed"
    needs_text: ClassVar[bool] = True

    bits: int
    group_size: int = 64
    symmetric: bool = True
    act_order: bool = True
    n_samples: int = 16
    sample_tokens: int = 256
    dampening: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_gptq_fields(self)

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:
        """Fields, the text's digest, and the versions of the libraries. Raises ConfigError, MissingDependencyError."""
        return recipe_of(self, asdict(self), _KERNEL, text)

    def compress(self, model: LoadedModel, layers: Mapping[str, nn.Linear], text: CalibrationText | None) -> CompressionRecord:
        """Quantize the layers in place, all or none. Raises CompressionError, ConfigError for an encoder-decoder."""
        started_s = time.perf_counter()
        check_family(self.name, model)
        recipe = self.recipe(text)
        check_layers(self.name, layers, self.group_size)
        write_back(self.name, layers, run(self, model, layers, text, self._modifiers))
        return record_of(
            model.module,
            layers.values(),
            method=self.name,
            recipe=recipe,
            stability=self.stability,
            compressed_bits=sum(map(self._bits_of, layers.values())),
            wall_s=time.perf_counter() - started_s,
        )

    def _modifiers(self, names: Sequence[str]) -> list[Any]:
        from harness.compression.modifiers import gptq_modifiers

        return gptq_modifiers(
            names,
            bits=self.bits,
            group_size=self.group_size,
            symmetric=self.symmetric,
            act_order=self.act_order,
            dampening=self.dampening,
        )

    def _bits_of(self, layer: nn.Linear) -> int:
        return quantized_bits(
            layer.out_features,
            layer.in_features,
            bits=self.bits,
            group_size=self.group_size,
            scale_bits=_SCALE_BITS,
            symmetric=self.symmetric,
        )
