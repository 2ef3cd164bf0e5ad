"""Scoring: from requests to log-probabilities, and from prompts to generated text.

A ``Scorer`` takes requests grouped by item, because the requests of an item share tokens, and gives one ``Score`` a
request in the same order; a ``Generator`` does the same from prompts to texts. A model family has one of each where the
family can do it at all. This module imports no torch; the engines beside it do.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np
from jaxtyping import Int

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

RANKERS = Shelf(
    "rankers",
    {
        "decoder": "harness.scoring.rankers:DecoderRanker",
        "encoder": "harness.scoring.rankers:EncoderRanker",
        "seq2seq": "harness.scoring.rankers:Seq2SeqRanker",
    },
)
"""What ranks the tokens of a vocabulary at one place, made the same way."""

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

TaskKind = Literal["continuation", "sentence", "blank", "rolling", "generation", "ranking"]
"""What a task asks of a model: a reading of the scorer's, generated text, or where a token stands among many at one blank."""


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
    and how many there are.

    ``lead_nats``: how far the token that comes off worst is ahead of the likeliest other one; negative where it is behind.
    That near 0, rounding decides ``is_greedy``. Infinite: nobody looked. ``n_cut``: how many tokens of the context did not fit
    into the model's window and were cut off on the left. ``root``: which of several soft roots was chosen for it, from 0;
    None where there was nothing to choose.
    """

    loglik_nats: float
    is_greedy: bool
    n_tokens: int
    lead_nats: float = math.inf
    n_cut: int = 0
    root: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """Generate greedily after ``context``, until one of ``stop`` appears or ``max_new_tokens`` are made."""

    context: str
    stop: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Generated:
    """The text that was generated, cut before the stop string; ``n_tokens`` were made, the stop string's among them.

    ``is_ended``: whether it came to a stop string or to the model's own end, and not only to the most tokens it may have.
    ``n_cut``: how many tokens of the context did not fit beside what is to be made and were cut off on the left.
    ``root`` as in a ``Score``.
    """

    text: str
    n_tokens: int
    is_ended: bool = True
    n_cut: int = 0
    root: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The tokens that compete at a blank: ids, each once."""

    tokens: Int[np.ndarray, " candidates"]
    digest: str = field(init=False)
    """Of the tokens: the same candidates in the same order have the same."""

    def __post_init__(self) -> None:
        data = np.ascontiguousarray(self.tokens, dtype=np.int64).tobytes()
        object.__setattr__(self, "digest", hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class Blank:
    """Where does ``answer``, one token, stand among the candidates at the blank between ``context`` and ``after``?

    The place is that of the reading "blank"; all candidates are read off one forward pass. The space before the answer
    belongs to it, as in a ``Request``.
    """

    context: str
    answer: str
    after: str
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer's token, its log-probability over the model's whole vocabulary (nats), how many other candidates have as much
    or more (rank - 1), and the likeliest candidates, at most ten, best first: their tokens and log-probabilities. ``root`` as
    in a ``Score``."""

    token: int
    loglik_nats: float
    n_ahead: int
    best: tuple[int, ...]
    best_logliks_nats: tuple[float, ...]
    root: int | None = None


Question = Request | Prompt | Blank
"""What can be asked of a model."""

Answer = Score | Generated | Standing
"""What comes back for a question."""

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


def is_cut(answer: Answer) -> bool:
    """Whether the beginning of what was asked did not fit into the model's window.

    >>> is_cut(Score(-1.0, False, 1)), is_cut(Generated("Riga", 2, n_cut=3))
    (False, True)
    """
    return not isinstance(answer, Standing) and answer.n_cut > 0


class Ranker(Protocol):
    """One model made ready for ranking. ``identity`` names method and version."""

    identity: ClassVar[str]

    def rank(self, groups: Sequence[Sequence[Blank]]) -> list[list[Standing]]:
        """Where each blank's answer stands. Raises ScoreError for an answer that is not one token at its place, or a score
        that is not finite."""


def engine_of(kind: TaskKind) -> tuple[Shelf, str]:
    """The shelf of what answers a kind of task, and the verb by which it is asked."""
    return {"generation": (GENERATORS, "generate"), "ranking": (RANKERS, "rank")}.get(kind, (SCORERS, "score"))


def identity_of(kind: TaskKind, family: str) -> str:
    """Protocol and version by which a model family answers a kind of task.

    Raises ConfigError where the family can't: an encoder has no continuation, a decoder no mask.
    """
    shelf, _ = engine_of(kind)
    known = _identities(shelf, kind, family) if family in shelf or shelf is SCORERS else {}
    if kind not in known:
        able = sorted(name for name in shelf if kind in _identities(shelf, kind, name))
        raise ConfigError(
            f"the task asks for {kind!r}, which a model of family {family!r} can't give; "
            f"families that can: {', '.join(able) or 'none'}. Take another task or another model."
        )
    return known[kind]


def _identities(shelf: Shelf, kind: TaskKind, family: str) -> Mapping[str, str]:
    made = shelf.load(family)
    known: Mapping[str, str] = made.identities if shelf is SCORERS else {kind: made.identity}
    return known
