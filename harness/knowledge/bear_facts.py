"""BEAR's facts: out of the mirror's two tables, the hub's one, or a folder as its authors lay it out.

On the hub a row is a fact in one wording: ``relation``, ``subject``, ``template_index``, ``template``, ``answer_options`` and
the place of the right one, ``correct``; a folder of that layout in the mirror is read as well. The authors' folder has
``metadata_relations.json``, which gives each relation its ``templates`` and ``answer_space_labels``, and one
``<relation>.jsonl`` a relation with ``sub_label`` and either ``answer_idx`` or ``obj_label``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.digest import digest_json
from harness.core.errors import ConfigError, FileFormatError
from harness.core.serial import read_bytes
from harness.knowledge.data_source import find_source
from harness.knowledge.mirror import listed
from harness.knowledge.quiet import quiet_loading

HUB_PATH = "lm-pub-quiz/BEAR"
CONFIG = "BEAR"
SPLIT = "test"
METADATA = "metadata_relations.json"

_HUB_COLUMNS = ("relation", "subject", "template", "answer_options", "correct", "template_index")


@dataclass(frozen=True, slots=True)
class BearRelation:
    """How a relation is said, in several ways, and the closed set of its answers."""

    templates: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BearFact:
    """One subject and the place of its answer in its relation's set."""

    relation: str
    subject: str
    answer: int


@dataclass(frozen=True, slots=True)
class BearBook:
    """All relations and facts; ``digest`` covers both, ``version`` is for people."""

    version: str
    digest: str
    relations: Mapping[str, BearRelation]
    facts: tuple[BearFact, ...]


def load_bear(data: Path | None, folder: Path | None) -> BearBook:
    """The facts of ``folder``, else of the mirror ``data``, else of the hub. Raises ConfigError, FileFormatError,
    DownloadError."""
    if folder is not None:
        relations, facts, name = *_read_folder(folder), folder.name
    else:
        with quiet_loading(("datasets", "huggingface_hub")):
            table = find_source(HUB_PATH, CONFIG, {}, data=data, near=Path()).load([SPLIT])[SPLIT]
            is_of_hub = "template_index" in table.column_names
            relations, facts = _read_hub(table) if is_of_hub else _read_mirror(table, data)
        name = HUB_PATH
    if not facts:
        raise ConfigError(f"{name} has no facts: there is nothing to ask; restore the data.")
    _check(relations, facts, name)
    digest = digest_json([{key: [r.templates, r.answers] for key, r in relations.items()}, [_plain(fact) for fact in facts]])
    return BearBook(f"{name} {digest[:12]}", digest, relations, facts)


def _read_mirror(table: Any, data: Path | None) -> tuple[dict[str, BearRelation], tuple[BearFact, ...]]:
    """The mirror's layout: the facts in one table, the relations in another one beside it."""
    told = find_source(HUB_PATH, "relations", {}, data=data, near=Path()).load([SPLIT])[SPLIT]
    what = f"{HUB_PATH}/relations"
    relations = {_cell(row, "predicate_id", what): _relation(row, what) for row in told.to_list()}
    return relations, tuple(_fact(row, _cell(row, "predicate_id", HUB_PATH), relations, HUB_PATH) for row in table.to_list())


def _read_hub(table: Any) -> tuple[dict[str, BearRelation], tuple[BearFact, ...]]:
    """The hub's layout: a row a fact and wording, its relation's wordings and answers repeated in each."""
    wordings: dict[str, dict[int, str]] = {}
    answers: dict[str, tuple[str, ...]] = {}
    facts: dict[BearFact, set[int]] = {}
    for row in table.to_list():
        code, subject, template, options, right, wording = (_cell(row, name, HUB_PATH) for name in _HUB_COLUMNS)
        known = wordings.setdefault(code, {}).setdefault(int(wording), template)
        if (known, answers.setdefault(code, tuple(options))) != (template, tuple(options)):
            raise FileFormatError(
                f"{HUB_PATH}: {subject!r} of {code} has another template or other answers than the relation's other facts; "
                "restore the data."
            )
        asked = facts.setdefault(BearFact(code, subject, int(right)), set())
        if int(wording) in asked:
            raise FileFormatError(
                f"{HUB_PATH}: {subject!r} is asked twice in {code}; a subject has one answer here; restore the data."
            )
        asked.add(int(wording))
    for fact, asked in facts.items():
        if asked != set(range(len(wordings[fact.relation]))):
            raise FileFormatError(
                f"{HUB_PATH}: {fact.subject!r} is asked in the wordings {sorted(asked)} of {fact.relation}, which has "
                f"{sorted(wordings[fact.relation])}; restore the data."
            )
    relations = {
        code: BearRelation(tuple(text for _, text in sorted(found.items())), answers[code]) for code, found in wordings.items()
    }
    return relations, tuple(facts)


def _read_folder(folder: Path) -> tuple[dict[str, BearRelation], tuple[BearFact, ...]]:
    try:
        metadata = json.loads(read_bytes(folder / METADATA))
        relations = {code: _relation(entry, f"{folder / METADATA}, {code}") for code, entry in metadata.items()}
        facts = []
        for code in relations:
            file = folder / f"{code}.jsonl"
            lines = [line for line in read_bytes(file).splitlines() if line.strip()]
            facts += [_fact(json.loads(line), code, relations, f"{file}:{n}") for n, line in enumerate(lines, start=1)]
    except (json.JSONDecodeError, AttributeError) as error:
        raise FileFormatError(
            f"{folder}: {METADATA} and the .jsonl files are to be JSON objects ({error}): restore them."
        ) from error
    return relations, tuple(facts)


def _relation(row: Mapping[str, Any], what: str) -> BearRelation:
    return BearRelation(tuple(_cell(row, "templates", what)), tuple(_cell(row, "answer_space_labels", what)))


def _fact(row: Mapping[str, Any], code: str, relations: Mapping[str, BearRelation], what: str) -> BearFact:
    relation = relations.get(code)
    if relation is None:
        raise FileFormatError(f"{what}: the relation {code!r} is not among {listed(relations)}; restore the data.")
    place = row.get("answer_idx")
    if place is None:
        label = _cell(row, "obj_label", what)
        if label not in relation.answers:
            raise FileFormatError(f"{what}: the answer {label!r} is not in the answer set of {code}; restore the data.")
        place = relation.answers.index(label)
    return BearFact(code, str(_cell(row, "sub_label", what)), int(place))


def _cell(row: Mapping[str, Any], name: str, what: str) -> Any:
    if row.get(name) is None:
        raise FileFormatError(f"{what} has no {name!r}: it has {listed(row)}; expected BEAR's own columns.")
    return row[name]


def _check(relations: Mapping[str, BearRelation], facts: Sequence[BearFact], name: str) -> None:
    for code, relation in relations.items():
        bad = [text for text in relation.templates if text.count("[X]") != 1 or text.count("[Y]") != 1]
        if bad or not relation.templates:
            raise FileFormatError(f"{name}: a template of {code} must hold one [X] and one [Y], and {bad or 'none'} is there.")
        if len(set(relation.answers)) != len(relation.answers) or len(relation.answers) < 2:
            raise FileFormatError(f"{name}: {code} needs two answers or more, each once, and has {len(relation.answers)}.")
    seen: set[tuple[str, str]] = set()
    for fact in facts:
        if not 0 <= fact.answer < len(relations[fact.relation].answers):
            raise FileFormatError(
                f"{name}: {fact.subject!r} has answer {fact.answer} of {fact.relation}, which has none such."
            )
        if (fact.relation, fact.subject) in seen:
            raise FileFormatError(
                f"{name}: {fact.subject!r} is asked twice in {fact.relation}; a subject has one answer here."
            )
        seen.add((fact.relation, fact.subject))


def _plain(fact: BearFact) -> list[Any]:
    return [fact.relation, fact.subject, fact.answer]
