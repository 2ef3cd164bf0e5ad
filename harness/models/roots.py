"""Soft roots: what stands before every input of a model without being text. A soft prompt is rows of embeddings; prefix
tuning has keys and values of its own; inference-time dynamic prompting has several prompts and chooses one an input.

Input positions begin behind the root: a root of n positions stands at 0 … n-1, the input's first token at n. What the root
itself computes does not depend on the input, so its keys and values are made once a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

KeysValues = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values, a pair a layer, each [1, key-value heads, positions, head size], keys with their positions in them."""


@dataclass(frozen=True, slots=True, eq=False)
class SoftRoot:
    """One root: ``embeddings``, which the model is fed in place of tokens' own, or ``keys_values``; never both.

    Layers may keep fewer keys and values than the first, whose number is that of the root's positions. Raises ValueError
    unless exactly one is given, or where a layer keeps more.
    """

    embeddings: Float[Tensor, "positions hidden"] | None = None
    keys_values: KeysValues | None = None

    def __post_init__(self) -> None:
        if (self.embeddings is None) == (self.keys_values is None):
            raise ValueError("a soft root is embeddings or keys and values: expected one of the two")
        if any(keys.shape[-2] > self.n_positions for keys, _ in self.keys_values or ()):
            raise ValueError("a layer of a soft root keeps more keys than the first: expected as many or fewer")

    @property
    def n_positions(self) -> int:
        """How many positions it takes of the model's window."""
        if self.embeddings is not None:
            return int(self.embeddings.shape[0])
        return int(self.keys_values[0][0].shape[-2]) if self.keys_values else 0

    @property
    def is_uneven(self) -> bool:
        """Whether some layers keep fewer keys and values than others."""
        return is_uneven(self.keys_values)


def is_uneven(kept: KeysValues | None) -> bool:
    """Whether some layers keep fewer keys and values than others."""
    return len({keys.shape[-2] for keys, _ in kept or ()}) > 1


@dataclass(frozen=True, slots=True, eq=False)
class SoftRoots:
    """The roots of a model. ``choose`` gets the contexts of some requests as tokens, answers left out and each with the
    model's own prefix token, and says for each which root it is asked behind; the same context always gets the same one."""

    roots: tuple[SoftRoot, ...]
    choose: Callable[[Sequence[tuple[int, ...]]], Sequence[int]]

    @classmethod
    def of_one(cls, root: SoftRoot) -> SoftRoots:
        """A single root before everything."""
        return cls((root,), lambda contexts: [0] * len(contexts))

    @property
    def has_choice(self) -> bool:
        """Whether there is more than one."""
        return len(self.roots) > 1

    @property
    def most_positions(self) -> int:
        """What the longest root takes of the model's window."""
        return max(root.n_positions for root in self.roots)
