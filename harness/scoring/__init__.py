"""Scoring: from requests to log-probabilities, and from prompts to generated text.

A ``Scorer`` takes requests grouped by item, because the requests of an item share tokens, and gives one ``Score`` a
request in the same order; a ``Generator`` does the same from prompts to texts. A model family has one of each where the
family can do it at all. This module imports no torch; the engines beside it do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from harness.core.errors import ConfigError
from harness.core.shelf import Shelf

SCORERS = Shelf(
    "scorers",
    {
        "decoder": "harness.scoring.decoder:DecoderScorer",
        "encoder": "harness.scoring.encoder:EncoderScorer",
        "seq2seq": "harness.scoring.seq2seq:Seq2SeqScorer",
    },
)
"""The scorer of each model family, made from a LoadedModel; ``progress=`` hears of every finished group."""

GENERATORS = Shelf(
    "generators",
    {
        "decoder": "harness.scoring.generate:GreedyGenerator",
        "seq2seq": "harness.scoring.generate:GreedyGenerator",
    },
)
"""The generator of each model family that can generate, made the same way."""

NEAR_TIE_NATS = 1e-4
"""Two options whose scores differ by less than this (float32) are a near-tie: batch composition may swap them."""

_NEAR_TIE_NATS = {"float32": NEAR_TIE_NATS, "float16": 0.1, "bfloat16": 1.0}
"""By dtype: two to four times what other batches did to the lead of right answers of SmolLM2-135M (decision 0021)."""

Reading = Literal["continuation", "sentence", "blank", "rolling"]
"""What of a request is scored:

- ``continuation``: the continuation after the context, by lm-eval's convention (decoder; encoder-decoder: the context goes
  to the encoder).
- ``sentence``: context + continuation + after as one whole (decoder: Σ log p with the model's own prefix token; encoder:
  pseudo-log-likelihood, within-word left to right; encoder-decoder: the continuation at the first sentinel).
- ``blank``: the continuation at the blank between context and after, one token (decoder: left to right, ``after`` unread;
  encoder: at the mask; encoder-decoder: at the first sentinel).
- ``rolling``: the continuation as a text of its own, in windows, each token once (decoder).
"""

TaskKind = Literal["continuation", "sentence", "blank", "rolling", "generation"]
"""What a task asks of a model: a reading of the scorer's, or generated text."""


class Tokenizer(Protocol):
    """What tasks and scorers need of a tokenizer (transformers' fast tokenizers have it)."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text, special tokens added by the tokenizer's own convention unless told otherwise."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """Score ``continuation``, as ``reading`` says. An empty context means the model's own prefix token (BOS, else EOS).

    ``after`` is the text behind the continuation; "continuation" and "rolling" have none.
    """

    context: str
    continuation: str
    after: str = ""
    reading: Reading = "continuation"


@dataclass(frozen=True, slots=True)
class Score:
    """The sum of the scored tokens' log-probabilities (natural log), whether every one of them was the most likely one,
    and how many there are."""

    loglik_nats: float
    is_greedy: bool
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """Generate greedily after ``context``, until one of ``stop`` appears or ``max_new_tokens`` are made."""

    context: str
    stop: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Generated:
    """The text that was generated, cut before the stop string; ``n_tokens`` were made, the stop string's among them."""

    text: str
    n_tokens: int


Answer = Score | Generated
"""What comes back for a request or a prompt."""

Progress = Callable[[int, int], None]
"""Called with (items done, items in all)."""


class Scorer(Protocol):
    """One model made ready for scoring. ``identities`` names protocol and version of every reading that the family has:
    other identity, other scores."""

    identities: ClassVar[Mapping[Reading, str]]

    def score(self, groups: Sequence[Sequence[Request]]) -> list[list[Score]]:
        """The scores of each group's requests, in order. Deterministic for one plan of groups.

        Raises ConfigError for a reading that the family does not have, ScoreError for a score that is not finite.
        """


class Generator(Protocol):
    """One model made ready for generating. ``identity`` names method and version."""

    identity: ClassVar[str]

    def generate(self, groups: Sequence[Sequence[Prompt]]) -> list[list[Generated]]:
        """The texts of each group's prompts, in order."""


def near_tie_nats(dtype: str) -> float:
    """How near two scores must be to be a near-tie, where the model computes in ``dtype`` (as ``models.device`` names them).

    >>> near_tie_nats("float32") < near_tie_nats("float16") < near_tie_nats("bfloat16")
    True
    """
    return _NEAR_TIE_NATS[dtype]


def identity_of(kind: TaskKind, family: str) -> str:
    """Protocol and version by which a model family answers a kind of task.

    Raises ConfigError where the family can't: an encoder has no continuation, a decoder no mask.
    """
    if kind == "generation":
        known: Mapping[str, str] = {"generation": GENERATORS.load(family).identity} if family in GENERATORS else {}
    else:
        known = SCORERS.load(family).identities
    if kind not in known:
        able = sorted(name for name in (GENERATORS if kind == "generation" else SCORERS) if _has(name, kind))
        raise ConfigError(
            f"the task asks for {kind!r}, which a model of family {family!r} can't give; "
            f"families that can: {', '.join(able) or 'none'}. Take another task or another model."
        )
    return known[kind]


def _has(family: str, kind: TaskKind) -> bool:
    return kind == "generation" or kind in SCORERS.load(family).identities
