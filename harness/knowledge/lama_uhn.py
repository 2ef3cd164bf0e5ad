"""LAMA-UHN, "unhelpful names" (Poerner et al. 2019, arXiv 1911.03681): facts that their names give away are left out.

*In the name*: the object is a part of the subject, whatever the case ("Apple Watch", made by Apple). *By the name*: of a
person's relations, the object is among a masked language model's three likeliest words for "<name> is a common name in the
following city/country/language : [MASK] ." for a part of the person's name. The second needs a list of those words, made once
from one model (``scripts/list_common_names.py``), so that every cell is asked the same facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.core.errors import ConfigError
from harness.core.records import record
from harness.core.serial import read_json
from harness.knowledge.lama_facts import LamaFact

NOUNS: Mapping[str, str] = {
    "P19": "city",
    "P20": "city",
    "P27": "country",
    "P103": "language",
    "P1412": "language",
    "place_of_birth": "city",
    "place_of_death": "city",
}
"""The relations of persons, and what their names might tell."""

N_WORDS = 3


@record
class CommonNames:
    """``words[noun][name]``: the words that ``model`` finds likeliest behind the name's sentence, best first."""

    schema_version: int
    model: str
    words: dict[str, dict[str, tuple[str, ...]]]


def read_names(path: Path) -> CommonNames:
    """The list of a file. Raises FileFormatError."""
    return read_json(path, CommonNames)


def name_sentence(noun: str, name: str) -> tuple[str, str]:
    """What a masked model is asked about a part of a name: the text before and behind its blank."""
    return f"{name} is a common name in the following {noun} :", " ."


def names_of(facts: Iterable[LamaFact]) -> dict[str, set[str]]:
    """The parts of persons' names by noun."""
    found: dict[str, set[str]] = {}
    for fact in facts:
        if fact.relation in NOUNS:
            found.setdefault(NOUNS[fact.relation], set()).update(fact.subject.split())
    return found


def is_in_name(fact: LamaFact) -> bool:
    """Whether the subject holds the object.

    >>> is_in_name(LamaFact("P176", "Apple Watch", "apple", None, None))
    True
    """
    return fact.object.lower() in fact.subject.lower()


def is_told_by_name(fact: LamaFact, names: CommonNames) -> bool:
    """Whether a part of a person's name suggests the object. Raises ConfigError for a name that the list does not have."""
    noun = NOUNS.get(fact.relation)
    if noun is None:
        return False
    suggested: set[str] = set()
    for name in fact.subject.split():
        words = names.words.get(noun, {}).get(name)
        if words is None:
            raise ConfigError(
                f"the list of common names (made from {names.model}) has no {noun} for {name!r}, which the facts of "
                f"{fact.relation} need: make it again from these facts with scripts/list_common_names.py."
            )
        suggested |= {word.lower() for word in words[:N_WORDS]}
    return fact.object.lower() in suggested
