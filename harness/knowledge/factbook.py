"""The facts' files as frozen records: read, checked once, and written out as sentences.

``scripts/generate_facts.py`` makes the files. A template ends with its blank, ``[Y].``, and holds one ``[X]``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.core.digest import digest_sequence, digest_text
from harness.core.errors import FileFormatError
from harness.core.records import record
from harness.core.serial import from_json, read_text

FOLDER = Path(__file__).parent / "data" / "facts"


@record
class Relation:
    """A kind of fact: how it is said, and the closed set of its answers."""

    template: str
    cardinality: str
    group: str
    source: str
    licence: str
    answers: tuple[str, ...]


@record
class RelationTable:
    """``relations.json``: the relations by name, and the packages that the facts were made from."""

    schema_version: int
    version: str
    packages: dict[str, str]
    relations: dict[str, Relation]


@record
class Fact:
    """One line of ``facts.jsonl``. Every entry of ``answers`` is right; ``also`` is never right and never offered as wrong."""

    id: str
    relation: str
    subject: str
    answers: tuple[str, ...]
    also: tuple[str, ...]


@dataclass(frozen=True)
class FactBook:
    """All relations and facts. ``digest`` covers both files' content, ``version`` is for people."""

    version: str
    digest: str
    relations: Mapping[str, Relation]
    facts: tuple[Fact, ...]


@cache
def load_facts(folder: Path = FOLDER) -> FactBook:
    """The facts of a folder. Raises FileFormatError for anything that could not be asked or would contradict itself."""
    tables = read_text(folder / "relations.json")
    table = from_json(tables.encode(), RelationTable, what=str(folder / "relations.json"))
    lines = {n: line for n, line in enumerate(_lines(read_text(folder / "facts.jsonl")), start=1) if line.strip()}
    facts = tuple(from_json(line.encode(), Fact, what=f"{folder / 'facts.jsonl'}:{n}") for n, line in lines.items())
    digest = digest_sequence(digest_text(text) for text in (tables, *lines.values()))
    problem = next(iter([*_relation_problems(table), *_fact_problems(table, facts)]), None)
    if problem:
        raise FileFormatError(f"{folder}: {problem}: run scripts/generate_facts.py again or restore the files.")
    return FactBook(f"{table.version}+{digest[:12]}", digest, table.relations, facts)


def _lines(text: str) -> list[str]:
    return [line.removesuffix("\r") for line in text.split("\n")]


def prompt(relation: Relation, fact: Fact) -> str:
    """The fact's sentence with its blank, starting with a capital.

    >>> relation = Relation("[X] is a city in [Y].", "N-1", "geography", "", "", ("Italy", "the Netherlands"))
    >>> prompt(relation, Fact("city:NL-the-hague", "city", "the Hague", ("the Netherlands",), ()))
    'The Hague is a city in [Y].'
    """
    before, _, after = relation.template.partition("[X]")
    text = f"{before}{fact.subject}{after}"
    return text[:1].upper() + text[1:]


def fill(prompt_text: str, answer: str) -> str:
    """The prompt with an answer in its blank; text that looks like a blank elsewhere stays.

    >>> fill("The Hague is a city in [Y].", "the Netherlands")
    'The Hague is a city in the Netherlands.'
    """
    before, _, after = prompt_text.rpartition("[Y]")
    return f"{before}{answer}{after}"


def _relation_problems(table: RelationTable) -> list[str]:
    blanks = {name: (r.template.count("[X]"), r.template.count("[Y]")) for name, r in table.relations.items()}
    bad = [name for name, r in table.relations.items() if blanks[name] != (1, 1) or not r.template.endswith(" [Y].")]
    twice = [name for name, r in table.relations.items() if list(r.answers) != sorted(set(r.answers))]
    unfit = [(name, answer) for name, r in table.relations.items() for answer in r.answers if _unprintable(answer)]
    return [
        *(f"the template of {name!r} must hold one [X] and one [Y] and end with ' [Y].'" for name in bad),
        *(f"the answers of {name!r} must be sorted, each once" for name in twice),
        *(f"the answer {answer!r} of {name!r} is empty, padded or has control characters" for name, answer in unfit),
    ]


def _fact_problems(table: RelationTable, facts: tuple[Fact, ...]) -> list[str]:
    problems = [] if facts else ["there are no facts"]
    for fact in facts:
        relation = table.relations.get(fact.relation)
        known = set(relation.answers) if relation else set()
        if relation is None:
            problems.append(f"{fact.id!r} is of the unknown relation {fact.relation!r}")
        elif not fact.answers or not {*fact.answers, *fact.also} <= known:
            problems.append(f"{fact.id!r} needs right answers, all among those of its relation")
        elif len(set(fact.answers)) < len(fact.answers):
            problems.append(f"{fact.id!r} has a right answer twice")
        elif set(fact.answers) & set(fact.also):
            problems.append(f"{fact.id!r} has an answer that is both right and never offered")
        elif not known - {*fact.answers, *fact.also}:
            problems.append(f"{fact.id!r} has no wrong candidate")
        elif any(_unprintable(text) for text in (fact.id, fact.subject, *fact.answers)):
            problems.append(f"{fact.id!r} holds a text that is empty, padded or has control characters")
    ids = Counter(fact.id for fact in facts)
    subjects = Counter((fact.relation, fact.subject) for fact in facts)
    problems += [f"{name!r} is there {n} times" for name, n in ids.items() if n > 1]
    problems += [f"{subject!r} is asked {n} times in {name!r}" for (name, subject), n in subjects.items() if n > 1]
    return problems


def _unprintable(text: str) -> bool:
    return not text or text != text.strip() or not text.isprintable()
