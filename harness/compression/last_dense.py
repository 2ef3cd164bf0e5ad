"""Pruning of the last dense layer only, what Namburi et al. (2023, arXiv 2312.00960) call local pruning: l1 or random, single
weights or whole rows. Which layer their last one is, they leave open: here it is the last in module order, as a block runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import check_choice, check_count, check_layers, check_sparsity
from harness.compression.cost import record_of, row_bits, sparse_bits
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

_KERNEL = 1
"""Part of the recipe: raise it when the kernel's results change, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class LastDense:
    """Sets a ``sparsity`` share (in [0, 1)) of the last layer's weights to zero; every other layer stays as it is.

    ``unit``: ``weight``, or ``row`` for all that one output reads (its bias stays); ``criterion``: ``l1``, those of the
    smallest (sum of) absolute values, or ``random``, drawn with ``seed``.
    """

    name: ClassVar[str] = "last_dense"
    stability: ClassVar[Stability] = "stable"
    needs_text: ClassVar[bool] = False

    sparsity: float
    criterion: str = "l1"
    unit: str = "weight"
    seed: int = 0

    def __post_init__(self) -> None:
        check_sparsity(self.name, self.sparsity)
        check_choice(self.name, "criterion", self.criterion, ("l1", "random"))
        check_choice(self.name, "unit", self.unit, ("weight", "row"))
        check_count(self.name, "seed", self.seed, least=0)

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:  # noqa: ARG002 - the contract's
        """The fields and the kernel's version; the text plays no part."""
        return {"method": self.name, "kernel": _KERNEL, **asdict(self)}

    def compress(
        self,
        model: LoadedModel,
        layers: Mapping[str, nn.Linear],
        text: CalibrationText | None,  # noqa: ARG002 - the contract's
    ) -> CompressionRecord:
        """Prune the last of the layers in place. Raises CompressionError."""
        started_s = time.perf_counter()
        check_layers(self.name, layers, group_size=0)
        layer = list(layers.values())[-1]
        pruned = self._mask(layer.weight.detach())
        layer.weight.data.masked_fill_(pruned, 0.0)
        return record_of(
            model.module,
            [layer],
            method=self.name,
            recipe=self.recipe(),
            stability=self.stability,
            compressed_bits=row_bits(layer.weight) if self.unit == "row" else sparse_bits(layer.weight),
            wall_s=time.perf_counter() - started_s,
        )

    def _mask(self, weight: Tensor) -> Tensor:
        from harness.compression.draws import random_mask
        from harness.compression.masks import smallest_masks

        units = weight.float().abs().sum(1, keepdim=True) if self.unit == "row" else weight
        n_pruned = round(self.sparsity * units.numel())
        if self.criterion == "random":
            return random_mask(units.shape, n_pruned, f"last-dense:{self.seed}").to(weight.device)
        return next(smallest_masks([units], n_pruned))
