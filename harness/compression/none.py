"""No compression: the dense row of every table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.cost import record_of
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel


@dataclass(frozen=True, slots=True)
class NoCompression:
    """Leaves the model as it is."""

    name: ClassVar[str] = "none"
    stability: ClassVar[Stability] = "stable"
    needs_text: ClassVar[bool] = False

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:  # noqa: ARG002 - the contract's
        """The method's name: it has no fields."""
        return {"method": self.name}

    def compress(
        self,
        model: LoadedModel,
        layers: Mapping[str, nn.Linear],  # noqa: ARG002
        text: CalibrationText | None,  # noqa: ARG002 - the contract's
    ) -> CompressionRecord:
        """Change nothing; say what the dense model weighs."""
        return record_of(
            model.module,
            (),
            method=self.name,
            recipe=self.recipe(),
            stability=self.stability,
            compressed_bits=0,
            wall_s=0.0,
        )
