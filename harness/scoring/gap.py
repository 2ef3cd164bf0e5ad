"""Whole sentences as tokens, and which of them are the answer's: cut at characters, so that no tokenizer can blur the gap.

The sentence is tokenized with its answer in place, as the model would read it, and the answer's tokens are found by their
characters. Tokenizing the parts apart, or a text with the mask written into it, gives other tokens at the seams: T5 and
ALBERT would put a space before the full stop behind a mask. Where a tokenizer joins one of a group's answers with what
stands behind it (T5 may have "1." as one token), all answers of that context are read with a space there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.core.errors import ScoreError
from harness.models.loaded import LoadedModel
from harness.scoring import Reading, Request

_BLANK: tuple[Reading, ...] = ("blank",)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A request's sentence: its tokens with the special ones around them, the word that each is of (None: special), and
    the answer's tokens as a range (empty where it was not asked for)."""

    tokens: tuple[int, ...]
    words: tuple[int | None, ...]
    gap: range = range(0)

    def without_answer(self, *filler: int) -> tuple[int, ...]:
        """The tokens with ``filler`` in place of the answer's.

        >>> Sentence((1, 7, 8, 9, 2), (None, 0, 1, 1, None), range(2, 4)).without_answer(103)
        (1, 7, 103, 2)
        """
        return (*self.tokens[: self.gap.start], *filler, *self.tokens[self.gap.stop :])

    @property
    def answer(self) -> tuple[int, ...]:
        """The answer's tokens."""
        return self.tokens[self.gap.start : self.gap.stop]


def read_sentences(
    group: Sequence[Request], model: LoadedModel, window: int, *, gaps: Collection[Reading] = _BLANK
) -> list[Sentence]:
    """The sentence of each request of a group, with its gap where the reading is one of ``gaps``.

    Raises ScoreError for one that can't be asked.
    """
    read = [_read(request, found, window, gaps) for request, found in zip(group, _encode(group, model.tokenizer), strict=True)]
    if None in read:
        apart = _set_apart(group, [sentence is None for sentence in read], gaps)
        read = [
            _read(request, found, window, gaps) for request, found in zip(apart, _encode(apart, model.tokenizer), strict=True)
        ]
    made = [sentence for sentence in read if sentence is not None]
    if len(made) < len(read):
        raise ScoreError(_shared(group[read.index(None)]))
    return made


def as_read(group: Sequence[Request], tokenizer: Any) -> list[Request] | None:
    """A group as ``read_sentences`` reads its gaps: with a space behind the answers where one is needed.

    None where one of them shares a token with the text around it all the same, so that its gap can't be read. Raises
    ScoreError for an answer without tokens.
    """
    read = list(group)
    before, behind = _joined(read, tokenizer)
    if any(behind) and not any(before):
        read = _set_apart(read, behind, {request.reading for request in read})
        before, behind = _joined(read, tokenizer)
    return None if any(before) or any(behind) else read


def _joined(group: Sequence[Request], tokenizer: Any) -> tuple[list[bool], list[bool]]:
    """Whether each answer shares its first token with the text before it, and its last with that behind it."""
    found = [(request, one, _tokens(request, one)) for request, one in zip(group, _encode(group, tokenizer), strict=True)]
    return [_joins_before(*one) for one in found], [_joins_behind(*one) for one in found]


def _set_apart(group: Sequence[Request], joins: Sequence[bool], gaps: Collection[Reading]) -> list[Request]:
    """The group with a space behind all answers of a context in which one of them joins what stands behind it."""
    joined = {(request.context, request.after) for request, does in zip(group, joins, strict=True) if does}
    return [
        replace(request, after=f" {request.after}")
        if (request.context, request.after) in joined and request.reading in gaps
        else request
        for request in group
    ]


@dataclass(frozen=True, slots=True)
class _Encoded:
    tokens: list[int]
    words: list[int | None]
    offsets: list[tuple[int, int]]


def _encode(group: Sequence[Request], tokenizer: Any) -> list[_Encoded]:
    backend = tokenizer.backend_tokenizer  # transformers' own call takes three times as long
    backend.no_truncation()
    backend.no_padding()
    found = backend.encode_batch([request.context + request.continuation + request.after for request in group])
    return [_Encoded(encoding.ids, encoding.word_ids, encoding.offsets) for encoding in found]


def _read(request: Request, found: _Encoded, window: int, gaps: Collection[Reading]) -> Sentence | None:
    """The sentence; None where its answer shares its last token with the text behind it."""
    n_special = found.words.count(None)
    if not n_special < len(found.words) <= window:
        raise ScoreError(
            f"the sentence {_brief(request)} has {len(found.words)} tokens, {n_special} of them special: expected a text "
            f"within the model's window of {window} tokens; leave the item out or word it otherwise."
        )
    gap = _find_gap(request, found) if request.reading in gaps else range(0)
    return None if gap is None else Sentence(tuple(found.tokens), tuple(found.words), gap)


def _find_gap(request: Request, found: _Encoded) -> range | None:
    """The answer's tokens; None where the last is shared with the text behind it."""
    tokens = _tokens(request, found)
    if _joins_before(request, found, tokens):
        raise ScoreError(_shared(request))
    return None if _joins_behind(request, found, tokens) else range(tokens[0], tokens[-1] + 1)


def _tokens(request: Request, found: _Encoded) -> list[int]:
    """Where the answer's tokens are: those with characters of it, and one for the space before it, where that is a token."""
    n_before, (start, end) = len(request.context.rstrip()), _place(request)
    tokens = [
        i
        for i, (first, last) in enumerate(found.offsets)
        if found.words[i] is not None and ((first < end and last > start) or (n_before <= first and last <= start))
    ]
    if start == end or not tokens:
        raise ScoreError(f"the sentence {_brief(request)} has no tokens of its answer: expected one at least; word it out.")
    return tokens


def _joins_before(request: Request, found: _Encoded, tokens: Sequence[int]) -> bool:
    return found.offsets[tokens[0]][0] < len(request.context.rstrip())


def _joins_behind(request: Request, found: _Encoded, tokens: Sequence[int]) -> bool:
    whole, (_, end) = request.context + request.continuation + request.after, _place(request)
    return bool(whole[end : found.offsets[tokens[-1]][1]].strip())


def _place(request: Request) -> tuple[int, int]:
    """The first character of the answer, without spaces around it, and the one behind its last."""
    answer = request.continuation.strip()
    start = len(request.context) + len(request.continuation) - len(request.continuation.lstrip())
    return start, start + len(answer)


def _shared(request: Request) -> str:
    return (
        f"the answer in {_brief(request)} shares a token with the text around it, so it can't be taken out: leave the item "
        "out, or put spaces around the answer."
    )


def _brief(request: Request) -> str:
    return repr(f"{request.context[-40:]}[{request.continuation[:40]}]{request.after[:20]}")
