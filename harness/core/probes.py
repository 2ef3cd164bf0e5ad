"""The probes' n-grams: how rooms below ``knowledge`` refuse text that holds what is probed.

``knowledge`` builds a ``ProbeIndex`` from the probes' right sentences; ``compression`` and ``recovery`` get it as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

NGRAM_WORDS = 5
"""Words an overlap with a short, made-up probe must have: four are mostly grammar ("is the capital of"). Probes of natural
text need more (13 since Brown et al. 2020): any text holds "at the end of the". Shorter sentences count as a whole."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class ProbeIndex:
    """The word n-grams of a set of probe sentences."""

    grams: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, sentences: Iterable[str], n_words: int = NGRAM_WORDS) -> ProbeIndex:
        """The index of some sentences' n-grams; a shorter sentence enters as it is.

        >>> index = ProbeIndex.of(["The capital of France is Paris."])
        >>> index.overlaps("We all know that the capital of France is large.")
        [('the', 'capital', 'of', 'france', 'is')]
        """
        return cls(frozenset(gram for sentence in sentences for gram in _grams(words(sentence), n_words)))

    def __or__(self, other: ProbeIndex) -> ProbeIndex:
        """Both probes' n-grams, of whatever lengths."""
        return ProbeIndex(self.grams | other.grams)

    def overlaps(self, text: str) -> list[tuple[str, ...]]:
        """The probe n-grams that a text holds, in order of appearance, each once."""
        tokens = words(text)
        lengths = {len(gram) for gram in self.grams}
        found = (
            tuple(tokens[i : i + n]) for i in range(len(tokens)) for n in lengths if tuple(tokens[i : i + n]) in self.grams
        )
        return list(dict.fromkeys(found))


def words(text: str) -> list[str]:
    """The lower-cased words of a text.

    >>> words("It's Paris, France.")
    ['it', 's', 'paris', 'france']
    """
    return _WORD.findall(text.lower())


def _grams(tokens: list[str], n_words: int) -> Iterable[tuple[str, ...]]:
    if len(tokens) < n_words:
        return [tuple(tokens)] if tokens else []
    return (tuple(tokens[i : i + n_words]) for i in range(len(tokens) - n_words + 1))
