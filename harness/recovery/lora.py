"""LoRA (Hu et al. 2022, arXiv 2106.09685): a low-rank matrix beside each chosen weight, trained on generic text while the
model stays as it is; through peft. What it brings back had to be learnt again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from harness.compression.checks import check_choice, check_count
from harness.core.errors import ConfigError, RecoveryError
from harness.models import MODELS
from harness.recovery.training import TrainingRecipe, cut_blocks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel, ModelFamily
    from harness.recovery.loop import Step
    from harness.recovery.trained import Made

_KERNEL = 1
"""Part of the recipe: raise it when training or placing the matrices changes."""

_ATTENTION = ("attn", "attention")
"""What every supported architecture calls the module that holds its attention's projections."""


@dataclass(frozen=True, slots=True)
class Lora:
    """Adds ``alpha / rank`` B A of rank ``rank`` to each chosen weight.

    ``modules``: "attention" (query, key, value and output projections), "all" (every linear layer but the head) or the last
    names of layers, as in ["q_proj", "v_proj"]. ``merged``: added into the weights, at no cost when scoring, or kept beside
    them as peft's layers, as an adapter on quantized weights has to be. Training is the same for both.
    """

    name: ClassVar[str] = "lora"

    rank: int = 8
    alpha: float = 16.0
    modules: str | list[str] = "attention"
    merged: bool = True
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        check_count(self.name, "rank", self.rank, least=1)
        check_choice(self.name, "merged", self.merged, (True, False))
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)) or not 0 < self.alpha < math.inf:
            raise ConfigError(f"lora: alpha = {self.alpha!r} is not possible: expected a number above 0.")
        if isinstance(self.modules, str):
            check_choice(self.name, "modules", self.modules, ("attention", "all"))
        elif not self.modules or not all(isinstance(name, str) for name in self.modules):
            raise ConfigError(f"lora: modules = {self.modules!r} is not possible: expected 'attention', 'all' or names.")
        object.__setattr__(self, "training", TrainingRecipe.of(self.training))

    def recipe(self) -> dict[str, Any]:
        """The method and its hyper-parameters."""
        return {**self.training_recipe(), "merged": self.merged}

    def training_recipe(self) -> dict[str, Any]:
        """All but whether it is merged afterwards."""
        return {
            "method": self.name,
            "kernel": _KERNEL,
            "rank": self.rank,
            "alpha": float(self.alpha),
            "modules": self.modules if isinstance(self.modules, str) else sorted(self.modules),
            "training": self.training.as_json(),
        }

    def train(
        self, model: LoadedModel, text: CalibrationText, *, checkpoints: Path, tell: Callable[[Step], None] | None
    ) -> Made:
        """The matrices, trained beside this model's weights. Raises RecoveryError."""
        from harness.recovery.loop import Trainee, train
        from harness.recovery.trained import Made, check_decoder, check_length

        check_decoder(self.name, model)
        check_length(self.name, model, self.training.block_tokens - 1)
        blocks = cut_blocks(text, model.tokenizer, self.training, separator_id=model.document_start_id)
        parameters = self._inject(model, tuple(self._chosen(model)), self.untrained(model))
        # B is 0 at first: until the first step the model is as it is without LoRA
        trainee = Trainee(model.module, parameters, nullcontext)
        made = train(trainee, blocks, self.training, device=model.device, checkpoint=checkpoints / self.name, tell=tell)
        return Made(made.tensors, (made.summary,))

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:
        """The model with the matrices merged into its weights or beside them. Raises RecoveryError."""
        from harness.recovery.trained import check_decoder, tensors_of

        check_decoder(self.name, model)
        chosen = self._chosen(model)
        shapes = {}
        for name, layer in chosen.items():
            shapes[f"{name}.lora_A"] = (self.rank, layer.in_features)
            shapes[f"{name}.lora_B"] = (layer.out_features, self.rank)
        return self.place(model, tensors_of(self.name, artifact, shapes))

    def place(self, model: LoadedModel, tensors: Mapping[str, Tensor]) -> LoadedModel:
        """The model with these matrices merged into its weights or beside them; their names are an artifact's."""
        chosen = self._chosen(model)
        if self.merged:
            for name, layer in chosen.items():
                merge(layer, tensors[f"{name}.lora_A"], tensors[f"{name}.lora_B"], self.alpha / self.rank)
        else:
            self._inject(model, tuple(chosen), tensors)
            model.module.requires_grad_(False)
        return model

    def untrained(self, model: LoadedModel) -> dict[str, Tensor]:
        """The matrices that training starts from: of the size and cost of trained ones. Raises RecoveryError."""
        from harness.recovery.soft import seeded

        return _first_values(self._chosen(model), self.rank, seeded(self.training.seed))

    def _chosen(self, model: LoadedModel) -> dict[str, nn.Linear]:
        """The layers that get a matrix, by their module names. Raises RecoveryError where there is none."""
        family = cast("ModelFamily", MODELS.load(model.family)())
        layers = family.linear_layers(model)
        chosen = {name: layer for name, layer in layers.items() if self._is_chosen(name)}
        if not chosen:
            last_names = sorted({name.rpartition(".")[2] for name in layers})
            raise RecoveryError(
                f"lora: modules = {self.modules!r} matches no layer of {type(model.module).__name__}: its layers are called "
                f"{', '.join(last_names)}."
            )
        return chosen

    def _is_chosen(self, name: str) -> bool:
        *above, last = name.split(".")
        if self.modules == "attention":
            return any(part.endswith(_ATTENTION) for part in above)
        return self.modules == "all" or last in self.modules

    def _inject(self, model: LoadedModel, names: tuple[str, ...], values: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
        """Put peft's layers in the named layers' places, with these values; the parameters by the values' names."""
        from harness.recovery.trained import peft_building

        with peft_building() as peft:
            config = peft.LoraConfig(
                r=self.rank, lora_alpha=self.alpha, target_modules=list(names), lora_dropout=0.0, bias="none"
            )
            peft.inject_adapter_in_model(config, model.module)
        model.module.eval()
        parameters: dict[str, nn.Parameter] = {}
        for name in names:
            wrapped: Any = model.module.get_submodule(name)
            for part, held in (("lora_A", wrapped.lora_A), ("lora_B", wrapped.lora_B)):
                weight = held["default"].weight
                weight.data = values[f"{name}.{part}"].float().to(weight.device)
                parameters[f"{name}.{part}"] = weight
        return parameters


def merge(layer: nn.Linear, a: Tensor, b: Tensor, scale: float) -> None:
    """Add ``scale`` B A to a layer's weights, the product made in float32."""
    weight = layer.weight.data
    product = scale * (b.float().to(weight.device) @ a.float().to(weight.device))
    weight.copy_((weight.float() + product).to(weight.dtype))


def _first_values(layers: Mapping[str, nn.Linear], rank: int, generator: Any) -> dict[str, Tensor]:
    """A uniform in +-1/sqrt(inputs), as a linear layer's own first weights; B zero (Hu et al., section 4.1)."""
    import torch

    values = {}
    for name, layer in layers.items():
        uniform = torch.rand((rank, layer.in_features), generator=generator)
        values[f"{name}.lora_A"] = (2 * uniform - 1) / math.sqrt(layer.in_features)
        values[f"{name}.lora_B"] = torch.zeros((layer.out_features, rank))
    return values
