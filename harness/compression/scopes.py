"""Scopes: all linear layers of the blocks, those of attention, or those of feed-forward; the last two partition the first.

Attention is the query, key, value and output projections, of cross-attention too; BERT's output projection
(``attention.output.dense``) is among them, though Namburi et al. (2023) count it with the feed-forward. Feed-forward is
every other linear layer of a block. What stands outside of the blocks is in no scope (``models.folders.block_layers``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.compression.checks import check_choice
from harness.core.digest import digest_json
from harness.core.errors import CompressionError
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression import CompressionMethod
    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

SCOPES = ("all", "attention", "feed_forward")

_ATTENTION = ("attn", "attention")
"""What a component of the path of an attention's layer holds, in lower case (``self_attn``, ``SelfAttention``)."""

_NEITHER = ("mixer", "mamba", "temporal_block", "linear_attn", "short_conv", "conv")
"""Components of layers that mix tokens in another way than attention (Mamba, RecurrentGemma, Qwen3-Next, LFM2)."""


@dataclass(frozen=True, slots=True)
class Scoped:
    """A compression method held to the layers of a scope: itself a method of the shelf's contract."""

    method: CompressionMethod
    scope: str = "all"

    def __post_init__(self) -> None:
        check_choice(self.name, "scope", self.scope, SCOPES)

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    @property
    def stability(self) -> Stability:
        """The method's."""
        return self.method.stability

    @property
    def needs_text(self) -> bool:
        """Whether the method does."""
        return self.method.needs_text

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:
        """The method's recipe, and the scope where it is not all: recipes older than scopes keep their digest."""
        made = self.method.recipe(text)
        return made if self.scope == "all" else {**made, "scope": self.scope}

    def compress(self, model: LoadedModel, layers: Mapping[str, nn.Linear], text: CalibrationText | None) -> CompressionRecord:
        """Compress those of ``layers`` that are in the scope. Raises CompressionError."""
        made = self.method.compress(model, layers_of_scope(layers, self.scope), text)
        recipe = self.recipe(text)
        return replace(made, recipe=recipe, recipe_digest=digest_json(recipe))


def layers_of_scope(layers: Mapping[str, nn.Linear], scope: str) -> dict[str, nn.Linear]:
    """The layers of a scope, by their module names, in their order.

    Raises CompressionError where a model has no attention, or layers that are neither attention nor feed-forward: there,
    only all layers can be meant.

    >>> list(layers_of_scope({"h.0.attn.q": None, "h.0.attn.out.dense": None, "h.0.mlp.up": None}, "attention"))
    ['h.0.attn.q', 'h.0.attn.out.dense']
    """
    if scope == "all":
        return dict(layers)
    parts = {name: _part(name) for name in layers}
    neither = [name for name, part in parts.items() if part is None]
    if neither or "attention" not in parts.values():
        why = f"{neither[0]!r} is neither attention nor feed-forward" if neither else "the model has no attention"
        raise CompressionError(f"scope = {scope!r} means nothing here: {why}; take scope = 'all'.")
    return {name: layers[name] for name, part in parts.items() if part == scope}


def _part(name: str) -> str | None:
    """``attention``, ``feed_forward`` or, for neither, None: by what follows the block's number."""
    components = name.lower().split(".")
    within = components[next((i for i, part in enumerate(components) if part.isdigit()), -1) + 1 :]
    if any(component in _NEITHER for component in within):
        return None
    return "attention" if any(word in component for component in within for word in _ATTENTION) else "feed_forward"
