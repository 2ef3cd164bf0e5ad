"""What a model answered to a task's items, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.core.errors import ScoreError
from harness.core.ragged import Ragged

if TYPE_CHECKING:
    from harness.core.records import ItemOutcome

T = TypeVar("T")

UNPARSED = -2
"""In place of an answer where a model's text holds none that could be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """A task's outcomes as columns over its n items, in the task's own order.

    ``option_logliks_nats`` is None where they are not kept (baselines of tasks with large vocabularies), ``texts`` where
    answers are chosen and not generated, ``are_cut`` where every context fit into the model's window. ``choices``: which of
    several prompts each item was asked behind, from 0: one number, or one a request where an item's requests differ; None
    where a model has none to choose from.
    """

    digests: tuple[str, ...]
    correct: Bool[np.ndarray, " n"]
    answers: Int[np.ndarray, " n"]
    ranks: Int[np.ndarray, " n"]
    margins_nats: Float[np.ndarray, " n"]
    near_ties: Bool[np.ndarray, " n"]
    option_logliks_nats: Ragged | None
    texts: tuple[str, ...] | None = None
    choices: tuple[tuple[int, ...], ...] | None = None
    are_cut: Bool[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def n_cut(self) -> int:
        """How many items have a context whose beginning was cut off."""
        return 0 if self.are_cut is None else int(self.are_cut.sum())

    @property
    def n_unparsed(self) -> int:
        """How many answers could not be read: they are wrong, but apart from the wrong ones."""
        return int((self.answers == UNPARSED).sum())

    def __post_init__(self) -> None:
        n = len(self.digests)
        if self.choices is not None and (len(self.choices) != n or not all(self.choices)):
            raise ValueError(f"{len(self.choices)} choices of a prompt, some may be empty, for {n} items")
        for column in (self.correct, self.answers, self.ranks, self.margins_nats, self.near_ties, self.are_cut):
            if column is not None and column.shape != (n,):
                raise ValueError(f"an outcome column has shape {column.shape}, expected ({n},)")
        rows: Any = self.option_logliks_nats  # rows as tuples are welcome
        if rows is not None and not isinstance(rows, Ragged):
            object.__setattr__(self, "option_logliks_nats", Ragged.of(rows))
        if not np.isfinite(self.margins_nats).all():
            raise ScoreError("a score is NaN or infinite: the model's weights or its dtype are broken; nothing was judged.")

    def take(self, places: Int[np.ndarray, " chosen"]) -> Outcomes:
        """The outcomes at some places (0 or more), in their order."""
        rows = self.option_logliks_nats
        return Outcomes(
            digests=_at(self.digests, places),
            correct=self.correct[places],
            answers=self.answers[places],
            ranks=self.ranks[places],
            margins_nats=self.margins_nats[places],
            near_ties=self.near_ties[places],
            option_logliks_nats=None if rows is None else rows.take(places),
            texts=None if self.texts is None else _at(self.texts, places),
            choices=None if self.choices is None else _at(self.choices, places),
            are_cut=None if self.are_cut is None else _any_or_none(self.are_cut[places]),
        )

    @classmethod
    def of(cls, digests: tuple[str, ...], rows: list[ItemOutcome]) -> Outcomes:
        """Columns from one outcome per item. Raises ScoreError when a score is not finite."""
        return cls(
            digests=digests,
            correct=np.array([row.correct for row in rows], dtype=np.bool_),
            answers=np.array([row.answer for row in rows], dtype=np.int32),
            ranks=np.array([row.rank for row in rows], dtype=np.int32),
            margins_nats=np.array([row.margin_nats for row in rows], dtype=np.float64),
            near_ties=np.array([row.near_tie for row in rows], dtype=np.bool_),
            option_logliks_nats=Ragged.of(row.option_logliks_nats for row in rows),
            texts=_all_or_none([row.text for row in rows]),
            are_cut=_any_or_none(np.array([row.is_cut for row in rows], dtype=np.bool_)),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """The outcomes of blocks of items, one after the other. The parts must all keep log-likelihoods, or none."""
        kept = [part.option_logliks_nats for part in parts if part.option_logliks_nats is not None]
        return cls(
            digests=tuple(chain.from_iterable(part.digests for part in parts)),
            correct=np.concatenate([part.correct for part in parts]),
            answers=np.concatenate([part.answers for part in parts]),
            ranks=np.concatenate([part.ranks for part in parts]),
            margins_nats=np.concatenate([part.margins_nats for part in parts]),
            near_ties=np.concatenate([part.near_ties for part in parts]),
            option_logliks_nats=Ragged.concatenate(kept) if len(kept) == len(parts) else None,
            texts=None if any(part.texts is None for part in parts) else tuple(chain(*(part.texts or () for part in parts))),
            choices=None
            if any(part.choices is None for part in parts)
            else tuple(chain(*(part.choices or () for part in parts))),
            are_cut=_any_or_none(
                np.concatenate([np.zeros(len(part), np.bool_) if part.are_cut is None else part.are_cut for part in parts])
            ),
        )


def _at(values: Sequence[T], places: Int[np.ndarray, " chosen"]) -> tuple[T, ...]:
    return tuple(values[i] for i in places.tolist())


def _all_or_none(texts: list[str | None]) -> tuple[str, ...] | None:
    known = tuple(text for text in texts if text is not None)
    return known if len(known) == len(texts) and texts else None


def _any_or_none(flags: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"] | None:
    return flags if flags.any() else None
