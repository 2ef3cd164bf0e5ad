"""Wanda (Sun et al. 2024, arXiv 2306.11695) as llm-compressor does it: of every row those weights go whose absolute value
times the norm of their input is smallest. Nothing is made up for; blocks are done one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.calibrated import check_family, check_fields, recipe_of, run, write_back
from harness.compression.checks import PATTERNS, check_layers, check_pattern
from harness.compression.cost import record_of, sparse_bits
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

_KERNEL = 1
"""Part of the recipe: raise it when the way to call the library changes results, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class Wanda:
    """Sets the ``sparsity`` share (in [0, 1)) of each row to zero, rounded down to whole weights.

    ``pattern``: ``unstructured``, or ``2:4`` for two of every four neighbours (sparsity 0.5); ``n_samples`` calibration
    samples of ``sample_tokens`` tokens each, drawn with ``seed``.
    """

    name: ClassVar[str] = "wanda"
    stability: ClassVar[Stability] = "re-compressed"
    needs_text: ClassVar[bool] = True

    sparsity: float
    pattern: str = "unstructured"
    n_samples: int = 16
    sample_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_pattern(self.name, self.pattern, self.sparsity)
        check_fields(self)

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:
        """Fields, the text's digest, and the versions of the libraries. Raises ConfigError, MissingDependencyError."""
        return recipe_of(self, asdict(self), _KERNEL, text)

    def compress(self, model: LoadedModel, layers: Mapping[str, nn.Linear], text: CalibrationText | None) -> CompressionRecord:
        """Prune the layers in place, all or none. Raises CompressionError, ConfigError for an encoder-decoder."""
        started_s = time.perf_counter()
        check_family(self.name, model)
        recipe = self.recipe(text)
        check_layers(self.name, layers, group_size=0, multiple=4 if self.pattern == "2:4" else 1)
        write_back(self.name, layers, run(self, model, layers, text, self._modifiers))
        return record_of(
            model.module,
            layers.values(),
            method=self.name,
            recipe=recipe,
            stability=self.stability,
            compressed_bits=sum(sparse_bits(layer.weight) for layer in layers.values()),
            wall_s=time.perf_counter() - started_s,
        )

    def _modifiers(self, names: Sequence[str]) -> list[Any]:
        from harness.compression.modifiers import wanda_modifiers

        return wanda_modifiers(names, sparsity=self.sparsity, mask_structure=PATTERNS[self.pattern])
