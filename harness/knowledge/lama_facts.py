"""LAMA's facts, whichever way they are laid out: the mirror's flat tables, the hub's original ones, JSON lines of one's own.

A row is a fact: a relation, a subject, an object, and the template of its sentence (``[X] was born in [Y] .``) or the
sentence itself with ``[MASK]`` in its blank, or both. The columns that are read:

===========  ==========================================  ======================================
what         column                                      needed
===========  ==========================================  ======================================
relation     ``predicate_id``, else ``pred``             yes
subject      ``sub_label``, else ``sub``                 yes
object       ``obj_label``                               yes
template     ``template``                                one of the two, in the table
sentence     ``masked_sentence``, ``masked_sentences``   one of the two, in the table
===========  ==========================================  ======================================

SQuAD's table has no relation on the hub: it is its own. On the hub a fact has a row for each evidence sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import ConfigError, FileFormatError
from harness.knowledge.converted import ConvertedParquet
from harness.knowledge.data_source import PlainFiles, Source
from harness.knowledge.json_lines import read_json_lines
from harness.knowledge.mirror import ParquetFolder, listed
from harness.knowledge.quiet import quiet_loading

HUB_PATH = "facebook/lama"
PARTS = ("trex", "google_re", "conceptnet", "squad")
MASK = "[MASK]"

_COLUMNS = {"relation": ("predicate_id", "pred"), "subject": ("sub_label", "sub"), "object": ("obj_label",)}
_TEXTS = {"template": ("template",), "sentence": ("masked_sentence", "masked_sentences")}


@dataclass(frozen=True, slots=True)
class LamaFact:
    """One row. ``template`` and ``sentence`` are None where the row has none."""

    relation: str
    subject: str
    object: str
    template: str | None
    sentence: str | None

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two rows one fact: relation, subject and object; where there is no template, the sentence too."""
        own = () if self.template else (self.sentence or "",)
        return (self.relation, self.subject, self.object, *own)


@dataclass(frozen=True, slots=True)
class LamaTable:
    """Where the facts come from: one split of a source. ``what`` names it in messages; ``file`` is that of one's own facts,
    which is read as it is: the loader's reader of JSON makes times of what looks like dates."""

    source: Source
    split: str
    what: str
    file: Path | None = None

    @classmethod
    def of_part(cls, part: str, data: Path | None) -> LamaTable:
        """A part of LAMA out of the mirror, else from the hub. Raises ConfigError, DownloadError."""
        if part not in PARTS:
            raise ConfigError(f"LAMA has no part {part!r}: it has {listed(PARTS)}; correct the matrix.")
        if data is not None and (data / HUB_PATH).is_dir():
            folder = ParquetFolder.of(data / HUB_PATH, HUB_PATH, part, {})
            split = "test" if "test" in folder.files else "train"  # the hub calls its one split so
            return cls(folder, split, f"{HUB_PATH}/{part}")
        looked_for = f"there is no folder {data / HUB_PATH}" if data is not None else "no mirror was given"
        return cls(ConvertedParquet.at_head(HUB_PATH, part, looked_for), "train", f"{HUB_PATH}/{part}")

    @classmethod
    def of_file(cls, file: Path) -> LamaTable:
        """JSON lines of one's own. Raises ConfigError."""
        if not file.is_file():
            raise ConfigError(f"the facts {file} are not there: expected a file of JSON lines; correct `file` in the matrix.")
        return cls(PlainFiles("json", {"test": (file,)}, {}), "test", file.name, file)

    def facts(self) -> tuple[LamaFact, ...]:
        """Every row, in order. Raises FileFormatError (missing columns, empty cells), ConfigError (no rows)."""
        if self.file is not None:
            return read_file(self.file)
        with quiet_loading(("datasets", "huggingface_hub")):
            table = self.source.load([self.split])[self.split]
        if not len(table):
            raise ConfigError(f"{self.what} has no rows in its split {self.split!r}: there is nothing to ask; restore it.")
        return read_table(table, self.what)


def read_table(table: Any, what: str) -> tuple[LamaFact, ...]:
    """The facts of a ``datasets.Dataset`` of either layout. Raises FileFormatError."""
    places = [f"{what}, row {number}" for number in range(1, len(table) + 1)]
    return _read_columns(list(table.column_names), lambda name: table[name], places, what)


def read_file(file: Path) -> tuple[LamaFact, ...]:
    """The facts of JSON lines in either layout; a key that a line does not have is an empty cell. Raises FileFormatError."""
    lines = read_json_lines(file)
    if not lines:
        raise FileFormatError(f"{file} has no lines: expected a fact in each, as JSON; write some.")
    names = list(dict.fromkeys(name for _, row in lines for name in row))
    known = {**_COLUMNS, **_TEXTS}.values()

    def column(name: str) -> list[Any]:  # a line may have any of the names that a column goes by
        same = next(choices for choices in known if name in choices)
        return [next((row[one] for one in same if row.get(one) is not None), None) for _, row in lines]

    return _read_columns(names, column, [place for place, _ in lines], str(file))


def _read_columns(
    names: Collection[str], column: Callable[[str], Sequence[Any]], places: Sequence[str], what: str
) -> tuple[LamaFact, ...]:
    known = {**_COLUMNS, **_TEXTS}
    found = {key: next((name for name in choices if name in names), None) for key, choices in known.items()}
    columns = {key: column(name) for key, name in found.items() if name is not None}
    if "relation" not in columns and "id" in names:  # SQuAD, as the hub has it
        columns["relation"] = ["Squad"] * len(places)
    missing = [" or ".join(choices) for key, choices in _COLUMNS.items() if key not in columns]
    if not columns.keys() & _TEXTS.keys():
        missing.append("template or masked_sentence")
    if missing:
        raise FileFormatError(
            f"{what} has no column {'; no column '.join(missing)}: it has {listed(names)}; expected relation, "
            "subject, object and a template or a masked sentence."
        )
    rows = zip(*(columns.get(key, [None] * len(places)) for key in known), strict=True)
    return tuple(_fact(row, place) for row, place in zip(rows, places, strict=True))


def _fact(row: tuple[Any, ...], what: str) -> LamaFact:
    if several := next((value for value in row[:3] if isinstance(value, list)), None):
        raise FileFormatError(f"{what}: {several!r} is a list: expected one text; write a row for each, or ask it as `facts`.")
    relation, subject, answer, template, sentence = (_text(value, what) for value in row)
    if relation.startswith("/"):  # Google-RE's are "/people/person/place_of_birth" on the hub
        relation = relation.rpartition("/")[2]
    if not relation or not subject or not answer:
        raise FileFormatError(
            f"{what}: relation {relation!r}, subject {subject!r}, object {answer!r}: expected text in each; fill it in, or "
            "take the row out."
        )
    if template and (template.count("[X]") != 1 or template.count("[Y]") != 1):
        raise FileFormatError(f"{what}: the template {template!r} must hold one [X] and one [Y]; correct it.")
    return LamaFact(relation, subject, answer, template or None, sentence or None)


def _text(value: Any, what: str) -> str:
    """The cell's text without space around it. LAMA's JSON files have sentences in lists of one; a number is its digits."""
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FileFormatError(f"{what}: {value!r} is no text: expected one, in quotes; correct it.")
    return str(value).strip()
