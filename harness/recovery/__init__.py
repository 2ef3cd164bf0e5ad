"""Recovery methods, one file each. A method is a frozen dataclass: its fields are the hyper-parameters, its verb
``recover`` takes a loaded compressed model (and, where it was trained, a stored artifact) and returns what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from harness.core.digest import digest_json
from harness.core.shelf import Shelf

if TYPE_CHECKING:
    from harness.models.loaded import LoadedModel

RECOVERY = Shelf("recovery", {"none": "harness.recovery.none:NoRecovery"})


class RecoveryMethod(Protocol):
    """The contract of the shelf."""

    name: ClassVar[str]

    def recipe(self) -> dict[str, Any]:
        """The method and its hyper-parameters, ready for JSON; makes no use of torch."""

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:
        """What is scored in the model's place; ``artifact`` is the folder of what training stored, None where nothing is
        trained. May change ``model``, which is not used afterwards."""


def recipe_digest(method: RecoveryMethod) -> str:
    """The digest of a method's recipe."""
    return digest_json(method.recipe())
