"""Inference-time dynamic prompting (Hoang et al., arXiv 2310.00867): several soft prompts of different lengths, trained apart
by prompt tuning; each input gets the one that its context attends to most.

The choice reads the context only, never an answer: of a whole sentence what stands before its blank. Then the input starts
anew behind the chosen prompt alone, so that a forced choice equals the run with only that prompt; or the pass that chose goes
on. Where a context is empty the prompt is always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.compression.checks import check_choice, check_count
from harness.core.digest import digest_json
from harness.core.errors import ConfigError, RecoveryError
from harness.recovery.training import TrainingRecipe

if TYPE_CHECKING:
    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel
    from harness.models.roots import SoftRoot, SoftRoots
    from harness.recovery.loop import Step
    from harness.recovery.soft import Rows
    from harness.recovery.trained import Made

_KERNEL = 1
"""Part of the recipe: raise it when training or choosing changes."""


@dataclass(frozen=True, slots=True)
class Idp:
    """A prompt of each of ``lengths`` tokens; the i-th is trained with seed + i, so that one alone is prompt tuning.

    ``choice``: "attention" is the method, its controls are "random" (drawn with the context) and the number of a prompt,
    from 0: all of these share one artifact. ``selection_layer``, from 0: where attention is read, heads averaged;
    ``length_normalised``: by the log of a prompt's whole share of attention instead of the mean of its positions.
    ``mode``: after the choice by attention the input starts anew behind the chosen prompt ("exact"), or goes on ("continue"):
    up to the selection layer it reads all prompts, none of which sees another, from the next layer on the chosen one alone.
    """

    name: ClassVar[str] = "idp"

    lengths: Sequence[int] = (10, 20, 40)
    choice: str | int = "attention"
    selection_layer: int = 0
    length_normalised: bool = False
    mode: Literal["exact", "continue"] = "exact"
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        if not isinstance(self.lengths, (list, tuple)) or not self.lengths:
            raise ConfigError(f"idp: lengths = {self.lengths!r} is not possible: expected the lengths of one prompt or more.")
        for length in self.lengths:
            check_count(self.name, "a length", length, least=1)
        check_choice(self.name, "choice", self.choice, ("attention", "random", *range(len(self.lengths))))
        check_count(self.name, "selection_layer", self.selection_layer, least=0)
        check_choice(self.name, "length_normalised", self.length_normalised, (True, False))
        check_choice(self.name, "mode", self.mode, ("exact", "continue"))
        if self.mode == "continue" and self.choice == "random":
            raise ConfigError(
                "idp: mode = 'continue' goes on with the pass that chooses, and choice = 'random' has none: take mode 'exact'."
            )
        object.__setattr__(self, "lengths", tuple(self.lengths))
        object.__setattr__(self, "training", TrainingRecipe.of(self.training))

    def recipe(self) -> dict[str, Any]:
        """The method and its hyper-parameters; ``mode`` where there is a pass that it is about."""
        return {
            **self.training_recipe(),
            "choice": self.choice,
            "selection_layer": self.selection_layer,
            "length_normalised": self.length_normalised,
            **({"mode": self.mode} if self.choice == "attention" else {}),
        }

    def training_recipe(self) -> dict[str, Any]:
        """The prompts' lengths and how they are trained; how one is chosen changes none of them."""
        return {
            "method": self.name,
            "kernel": _KERNEL,
            "lengths": list(self.lengths),
            "training": self.training.as_json(),
        }

    def train(
        self, model: LoadedModel, text: CalibrationText, *, checkpoints: Path, tell: Callable[[Step], None] | None
    ) -> Made:
        """The prompts, trained one after the other before this model. Raises RecoveryError."""
        from harness.recovery.prompt import tune_prompt
        from harness.recovery.trained import Made

        made = [
            tune_prompt(
                model,
                text,
                length,
                replace(self.training, seed=self.training.seed + number),
                checkpoint=checkpoints / _name(number),
                tell=tell,
            )
            for number, length in enumerate(self.lengths)
        ]
        tensors = {_name(number): one.tensors["rows"] for number, one in enumerate(made)}
        return Made(tensors, tuple(one.summary for one in made))

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:
        """The model with its prompts to choose from. Raises RecoveryError."""
        from harness.recovery.soft import as_root, hidden_size
        from harness.recovery.trained import check_decoder, check_length, tensors_of

        check_decoder(self.name, model)
        check_length(self.name, model, max(self.lengths))
        width = hidden_size(model)
        tensors = tensors_of(self.name, artifact, {_name(i): (length, width) for i, length in enumerate(self.lengths)})
        roots = tuple(as_root(model, tensors[_name(number)]) for number in range(len(self.lengths)))
        model.soft_roots = self._soft_roots(model, roots)
        return model

    def _soft_roots(self, model: LoadedModel, roots: tuple[SoftRoot, ...]) -> SoftRoots:
        from harness.models.roots import SoftRoots

        if isinstance(self.choice, int) or len(roots) == 1:
            return SoftRoots.of_one(roots[self.choice if isinstance(self.choice, int) else 0])
        if self.choice == "random":
            return SoftRoots(roots, self._draw)
        from harness.recovery.chooser import AttentionChooser, check_continues, check_readable
        from harness.recovery.soft import continued_roots

        check_readable(model)
        n_layers = int(model.module.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        if self.selection_layer >= n_layers:
            raise RecoveryError(
                f"idp: selection_layer = {self.selection_layer}, and the model's layers are 0 to {n_layers - 1}."
            )
        prompts: list[Rows] = [root.embeddings for root in roots if root.embeddings is not None]
        if self.mode == "continue":
            check_continues(model, sum(self.lengths))
            roots = continued_roots(model, prompts, self.selection_layer)
        return SoftRoots(roots, AttentionChooser(model, prompts, self.selection_layer, self.length_normalised))

    def _draw(self, contexts: Sequence[tuple[int, ...]]) -> list[int]:
        """A prompt for each context, the same for the same context in every run."""
        return [int(digest_json([self.training.seed, *context])[:12], 16) % len(self.lengths) for context in contexts]


def _name(number: int) -> str:
    return f"prompt.{number}"
