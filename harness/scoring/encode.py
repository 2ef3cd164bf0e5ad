"""From requests to tokens, by lm-eval's convention to the letter (``lm_eval.api.model.TemplateLM._encode_pair``, 0.4.13).

Trailing spaces of the context move to the continuation; context and continuation are encoded together and cut at the
length of the context encoded alone; BOS is added where the tokenizer adds it by default; an empty context is the prefix
token (BOS, else EOS); what does not fit into the window is cut off on the left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.core.errors import ScoreError
from harness.scoring import Request

_DEFAULT_WINDOW_TOKENS = 2048
_UNSET_LENGTH = 10**18
"""Tokenizers without a known window carry a number beyond this as their ``model_max_length``."""


class Reader(Protocol):
    """What turning requests into tokens needs of a model: a ``LoadedModel`` has it, and so has a tokenizer by itself."""

    @property
    def tokenizer(self) -> Any:
        """A fast tokenizer of transformers'."""

    @property
    def prefix_token_id(self) -> int:
        """What an empty context stands for: BOS, else EOS."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request as tokens: what is fed (``tokens[:-1]``), how many tokens at the end are scored, and how many were cut off at
    the beginning."""

    tokens: tuple[int, ...]
    n_scored: int
    n_cut: int = 0


def window_tokens(config: Any, tokenizer: Any) -> int:
    """How many tokens a model takes at once, found where lm-eval looks for it."""
    text_config = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(text_config, name, None)
        if value is not None:
            return int(value)
    length = getattr(tokenizer, "model_max_length", None)
    return _DEFAULT_WINDOW_TOKENS if length is None or length > _UNSET_LENGTH else int(length)


def encode_groups(groups: Sequence[Sequence[Request]], model: Reader, window: int) -> list[list[Encoded]]:
    """Every request as tokens. Raises ScoreError for a continuation without tokens or longer than the window."""
    split = [[move_spaces(_as_continuation(request)) for request in group] for group in groups]
    flat = [pair for group in split for pair in group]
    ids = _encode_all(flat, model)
    return [[_encode(pair, ids, model.prefix_token_id, window) for pair in group] for group in split]


def continuation_lengths(requests: Sequence[Request], model: Reader) -> list[int]:
    """How many tokens of each request ``encode_groups`` would score, whatever the window."""
    pairs = [move_spaces(_as_continuation(request)) for request in requests]
    ids = _encode_all(pairs, model)
    return [len(_split(pair, ids, model.prefix_token_id)[1]) for pair in pairs]


def check_length(n_tokens: int, window: int, context: str, continuation: str) -> None:
    """Raise ScoreError for a continuation without tokens or longer than the window."""
    if not 1 <= n_tokens <= window:
        raise ScoreError(
            f"continuation {continuation[:60]!r} has {n_tokens} tokens after context {context[-60:]!r}: expected 1 to "
            f"{window} (the model's window); leave the item out or word it otherwise."
        )


def _as_continuation(request: Request) -> Request:
    """A request of any reading as a decoder reads it: from left to right.

    >>> _as_continuation(Request("Paris is in", " France", ".", "sentence"))
    Request(context='', continuation='Paris is in France.', after='', reading='continuation')
    >>> _as_continuation(Request("Paris is in", " France", ".", "blank"))
    Request(context='Paris is in', continuation=' France', after='', reading='continuation')
    """
    if request.reading == "sentence":
        return Request("", request.context + request.continuation + request.after)
    return Request(request.context, request.continuation)


def move_spaces(request: Request) -> tuple[str, str]:
    """Context and continuation with the context's trailing whitespace moved over.

    >>> move_spaces(Request("Q: ", "yes"))
    ('Q:', ' yes')
    """
    context, continuation = request.context, request.continuation
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces == 0:
        return context, continuation
    return context[:-n_spaces], context[-n_spaces:] + continuation


def _encode(pair: tuple[str, str], ids: Mapping[tuple[str, bool], list[int]], prefix: int, window: int) -> Encoded:
    before, after = _split(pair, ids, prefix)
    check_length(len(after), window, *pair)
    whole_row = before + after
    return Encoded(tuple(whole_row[-(window + 1) :]), len(after), max(0, len(whole_row) - (window + 1)))


def _split(pair: tuple[str, str], ids: Mapping[tuple[str, bool], list[int]], prefix: int) -> tuple[list[int], list[int]]:
    """The tokens of the context, and those that are scored."""
    context, continuation = pair
    if context:
        before, whole = ids[context, True], ids[context + continuation, True]
        return before, whole[len(before) :]
    after = ids[continuation, False]
    return [prefix], after[1:] if after[:1] == [prefix] else after


def _encode_all(pairs: Iterable[tuple[str, str]], model: Reader) -> dict[tuple[str, bool], list[int]]:
    """The tokens of each distinct text, keyed by (text, whether it stands after nothing but the tokenizer's own BOS)."""
    needed: dict[tuple[str, bool], None] = {}
    for context, continuation in pairs:
        if context:
            needed[context, True] = needed[context + continuation, True] = None
        else:
            needed[continuation, False] = None
    has_prefix = model.tokenizer.decode(model.prefix_token_id)
    batches: dict[bool, list[tuple[str, bool]]] = {True: [], False: []}
    for key in needed:
        text, default = key
        batches[default and not text.startswith(has_prefix)].append(key)
    made: dict[tuple[str, bool], list[int]] = {}
    for special, keys in batches.items():
        if keys:
            rows = model.tokenizer([text for text, _ in keys], add_special_tokens=special, verbose=False)["input_ids"]
            made.update(zip(keys, rows, strict=True))
    return made
