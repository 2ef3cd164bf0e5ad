"""BEAR's facts: out of the mirror's two tables, or a folder as its authors lay it out.

The folder has ``metadata_relations.json``, which gives each relation its ``templates`` and ``answer_space_labels``, and one
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
from harness.knowledge.mirror import ParquetFolder, listed

HUB_PATH = "lm-pub-quiz/BEAR"
METADATA = "metadata_relations.json"


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
    """The facts of ``folder``, else of the mirror ``data``. Raises ConfigError, FileFormatError."""
    if folder is not None:
        relations, facts, name = *_read_folder(folder), folder.name
    elif data is not None and (data / HUB_PATH).is_dir():
        relations, facts, name = *_read_mirror(data / HUB_PATH), HUB_PATH
    else:
        looked_for = f"there is no folder {data / HUB_PATH}" if data is not None else "no mirror was given"
        raise ConfigError(
            f"BEAR's facts were not found ({looked_for}): put them into the mirror (--harness-data, --data), or set "
            f'`folder = "…"` to the authors\' folder with {METADATA} and one .jsonl a relation.'
        )
    if not facts:
        raise ConfigError(f"{name} has no facts: there is nothing to ask; restore the data.")
    _check(relations, facts, name)
    digest = digest_json([{key: [r.templates, r.answers] for key, r in relations.items()}, [_plain(fact) for fact in facts]])
    return BearBook(f"{name} {digest[:12]}", digest, relations, facts)


def _read_mirror(folder: Path) -> tuple[dict[str, BearRelation], tuple[BearFact, ...]]:
    tables = {
        name: ParquetFolder.of(folder, HUB_PATH, name, {}).load(["test"])["test"].to_list() for name in ("relations", "BEAR")
    }
    what = f"{HUB_PATH}/relations"
    relations = {_cell(row, "predicate_id", what): _relation(row, what) for row in tables["relations"]}
    return relations, tuple(_fact(row, _cell(row, "predicate_id", HUB_PATH), relations, HUB_PATH) for row in tables["BEAR"])


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
