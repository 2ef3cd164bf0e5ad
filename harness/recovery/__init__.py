"""Recovery methods, one file each. A method is a frozen dataclass: its fields are the hyper-parameters, its verb
``recover`` takes a loaded compressed model (and, where it was trained, a stored artifact) and returns what is scored.
A method that is trained has the verb ``train`` besides. Importing a method, making one and asking for its recipe load no
torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard

from harness.core.digest import digest_json
from harness.core.shelf import Shelf

if TYPE_CHECKING:
    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel
    from harness.recovery.loop import Step
    from harness.recovery.trained import Made

RECOVERY = Shelf(
    "recovery",
    {
        "none": "harness.recovery.none:NoRecovery",
        "prompt": "harness.recovery.prompt:Prompt",
        "prefix": "harness.recovery.prefix:Prefix",
        "idp": "harness.recovery.idp:Idp",
        "lora": "harness.recovery.lora:Lora",
        "random_prompt": "harness.recovery.random_prompt:RandomPrompt",
        "text_prompt": "harness.recovery.text_prompt:TextPrompt",
    },
)


class RecoveryMethod(Protocol):
    """The contract of the shelf."""

    name: ClassVar[str]

    def recipe(self) -> dict[str, Any]:
        """The method and its hyper-parameters, ready for JSON; makes no use of torch."""

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:
        """What is scored in the model's place; ``artifact`` is the folder of what training stored, None where nothing is
        trained. May change ``model``, which is not used afterwards. Raises RecoveryError where the two don't fit."""


class TrainedRecovery(RecoveryMethod, Protocol):
    """The contract of a method that is trained first, by `harness recover`; a gate run never trains."""

    def training_recipe(self) -> dict[str, Any]:
        """The part of the recipe that training depends on: cells that agree in it share one artifact."""

    def train(
        self, model: LoadedModel, text: CalibrationText, *, checkpoints: Path, tell: Callable[[Step], None] | None
    ) -> Made:
        """The tensors to store, trained on the compressed model. May change ``model``, which is not used afterwards.

        A training that was stopped goes on from the folder ``checkpoints``, which belongs to it alone. Raises RecoveryError.
        """


def is_trained(method: RecoveryMethod) -> TypeGuard[TrainedRecovery]:
    """Whether a method needs an artifact of its own."""
    return hasattr(method, "train")


def recipe_digest(method: RecoveryMethod) -> str:
    """The digest of a method's recipe."""
    return digest_json(method.recipe())
