"""How a recovery is trained: its recipe, and the blocks of text that it is trained and validated on.

The recipe follows Xu et al., "Compress, Then Prompt" (2023): AdamW without weight decay, a linear schedule with warm-up,
clipped gradients, and of all steps the one with the best validation perplexity.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Int

from harness.compression.calibration import CalibrationText
from harness.compression.checks import check_count
from harness.core.errors import ConfigError, RecoveryError

Blocks = Int[np.ndarray, "blocks tokens"]


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """At most ``steps`` steps of ``batch_blocks`` blocks of ``block_tokens`` tokens each.

    ``learning_rate`` is reached after ``warmup_steps`` and falls to 0 at ``steps``; gradients are clipped to ``clip_norm``.
    Every ``validate_every`` steps the perplexity of ``validation_blocks`` blocks is taken; after ``patience`` times without
    a better one training stops. ``seed``: order of documents and blocks, first values.
    """

    steps: int = 300
    batch_blocks: int = 8
    block_tokens: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 20
    clip_norm: float = 1.0
    validation_blocks: int = 32
    validate_every: int = 25
    patience: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_blocks", "validation_blocks", "validate_every", "patience"):
            check_count("training", name, getattr(self, name), least=1)
        check_count("training", "block_tokens", self.block_tokens, least=2)  # the first of a block is only read
        check_count("training", "warmup_steps", self.warmup_steps, least=0)
        check_count("training", "seed", self.seed, least=0)
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ConfigError(f"training: {name} = {value!r} is not possible: expected a number above 0.")

    @classmethod
    def of(cls, given: TrainingRecipe | Mapping[str, Any]) -> TrainingRecipe:
        """A recipe from a table of the matrix (fields that it leaves out are as by default). Raises ConfigError."""
        if isinstance(given, TrainingRecipe):
            return given
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(f"training: unknown key {unknown[0]!r}; known: {', '.join(known)}.")
        return cls(**given)

    def as_json(self) -> dict[str, Any]:
        """The fields, ready for a digest."""
        return asdict(self)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 1.

        >>> recipe = TrainingRecipe(steps=100, warmup_steps=10, learning_rate=1.0)
        >>> [round(recipe.rate_at(step), 3) for step in (1, 10, 11, 100)]
        [0.1, 1.0, 1.0, 0.011]
        """
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        left, whole = self.steps - step + 1, self.steps - min(self.warmup_steps, self.steps - 1)
        return self.learning_rate * min(1.0, left / whole)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingBlocks:
    """Blocks of tokens to train on and others, of other documents, to validate on."""

    training: Blocks
    validation: Blocks


def cut_blocks(text: CalibrationText, tokenizer: Any, recipe: TrainingRecipe, *, separator_id: int) -> TrainingBlocks:
    """The blocks of a text: its documents in an order drawn from ``training-order:<seed>``, each after ``separator_id``.

    The first documents are for validation, as many as its blocks need; all others are for training. Raises RecoveryError
    when they are too few for one batch.
    """
    generator = random.Random(f"training-order:{recipe.seed}")  # noqa: S311 - an order, not a secret
    order = sorted(range(len(text.documents)), key=[generator.random() for _ in text.documents].__getitem__)
    n_wanted = recipe.validation_blocks * recipe.block_tokens
    validation: list[int] = []
    training: list[int] = []
    for index in order:
        part = validation if len(validation) < n_wanted else training
        part += [separator_id, *tokenizer(text.documents[index], add_special_tokens=False)["input_ids"]]
    least = recipe.batch_blocks * recipe.block_tokens
    if len(validation) < n_wanted or len(training) < least:
        raise RecoveryError(
            f"training text {text.name} is too little: {len(validation) + len(training)} tokens in {len(order)} documents, "
            f"and the recipe wants {n_wanted} to validate on and, of other documents, at least {least} for one batch; take a "
            "longer text, or fewer or shorter blocks."
        )
    return TrainingBlocks(_blocks(training, recipe.block_tokens), _blocks(validation[:n_wanted], recipe.block_tokens))


def batch_of(n_blocks: int, step: int, recipe: TrainingRecipe) -> list[int]:
    """The blocks of a step, counted from 1: all blocks in an order drawn anew each time that they are used up.

    It depends on nothing but its arguments, so that a resumed training goes on with the same batches.

    >>> recipe = TrainingRecipe(batch_blocks=2)
    >>> sorted(batch_of(4, 1, recipe) + batch_of(4, 2, recipe))
    [0, 1, 2, 3]
    """
    first = (step - 1) * recipe.batch_blocks
    return [
        _shuffled(n_blocks, place // n_blocks, recipe.seed)[place % n_blocks]
        for place in range(first, first + recipe.batch_blocks)
    ]


def _shuffled(n_blocks: int, epoch: int, seed: int) -> list[int]:
    order = list(range(n_blocks))
    random.Random(f"training-blocks:{seed}:{epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
    return order


def _blocks(stream: list[int], block_tokens: int) -> Blocks:
    n_blocks = len(stream) // block_tokens
    return np.array(stream[: n_blocks * block_tokens], dtype=np.int64).reshape(n_blocks, block_tokens)
