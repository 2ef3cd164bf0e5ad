"""Gaussian noise on the weights: no compression, but a loss of a known and finely chosen size, for controls of the gate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import check_count, check_layers
from harness.compression.cost import DENSE_BITS, record_of
from harness.core.errors import ConfigError
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

_KERNEL = 1
"""Part of the recipe: raise it when the kernel's results change, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Adds to each weight a number from a normal distribution with the standard deviation ``share`` × that of its layer.

    Each layer draws from a generator of its own, named by ``seed`` and the layer, so a scope changes no layer's noise.
    """

    name: ClassVar[str] = "noise"
    stability: ClassVar[Stability] = "stable"
    needs_text: ClassVar[bool] = False

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if type(self.share) not in (int, float) or not 0 <= self.share < float("inf"):
            raise ConfigError(f"noise: share = {self.share!r} is not possible: expected a number of at least 0.")
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
        """Add the noise in place. Raises CompressionError."""
        from harness.compression.draws import normal

        started_s = time.perf_counter()
        check_layers(self.name, layers, group_size=0)
        for name, layer in layers.items():
            weight = layer.weight.detach()
            noise = normal(tuple(weight.shape), f"noise:{self.seed}:{name}").to(weight.device)
            deviation = float(weight.double().std(correction=0).half())  # so that the order of a sum can't show in it
            layer.weight.data.copy_(weight.float() + self.share * deviation * noise)
        return record_of(
            model.module,
            layers.values(),
            method=self.name,
            recipe=self.recipe(),
            stability=self.stability,
            compressed_bits=sum(DENSE_BITS * layer.weight.numel() for layer in layers.values()),
            wall_s=time.perf_counter() - started_s,
        )
