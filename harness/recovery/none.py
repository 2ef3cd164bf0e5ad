"""No recovery: the compressed model is scored as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from harness.models.loaded import LoadedModel


@dataclass(frozen=True, slots=True)
class NoRecovery:
    """Leaves the model as it is."""

    name: ClassVar[str] = "none"

    def recipe(self) -> dict[str, Any]:
        """The method's name: it has no fields."""
        return {"method": self.name}

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:  # noqa: ARG002 - the contract's
        """The model itself."""
        return model
