"""Prefix tuning (Li and Liang 2021, arXiv 2101.00190): keys and values of a few positions before every input, in every layer
their own, trained on generic text while the model stays as it is; through peft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import check_count
from harness.recovery.training import TrainingRecipe, cut_blocks

if TYPE_CHECKING:
    from torch import Tensor

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel
    from harness.models.roots import KeysValues
    from harness.recovery.loop import Step
    from harness.recovery.trained import Made

_TENSOR = "keys_values"
_KERNEL = 1
"""Part of the recipe: raise it when training or placing a prefix changes."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix of ``n_tokens`` positions. Its first values are the keys and values of tokens drawn from the vocabulary, so
    before training it does what a prompt of these tokens does; random ones break a model at first (Li and Liang, 7.4)."""

    name: ClassVar[str] = "prefix"

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
        """The prefix, trained before this model. Raises RecoveryError."""
        from harness.recovery.loop import Trainee, train
        from harness.recovery.trained import Made, check_decoder, check_length, peft_building

        check_decoder(self.name, model)
        check_length(self.name, model, self.n_tokens + self.training.block_tokens - 1)
        blocks = cut_blocks(text, model.tokenizer, self.training, separator_id=model.document_start_id)
        first = self._first_values(model)
        n_layers, _, n_heads, _, head_size = first.shape
        with peft_building() as peft:
            config = peft.PrefixTuningConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=self.n_tokens, prefix_projection=False, num_layers=n_layers
            )
            wrapped = peft.get_peft_model(model.module, config)
        # peft reads heads off the config, whose names mean other things in some architectures: the model itself knows
        config.num_attention_heads, config.token_dim = n_heads, n_heads * head_size
        weight = wrapped.prompt_encoder["default"].embedding.weight
        weight.data = flatten(first).to(weight.device)
        trainee = Trainee(wrapped, {_TENSOR: weight}, wrapped.disable_adapter)
        made = train(trainee, blocks, self.training, device=model.device, checkpoint=checkpoints / _TENSOR, tell=tell)
        return Made({_TENSOR: unflatten(made.tensors[_TENSOR], first.shape)}, (made.summary,))

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:
        """The model behind its prefix. Raises RecoveryError."""
        from harness.models.roots import SoftRoot
        from harness.recovery.soft import behind
        from harness.recovery.trained import check_decoder, tensors_of

        check_decoder(self.name, model)
        like = self._first_values(model)
        values = tensors_of(self.name, artifact, {_TENSOR: tuple(like.shape)})[_TENSOR].to(device=model.device)
        return behind(self.name, model, SoftRoot(keys_values=as_pairs(values.to(next(model.module.parameters()).dtype))))

    def _first_values(self, model: LoadedModel) -> Tensor:
        """[layers, 2, heads, positions, head size], in float32."""
        from harness.recovery.soft import keys_values_of, seeded, vocabulary_rows

        rows = vocabulary_rows(model, self.n_tokens, seeded(self.training.seed))
        return stacked(keys_values_of(model, rows))


def stacked(pairs: KeysValues) -> Tensor:
    """Keys and values of all layers in one tensor [layers, 2, heads, positions, head size], in float32.

    Raises RecoveryError where layers differ in their heads.
    """
    import torch

    from harness.core.errors import RecoveryError

    shapes = {tuple(tensor.shape) for pair in pairs for tensor in pair}
    if len(shapes) > 1:
        raise RecoveryError(
            f"prefix: the model's layers have keys and values of {len(shapes)} different shapes, which peft's prefix "
            "tuning can't train: take recovery 'prompt' or 'lora' for it."
        )
    return torch.stack([torch.cat(pair) for pair in pairs]).float()


def as_pairs(values: Tensor) -> KeysValues:
    """The reverse of ``stacked``."""
    return tuple((layer[0:1], layer[1:2]) for layer in values)


def flatten(values: Tensor) -> Tensor:
    """peft's own order of the same numbers: [positions, layers x 2 x heads x head size]."""
    return values.permute(3, 0, 1, 2, 4).reshape(values.shape[3], -1).contiguous()


def unflatten(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The reverse of ``flatten``, into [layers, 2, heads, positions, head size]."""
    n_layers, two, n_heads, n_positions, head_size = shape
    return weight.view(n_positions, n_layers, two, n_heads, head_size).permute(1, 2, 3, 0, 4).contiguous()
