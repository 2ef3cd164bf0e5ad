"""Methods one after the other on the same layers: prune, then quantize, as Namburi et al. (2023) do, or any other two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from harness.core.digest import digest_json
from harness.core.errors import ConfigError
from harness.core.records import CompressionRecord, Stability
from harness.core.shelf import construct

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.compression import CompressionMethod
    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

_KERNEL = 1
"""Part of the recipe: raise it when the way to chain steps changes results, so that no old weights are served."""

_KERNEL_OF_LATE_PRUNING = 2
"""The same for recipes that prune after another step: version 1 took every zero for pruned."""

_BESIDE = ("scope", "calibration")
"""What stands beside ``steps`` and is the same for all of them."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Runs each of ``steps`` (a method's name under ``method``, and its fields) on what the one before it left.

    What a step with a ``sparsity`` pruned stays pruned: where a later one gave such a weight a value again (GPTQ does), it is
    set back to zero. Zeros that were there before are the smallest weights, so they are the first to be pruned; those beyond
    the step's ``sparsity``, by their place, are not. ``seed``, where given, is that of every step that calibrates. Bits and
    bytes are those of the step whose format stores the most weights in the fewest bits: a pruned weight takes the code that
    its quantized layer has for it.
    """

    name: ClassVar[str] = "steps"

    steps: Sequence[Mapping[str, Any]]
    seed: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.steps, list | tuple) or not self.steps or not all(isinstance(s, Mapping) for s in self.steps):
            raise ConfigError('steps: expected a list of tables, steps = [{method = "magnitude", sparsity = 0.2}, …].')
        self._methods()

    @property
    def stability(self) -> Stability:
        """Stable where every step is."""
        return "stable" if all(method.stability == "stable" for method in self._methods()) else "re-compressed"

    @property
    def needs_text(self) -> bool:
        """Whether any step does."""
        return any(method.needs_text for method in self._methods())

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:
        """The recipes of the steps in their order."""
        methods = self._methods()
        kernel = _KERNEL_OF_LATE_PRUNING if any(hasattr(method, "sparsity") for method in methods[1:]) else _KERNEL
        return {"method": self.name, "kernel": kernel, "steps": [method.recipe(text) for method in methods]}

    def compress(self, model: LoadedModel, layers: Mapping[str, nn.Linear], text: CalibrationText | None) -> CompressionRecord:
        """Run the steps in place. Raises CompressionError."""
        recipe = self.recipe(text)
        made: list[CompressionRecord] = []
        pruned: dict[str, Tensor] = {}
        for method in self._methods():
            before = _zeros(layers)
            made.append(method.compress(model, layers, text))
            for name, gone in pruned.items():
                layers[name].weight.data.masked_fill_(gone, 0.0)
            if hasattr(method, "sparsity"):
                n_pruned = round(method.sparsity * sum(layer.weight.numel() for layer in layers.values()))
                pruned = _pruned(before, _zeros(layers), pruned, n_pruned)
        stored = min(made, key=lambda record: (-record.n_weights_compressed, record.effective_bits))
        return replace(
            stored,
            method=self.name,
            recipe=recipe,
            recipe_digest=digest_json(recipe),
            stability=self.stability,
            wall_s=sum(record.wall_s for record in made),
        )

    def _methods(self) -> list[CompressionMethod]:
        return [self._method(number, step) for number, step in enumerate(self.steps, start=1)]

    def _method(self, number: int, step: Mapping[str, Any]) -> CompressionMethod:
        from harness.compression import COMPRESSION

        given = dict(step)
        name = given.pop("method", None)
        if not isinstance(name, str):
            raise ConfigError(f"step {number} has no `method`; known: {', '.join(sorted(COMPRESSION))}.")
        for key in _BESIDE:
            if key in given:
                raise ConfigError(f"step {number} ({name}) has a {key} of its own: write it once, beside `steps`.")
        if name == self.name:
            raise ConfigError(f"step {number} is itself a list of steps: write all of them in one list.")
        entry = COMPRESSION.load(name)
        if self.seed is not None and entry.needs_text and "seed" in {field.name for field in fields(entry)}:
            given["seed"] = self.seed
        method: CompressionMethod = construct("step", f"{number} ({name})", entry, given)
        return method


def _zeros(layers: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """Which weights are zero, by layer."""
    return {name: layer.weight.detach() == 0 for name, layer in layers.items()}


def _pruned(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], pruned: Mapping[str, Tensor], n_pruned: int
) -> dict[str, Tensor]:
    """Which weights a step pruned that was to prune ``n_pruned``: what it or an earlier one (``pruned``) made zero, and as
    many of the other zeros, in order, as are lacking.

    >>> from torch import tensor
    >>> found = _pruned({"a": tensor([True, True, False, False])}, {"a": tensor([True, True, True, False])}, {}, 2)
    >>> found["a"].tolist()
    [True, False, True, False]
    """
    made = {name: zero & ~before[name] | pruned.get(name, ~zero) & zero for name, zero in after.items()}
    n_lacking = n_pruned - sum(int(one.sum()) for one in made.values())
    for name, zero in after.items():
        others = (zero & ~made[name]).flatten()
        taken = others & (others.cumsum(0) <= n_lacking)
        n_lacking -= int(taken.sum())
        made[name] = made[name] | taken.reshape(zero.shape)
    return made
