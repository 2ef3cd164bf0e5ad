"""BEAR's facts: out of the mirror's two tables, the hub's one, or a folder as its authors lay it out.

On the hub a row is a fact in one wording: ``relation``, ``subject``, ``template_index``, ``template``, ``answer_options`` and
the place of the right one, ``correct``; a folder of that layout in the mirror is read as well. The authors' folder has
``metadata_relations.json``, which gives each relation its ``templates`` and ``answer_space_labels``, and one
``<relation>.jsonl`` a relation with ``sub_label`` and either ``answer_idx`` or ``obj_label``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.digest import digest_json
from harness.core.errors import ConfigError, FileFormatError
from harness.core.serial import read_text
from harness.knowledge.data_source import find_source
from harness.knowledge.json_lines import read_json_lines, read_json_object
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
    relations: dict[str, BearRelation] = {}
    for row in told.to_list():
        code = _text(row, "predicate_id", what)
        if code in relations:
            raise FileFormatError(f"{what}: {code} is told twice; restore the data.")
        relations[code] = _relation(row, f"{what}, {code}")
    return relations, tuple(_fact(row, _text(row, "predicate_id", HUB_PATH), relations, HUB_PATH) for row in table.to_list())


def _read_hub(table: Any) -> tuple[dict[str, BearRelation], tuple[BearFact, ...]]:
    """The hub's layout: a row a fact and wording, its relation's wordings and answers repeated in each."""
    wordings: dict[str, dict[int, str]] = {}
    answers: dict[str, tuple[str, ...]] = {}
    facts: dict[BearFact, set[int]] = {}
    for row in table.to_list():
        code, subject, template = (_text(row, name, HUB_PATH) for name in ("relation", "subject", "template"))
        what = f"{HUB_PATH}, {subject!r} of {code}"
        options = _texts(row, "answer_options", what)
        right, wording = (_whole(row, name, what) for name in ("correct", "template_index"))
        known = wordings.setdefault(code, {}).setdefault(wording, template)
        if (known, answers.setdefault(code, options)) != (template, options):
            raise FileFormatError(
                f"{HUB_PATH}: {subject!r} of {code} has another template or other answers than the relation's other facts; "
                "restore the data."
            )
        asked = facts.setdefault(BearFact(code, subject, right), set())
        if wording in asked:
            raise FileFormatError(
                f"{HUB_PATH}: {subject!r} is asked twice in {code}; a subject has one answer here; restore the data."
            )
        asked.add(wording)
    for fact, asked in facts.items():
        if asked != set(range(len(wordings[fact.relation]))):
            raise FileFormatError(
                f"{HUB_PATH}: {fact.subject!r} is asked in the wordings {sorted(asked)} of {fact.relation}, which has "
                f"{sorted(wordings[fact.relation])}: expected all of them, numbered from 0 on; restore the data."
            )
    relations = {
        code: _checked(BearRelation(tuple(text for _, text in sorted(found.items())), answers[code]), f"{HUB_PATH}, {code}")
        for code, found in wordings.items()
    }
    return relations, tuple(facts)


def _read_folder(folder: Path) -> tuple[dict[str, BearRelation], tuple[BearFact, ...]]:
    """The authors' layout. A file of a relation that the metadata do not have is refused: its facts would be left out."""
    if not folder.is_dir():
        raise FileFormatError(
            f"{folder} is no folder: expected BEAR's, with {METADATA} and a .jsonl file a relation; correct `folder` in "
            "the matrix."
        )
    told = folder / METADATA
    metadata = read_json_object(read_text(told), str(told))
    relations = {code: _relation(entry, f"{told}, {code}") for code, entry in metadata.items()}
    if bad := next((code for code in relations if not code.isprintable() or Path(code).name != code), None):
        raise FileFormatError(f"{told}: the relation {bad!r} can't be the name of a file, <relation>.jsonl; rename it.")
    if unknown := sorted({file.stem for file in folder.glob("*.jsonl")} - set(relations)):
        raise FileFormatError(
            f"{folder} has {listed(f'{code}.jsonl' for code in unknown)}, and {METADATA} does not tell how that is worded: "
            "add the relation there, or take the file out."
        )
    lines = ((code, place, row) for code in relations for place, row in read_json_lines(folder / f"{code}.jsonl"))
    return relations, tuple(_fact(row, code, relations, place) for code, place, row in lines)


def _relation(row: Any, what: str) -> BearRelation:
    if not isinstance(row, Mapping):
        raise FileFormatError(f"{what} is {row!r}: expected an object with `templates` and `answer_space_labels`; correct it.")
    return _checked(BearRelation(_texts(row, "templates", what), _texts(row, "answer_space_labels", what)), what)


def _checked(relation: BearRelation, what: str) -> BearRelation:
    bad = [text for text in relation.templates if text.count("[X]") != 1 or text.count("[Y]") != 1]
    if bad or not relation.templates:
        raise FileFormatError(f"{what}: a template must hold one [X] and one [Y]; there is {bad or 'none'}: correct it.")
    twice = next((answer for answer, n in Counter(relation.answers).items() if n > 1), None)
    if twice is not None or len(relation.answers) < 2:
        found = f"{twice!r} twice" if twice is not None else f"{len(relation.answers)}"
        raise FileFormatError(f"{what} needs two answers or more, each once, and has {found}; correct it.")
    return relation


def _fact(row: Mapping[str, Any], code: str, relations: Mapping[str, BearRelation], what: str) -> BearFact:
    """A row with the place of its answer, or the answer, or both, where they must not contradict each other."""
    relation = relations.get(code)
    if relation is None:
        raise FileFormatError(f"{what}: the relation {code!r} is not among {listed(relations)}; restore the data.")
    subject = _text(row, "sub_label", what)
    place = None if row.get("answer_idx") is None else _whole(row, "answer_idx", what)
    if place is not None and not 0 <= place < len(relation.answers):
        raise FileFormatError(
            f"{what}: {subject!r} has answer {place} of {code}, which has {len(relation.answers)}, counted from 0; correct it."
        )
    if place is not None and row.get("obj_label") is None:
        return BearFact(code, subject, place)
    label = _text(row, "obj_label", what)
    if label not in relation.answers:
        raise FileFormatError(f"{what}: the answer {label!r} is not in the answer set of {code}; correct it.")
    if place is not None and relation.answers[place] != label:
        raise FileFormatError(
            f"{what}: answer_idx {place} of {code} is {relation.answers[place]!r}, and obj_label is {label!r}: correct one of "
            "the two."
        )
    return BearFact(code, subject, relation.answers.index(label))


def _cell(row: Mapping[str, Any], name: str, what: str) -> Any:
    if row.get(name) is None:
        raise FileFormatError(f"{what} has no {name!r}: it has {listed(row)}; expected BEAR's own columns.")
    return row[name]


def _text(row: Mapping[str, Any], name: str, what: str) -> str:
    return _as_text(_cell(row, name, what), name, what)


def _texts(row: Mapping[str, Any], name: str, what: str) -> tuple[str, ...]:
    value = _cell(row, name, what)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise FileFormatError(f"{what}: {name} is {value!r}, expected a list of texts; correct it.")
    return tuple(_as_text(text, f"one of {name}", what) for text in value)


def _as_text(value: Any, name: str, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise FileFormatError(f"{what}: {name} is {value!r}, expected a text that is not empty; correct it.")
    return value


def _whole(row: Mapping[str, Any], name: str, what: str) -> int:
    value = _cell(row, name, what)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise FileFormatError(f"{what}: {name} is {value!r}, expected a whole number; correct it.")
    return int(value)


def _check(relations: Mapping[str, BearRelation], facts: Sequence[BearFact], name: str) -> None:
    seen: set[tuple[str, str]] = set()
    for fact in facts:
        if not 0 <= fact.answer < len(relations[fact.relation].answers):  # the hub's
            raise FileFormatError(
                f"{name}: {fact.subject!r} has answer {fact.answer} of {fact.relation}, which has none such; restore the data."
            )
        if blank := next((blank for blank in ("[X]", "[Y]") if blank in fact.subject), None):
            raise FileFormatError(
                f"{name}: the subject {fact.subject!r} of {fact.relation} holds a blank, {blank}; correct it."
            )
        if (fact.relation, fact.subject) in seen:
            raise FileFormatError(
                f"{name}: {fact.subject!r} is asked twice in {fact.relation}; a subject has one answer here; take one out."
            )
        seen.add((fact.relation, fact.subject))


def _plain(fact: BearFact) -> list[Any]:
    return [fact.relation, fact.subject, fact.answer]
