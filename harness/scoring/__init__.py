"""Scoring: from (context, continuation) requests to log-probabilities.

A ``Scorer`` takes requests grouped by item, because the requests of an item share tokens, and gives one ``Score`` a
request in the same order. This module imports no torch; the engines beside it do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from harness.core.shelf import Shelf

SCORERS = Shelf("scorers", {"decoder": "harness.scoring.decoder:DecoderScorer"})
"""The scorer of each model family, made from a LoadedModel; ``progress=`` hears of every finished group."""

NEAR_TIE_NATS = 1e-4
"""Two options whose scores differ by less than this (float32) are a near-tie: batch composition may swap them."""


class Tokenizer(Protocol):
    """What tasks and scorers need of a tokenizer (transformers' fast tokenizers have it)."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text, special tokens added by the tokenizer's own convention unless told otherwise."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """Score ``continuation`` after ``context``. An empty context means the model's own prefix token (BOS, else EOS)."""

    context: str
    continuation: str


@dataclass(frozen=True, slots=True)
class Score:
    """The sum of the continuation's token log-probabilities (natural log), whether every token of it was the most
    likely one, and how many tokens it has."""

    loglik_nats: float
    is_greedy: bool
    n_tokens: int


Progress = Callable[[int, int], None]
"""Called with (items done, items in all)."""


class Scorer(Protocol):
    """One model made ready for scoring. ``identity`` names protocol and version: other identity, other scores."""

    identity: ClassVar[str]

    def score(self, groups: Sequence[Sequence[Request]]) -> list[list[Score]]:
        """The scores of each group's requests, in order. Deterministic for one plan of groups."""
