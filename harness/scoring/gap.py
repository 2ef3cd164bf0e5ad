"""Whole sentences as tokens, and which of them are the answer's: cut at characters, so that no tokenizer can blur the gap.

The sentence is tokenized with its answer in place, as the model would read it, and the answer's tokens are found by their
characters. Tokenizing the parts apart, or a text with the mask written into it, gives other tokens at the seams: T5 and
ALBERT would put a space before the full stop behind a mask. Where a tokenizer joins one of a group's answers with what
stands behind it (T5 may have "1." as one token), all answers of that context are read with a space there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

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
    read = [_read(request, found, window, gaps) for request, found in zip(group, _encode(group, model), strict=True)]
    joined = {(request.context, request.after) for request, sentence in zip(group, read, strict=True) if sentence is None}
    if joined:
        apart = [replace(r, after=f" {r.after}") if (r.context, r.after) in joined and r.reading in gaps else r for r in group]
        read = [_read(request, found, window, gaps) for request, found in zip(apart, _encode(apart, model), strict=True)]
    made = [sentence for sentence in read if sentence is not None]
    if len(made) < len(read):
        raise ScoreError(_shared(group[read.index(None)]))
    return made


@dataclass(frozen=True, slots=True)
class _Encoded:
    tokens: list[int]
    words: list[int | None]
    offsets: list[tuple[int, int]]


def _encode(group: Sequence[Request], model: LoadedModel) -> list[_Encoded]:
    backend = model.tokenizer.backend_tokenizer  # transformers' own call takes three times as long
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
    """The answer's tokens: those with characters of it, and one for the space before it, where that is a token of its own."""
    n_before, answer = len(request.context.rstrip()), request.continuation.strip()
    n_context, whole = len(request.context), request.context + request.continuation + request.after
    start = n_context + len(request.continuation) - len(request.continuation.lstrip())
    end = start + len(answer)
    tokens = [
        i
        for i, (first, last) in enumerate(found.offsets)
        if found.words[i] is not None and ((first < end and last > start) or (n_before <= first and last <= start))
    ]
    if not answer or not tokens:
        raise ScoreError(f"the sentence {_brief(request)} has no tokens of its answer: expected one at least; word it out.")
    if found.offsets[tokens[0]][0] < n_before:
        raise ScoreError(_shared(request))
    return None if whole[end : found.offsets[tokens[-1]][1]].strip() else range(tokens[0], tokens[-1] + 1)


def _shared(request: Request) -> str:
    return (
        f"the answer in {_brief(request)} shares a token with the text around it, so it can't be taken out: leave the item "
        "out, or put spaces around the answer."
    )


def _brief(request: Request) -> str:
    return repr(f"{request.context[-40:]}[{request.continuation[:40]}]{request.after[:20]}")
