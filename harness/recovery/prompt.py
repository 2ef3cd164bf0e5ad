"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): a few rows of embeddings before every input, trained on generic text
while the model stays as it is; through peft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import check_count
from harness.recovery.training import TrainingRecipe, cut_blocks

if TYPE_CHECKING:
    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel
    from harness.recovery.loop import Step, Trained
    from harness.recovery.trained import Made

_ROWS = "prompt"
_KERNEL = 1
"""Part of the recipe: raise it when training or placing a prompt changes."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of ``n_tokens`` rows; its first values are the embeddings of tokens drawn from the vocabulary."""

    name: ClassVar[str] = "prompt"

    n_tokens: int = 20
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        check_count(self.name, "n_tokens", self.n_tokens, least=1)
        object.__setattr__(self, "training", TrainingRecipe.of(self.training))

    def recipe(self) -> dict[str, Any]:
        """The method and its hyper-parameters."""
        return {"method": self.name, "kernel": _KERNEL, "n_tokens": self.n_tokens, "training": self.training.as_json()}

    def training_recipe(self) -> dict[str, Any]:
        """All of the recipe."""
        return self.recipe()

    def train(
        self, model: LoadedModel, text: CalibrationText, *, checkpoints: Path, tell: Callable[[Step], None] | None
    ) -> Made:
        """The prompt, trained before this model. Raises RecoveryError."""
        from harness.recovery.trained import Made

        made = tune_prompt(model, text, self.n_tokens, self.training, checkpoint=checkpoints / _ROWS, tell=tell)
        return Made({_ROWS: made.tensors["rows"]}, (made.summary,))

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:
        """The model behind its prompt. Raises RecoveryError."""
        from harness.recovery.soft import as_root, behind, hidden_size
        from harness.recovery.trained import check_decoder, tensors_of

        check_decoder(self.name, model)
        rows = tensors_of(self.name, artifact, {_ROWS: (self.n_tokens, hidden_size(model))})[_ROWS]
        return behind(self.name, model, as_root(model, rows))


def tune_prompt(
    model: LoadedModel,
    text: CalibrationText,
    n_tokens: int,
    recipe: TrainingRecipe,
    *,
    checkpoint: Path,
    tell: Callable[[Step], None] | None,
) -> Trained:
    """Train one prompt of ``n_tokens`` rows; its tensor is called "rows". Raises RecoveryError."""
    from harness.recovery.loop import Trainee, train
    from harness.recovery.soft import seeded, vocabulary_rows
    from harness.recovery.trained import check_decoder, check_length, peft_building

    check_decoder("prompt", model)
    check_length("prompt", model, n_tokens + recipe.block_tokens - 1)
    blocks = cut_blocks(text, model.tokenizer, recipe, separator_id=model.document_start_id)
    first = vocabulary_rows(model, n_tokens, seeded(recipe.seed)).float()
    with peft_building() as peft:
        config = peft.PromptTuningConfig(
            task_type="CAUSAL_LM",
            prompt_tuning_init="RANDOM",
            num_virtual_tokens=n_tokens,
            token_dim=first.shape[1],
            num_layers=1,  # it asks for these two and uses neither
            num_attention_heads=1,
        )
        wrapped = peft.get_peft_model(model.module, config)
    weight = wrapped.prompt_encoder["default"].embedding.weight
    weight.data = first.to(weight.device)
    trainee = Trainee(wrapped, {"rows": weight}, wrapped.disable_adapter)
    return train(trainee, blocks, recipe, device=model.device, checkpoint=checkpoint, tell=tell)
