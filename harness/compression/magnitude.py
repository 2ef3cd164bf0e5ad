"""Magnitude pruning as Namburi et al. (2023, arXiv 2312.00960) do it: of all weights of the chosen layers together, those
nearest to zero become zero, in one shot and without retraining (Han et al. 2015; ``global_unstructured`` of torch)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import check_layers, check_sparsity
from harness.compression.cost import record_of, sparse_bits
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

log = logging.getLogger(__name__)

_KERNEL = 1
"""Part of the recipe: raise it when the kernel's results change, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Sets the ``sparsity`` share (in [0, 1), of all weights of the layers) with the smallest absolute value to zero.

    One threshold for all layers, so some lose more than others. Of weights of one size at the threshold the first go, in
    module order, row by row: exactly ``round(sparsity * n)`` weights, the same ones on every machine.
    """

    name: ClassVar[str] = "magnitude"
    stability: ClassVar[Stability] = "stable"
    needs_text: ClassVar[bool] = False

    sparsity: float

    def __post_init__(self) -> None:
        check_sparsity(self.name, self.sparsity)

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:  # noqa: ARG002 - the contract's
        """The fields and the kernel's version; the text plays no part."""
        return {"method": self.name, "kernel": _KERNEL, **asdict(self)}

    def compress(
        self,
        model: LoadedModel,
        layers: Mapping[str, nn.Linear],
        text: CalibrationText | None,  # noqa: ARG002 - the contract's
    ) -> CompressionRecord:
        """Prune the layers in place. Raises CompressionError."""
        from harness.compression.masks import smallest_masks

        started_s = time.perf_counter()
        check_layers(self.name, layers, group_size=0)
        log.info("magnitude: %d layers, %g of their weights to zero", len(layers), self.sparsity)
        weights = [layer.weight.detach() for layer in layers.values()]
        n_pruned = round(self.sparsity * sum(weight.numel() for weight in weights))
        for layer, pruned in zip(layers.values(), smallest_masks(weights, n_pruned), strict=True):
            layer.weight.data.masked_fill_(pruned, 0.0)
        return record_of(
            model.module,
            layers.values(),
            method=self.name,
            recipe=self.recipe(),
            stability=self.stability,
            compressed_bits=sum(sparse_bits(layer.weight) for layer in layers.values()),
            wall_s=time.perf_counter() - started_s,
        )
