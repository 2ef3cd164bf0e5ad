"""AWQ (Lin et al. 2024, arXiv 2306.00978) as llm-compressor does it: before rounding, the inputs' channels are scaled so that
the error on the calibration text is smallest; the scales are found by a grid search, block after block.

The library puts a scale on a layer's inputs and takes it off what feeds them (a norm, or another layer). Here both are undone
after rounding, so that only the given layers change and stand for the same weights; in real checkpoints the norms carry it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.calibrated import check_family, check_fields, recipe_of, run, write_back
from harness.compression.checks import QUANTIZED_BITS, check_choice, check_count, check_layers
from harness.compression.cost import quantized_bits, record_of
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.compression.modifiers import AwqScales
    from harness.models.loaded import LoadedModel

_SCALE_BITS = 16
_KERNEL = 1
"""Part of the recipe: raise it when the way to call the library changes results, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class Awq:
    """Quantizes by AWQ, on the grid of ``rtn`` (float16 scales) of the scaled weights.

    ``bits`` a code; ``group_size`` weights a scale along a row (0: the whole row); ``symmetric``: no zero point; ``n_grid``:
    how many strengths of scaling are tried for each layer; ``n_samples`` calibration samples of ``sample_tokens`` tokens each,
    drawn with ``seed``. The search runs each block ``2 * n_grid`` times over the sample: it is smaller than GPTQ's.
    """

    name: ClassVar[str] = "awq"
    stability: ClassVar[Stability] = "re-compressed"
    needs_text: ClassVar[bool] = True

    bits: int
    group_size: int = 64
    symmetric: bool = True
    n_grid: int = 10
    n_samples: int = 8
    sample_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.name, "bits", self.bits, QUANTIZED_BITS)
        check_count(self.name, "group_size", self.group_size, least=0)
        check_choice(self.name, "symmetric", self.symmetric, (True, False))
        check_count(self.name, "n_grid", self.n_grid, least=3)  # the library divides by n_grid - 2
        check_fields(self)

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:
        """Fields, the text's digest, and the versions of the libraries. Raises ConfigError, MissingDependencyError."""
        return recipe_of(self, asdict(self), _KERNEL, text)

    def compress(self, model: LoadedModel, layers: Mapping[str, nn.Linear], text: CalibrationText | None) -> CompressionRecord:
        """Quantize the layers in place, all or none. Raises CompressionError, ConfigError for another family than decoders.

        Which layers feed which must be known of the model's class. A post-norm block (BERT's) has no place for the scales.
        """
        started_s = time.perf_counter()
        check_family(self.name, model, families=("decoder",))
        recipe = self.recipe(text)
        check_layers(self.name, layers, self.group_size)
        found: list[AwqScales] = []

        def modifiers(names: Sequence[str]) -> list[Any]:
            from harness.compression.modifiers import awq_modifiers

            made, scales = awq_modifiers(
                names,
                type(model.module).__name__,
                bits=self.bits,
                group_size=self.group_size,
                symmetric=self.symmetric,
                n_grid=self.n_grid,
            )
            found.append(scales)
            return made

        weights = run(self, model, layers, text, modifiers)
        write_back(self.name, layers, found[0].without_scales(weights))
        return record_of(
            model.module,
            layers.values(),
            method=self.name,
            recipe=recipe,
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
            scale_bits=_SCALE_BITS,
            symmetric=self.symmetric,
        )
