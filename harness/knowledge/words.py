"""The candidate vocabulary of a cloze: the words that compete at a blank, each one token of the model.

By default they are the model's own words: every token that is a word behind a space. Where models are compared they must
share them: a file of words, one a line, such as ``shared_words`` makes from several tokenizers. A word that is not one token
of the model is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.digest import digest_sequence, digest_text
from harness.core.errors import FileFormatError, ModelError
from harness.core.serial import read_text
from harness.scoring import Candidates

LEAD = "It is"
"""A word's token is the one that it has behind these words and a space."""

FEWEST_WORDS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The competing words by token, in the order of their tokens. ``digest`` is that of the words; ``n_left_out`` counts the
    words of a given list that are not one token of this model, or not a token of their own."""

    words: Mapping[int, str]
    candidates: Candidates
    digest: str
    n_left_out: int

    def __len__(self) -> int:
        return len(self.words)


def make_vocabulary(tokenizer: Any, words: Sequence[str] | None) -> Vocabulary:
    """The vocabulary of some words, or of the model's own. Of words that share a token (a model without capitals) the first
    counts. Raises ModelError where fewer than two are left."""
    asked = own_words(tokenizer) if words is None else words
    by_token: dict[int, str] = {}
    for word, token in single_tokens(tokenizer, asked).items():
        by_token.setdefault(token, word)
    if len(by_token) < FEWEST_WORDS:
        raise ModelError(
            f"of {len(asked)} candidate words this tokenizer writes {len(by_token)} as one token: expected at least "
            f"{FEWEST_WORDS}; name another vocabulary, or leave the task out."
        )
    ordered = dict(sorted(by_token.items()))
    digest = digest_sequence(digest_text(word) for word in sorted(ordered.values()))
    return Vocabulary(ordered, Candidates(np.array(list(ordered))), digest, len(asked) - len(ordered))


def single_tokens(tokenizer: Any, words: Iterable[str]) -> dict[str, int]:
    """The words that are one token behind a space, each with it."""
    asked = list(dict.fromkeys(words))
    base = encode_all(tokenizer, [LEAD])[0]
    found = encode_all(tokenizer, [f"{LEAD} {word}" for word in asked])
    n = len(base)
    unknown = getattr(tokenizer, "unk_token_id", None)
    return {
        word: ids[n]
        for word, ids in zip(asked, found, strict=True)
        if len(ids) == n + 1 and ids[:n] == base and ids[n] != unknown
    }


def own_words(tokenizer: Any) -> tuple[str, ...]:
    """Every word that a tokenizer has as one token behind a space: letters and digits, with hyphens and apostrophes inside."""
    texts = {tokenizer.decode([token]).strip() for token in range(len(tokenizer))}
    words = sorted(text for text in texts if _is_word(text))
    return tuple(single_tokens(tokenizer, words))


def shared_words(tokenizers: Iterable[Any]) -> tuple[str, ...]:
    """The words that all of these tokenizers have as one token, in alphabetical order."""
    first, *others = tokenizers
    words: Sequence[str] = own_words(first)
    for tokenizer in others:
        words = tuple(single_tokens(tokenizer, words))
    return tuple(sorted(words))


def read_words(path: Path) -> tuple[str, ...]:
    """The words of a file, one a line. Raises FileFormatError for a file without words, with one twice, or not in UTF-8."""
    words = [word.strip() for word in read_text(path).split("\n") if word.strip()]
    twice = next((word for word, before in zip(sorted(words)[1:], sorted(words), strict=False) if word == before), None)
    if not words or twice is not None:
        found = f"{twice!r} twice" if twice is not None else "none"
        raise FileFormatError(f"{path} is to list candidate words, one a line and each once, and has {found}: correct it.")
    return tuple(words)


def encode_all(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of some texts, without special ones; at once, which is ten times as fast as one by one."""
    made: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return made


def _is_word(text: str) -> bool:
    """
    >>> [_is_word(text) for text in ("Paris", "1941", "so-called", "don't", "-", "##s", "a b", "")]
    [True, True, True, True, False, False, False, False]
    """
    return all(part.isalnum() for part in text.replace("'", "-").split("-"))
