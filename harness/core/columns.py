"""Columns over items as parquet: what was asked and what came, read as strictly as the records beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.core.arrow import lists, names, numbers, numbers_of_lists, strings, whole_numbers
from harness.core.errors import FileFormatError
from harness.core.outcomes import Outcomes
from harness.core.ragged import Ragged
from harness.core.records import Item, Items
from harness.core.serial import atomic_path

_OUTCOMES = pa.schema(
    [
        ("digest", pa.string()),
        ("correct", pa.bool_()),
        ("answer", pa.int32()),
        ("rank", pa.int32()),
        ("margin_nats", pa.float64()),
        ("near_tie", pa.bool_()),
        ("option_logliks_nats", pa.list_(pa.float32())),
        ("text", pa.string()),
    ]
)

_CHOICE = pa.field("choice", pa.list_(pa.int32()))
"""One more column of outcomes, of a model that chooses among prompts."""

_IS_CUT = pa.field("is_cut", pa.bool_())
"""One more column of outcomes, where a context was cut."""

_ITEMS = pa.schema(
    [
        ("digest", pa.string()),
        ("id", pa.string()),
        ("group", pa.string()),
        ("prompt", pa.string()),
        ("options", pa.list_(pa.string())),
        ("gold", pa.list_(pa.int32())),
    ]
)


def write_outcomes(path: Path, outcomes: Outcomes) -> None:
    """Write outcomes as parquet, atomically; log-likelihoods as float32 (6e-8 relative)."""
    columns = [
        pa.array(outcomes.digests, pa.string()),
        pa.array(outcomes.correct),
        pa.array(outcomes.answers, pa.int32()),
        pa.array(outcomes.ranks, pa.int32()),
        pa.array(outcomes.margins_nats, pa.float64()),
        pa.array(outcomes.near_ties),
        _list_column(outcomes),
        pa.array(outcomes.texts or [None] * len(outcomes), pa.string()),
    ]
    table = pa.table(columns, schema=_OUTCOMES)
    if outcomes.choices is not None:
        table = table.append_column(_CHOICE, pa.array([list(row) for row in outcomes.choices], _CHOICE.type))
    if outcomes.are_cut is not None:
        table = table.append_column(_IS_CUT, pa.array(outcomes.are_cut))
    _write_table(path, table)


def read_outcomes(path: Path) -> Outcomes:
    """Outcomes from parquet. Raises FileFormatError (missing, truncated, other columns, duplicated items, NaN)."""
    table = _read_table(path, _OUTCOMES, also=(_CHOICE, _IS_CUT))
    digests = names(table["digest"])
    if len(set(digests)) != len(digests):
        raise FileFormatError(f"{path} holds an item twice: it was edited or mixed; restore it or make it again.")
    try:
        return Outcomes(
            digests=digests,
            correct=_numpy(table, "correct"),
            answers=_numpy(table, "answer"),
            ranks=_numpy(table, "rank"),
            margins_nats=_numpy(table, "margin_nats"),
            near_ties=_numpy(table, "near_tie"),
            option_logliks_nats=_ragged(table),
            texts=_texts(table),
            choices=_choices(table),
            are_cut=_numpy(table, _IS_CUT.name) if _IS_CUT.name in table.column_names else None,
        )
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: {error}") from error


def write_items(path: Path, items: Items) -> None:
    """Write items as parquet, atomically."""
    columns = {
        "digest": [i.digest for i in items],
        "id": [i.id for i in items],
        "group": [i.group for i in items],
        "prompt": [i.prompt for i in items],
        "options": [list(i.options) for i in items],
        "gold": [list(i.gold) for i in items],
    }
    _write_table(path, pa.table(columns, schema=_ITEMS))


@dataclass(frozen=True, slots=True)
class SharedItems:
    """What is known of the items that several files hold, by digest: cells are asked the same ones.

    ``made`` was read and checked; ``labels`` are the ids and groups; ``wanted`` is made as soon as a file with it is read.
    """

    made: dict[str, Item] = field(default_factory=dict)
    labels: dict[str, tuple[str, str]] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class StoredItems:
    """The items of a file, made when they are first looked at: judging a run needs none of them.

    ``digests`` are those of the outcomes beside the file; other items, or an edited one, raise FileFormatError. A file is read
    only for what nobody who shares ``shared`` knows yet. ``is_sealed``: the file was found to be the one that was written.
    Older records can't tell: there items are made, and so checked, before a label is told.
    """

    path: Path
    digests: tuple[str, ...]
    shared: SharedItems = field(default_factory=SharedItems)
    is_sealed: bool = False

    def __len__(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.take(range(len(self))))

    def __getitem__(self, index: int, /) -> Item:
        return self.take([range(len(self))[index]])[0]

    def want(self, places: Iterable[int]) -> None:
        """Say that the items at some places will be looked at: they are made at once, not one by one."""
        self.shared.wanted.update(self.digests[place] for place in places)

    def take(self, places: Sequence[int]) -> list[Item]:
        """The items at some places, in that order."""
        made, asked = self.shared.made, [self.digests[place] for place in places]
        if any(digest not in made for digest in asked):
            wanted = self.shared.wanted.union(asked)
            new = [place for place, digest in enumerate(self.digests) if digest in wanted and digest not in made]
            items = _rows(self.path, self._read(*_ITEMS.names).take(whole_numbers(new)))
            made.update(zip((self.digests[place] for place in new), items, strict=True))
        return [made[digest] for digest in asked]

    def labels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The id and the group of each item, without what the items ask. Verdicts rest on groups: they are checked, too."""
        known = self.shared.labels
        if any(digest not in known for digest in self.digests):
            if not self.is_sealed:
                self.take(range(len(self)))
            table = self._read("digest", "id", "group")
            known.update(zip(self.digests, zip(strings(table["id"]), strings(table["group"]), strict=True), strict=True))
        labels = [known[digest] for digest in self.digests]
        return tuple([label[0] for label in labels]), tuple([label[1] for label in labels])

    def _read(self, *names: str) -> pa.Table:
        table = _read_table(self.path, _ITEMS, names)
        if strings(table["digest"]) != self.digests:
            raise FileFormatError(f"{self.path} does not hold the items of the outcomes beside it: measure it again.")
        return table


def read_items(path: Path) -> tuple[Item, ...]:
    """Items from parquet, all of them. Raises FileFormatError."""
    return tuple(_rows(path, _read_table(path, _ITEMS)))


def _rows(path: Path, table: pa.Table) -> list[Item]:
    """The items in a table's rows, each checked against its digest."""
    try:
        texts = (strings(table[name]) for name in ("id", "group", "prompt"))
        items = list(map(Item, *texts, lists(table["options"]), lists(table["gold"])))
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}") from error
    for item, digest in zip(items, strings(table["digest"]), strict=True):
        if item.digest != digest:
            raise FileFormatError(f"{path} was edited: item {item.id!r} is not the one that was asked; measure it again.")
    return items


def _list_column(outcomes: Outcomes) -> pa.Array:
    kind = pa.list_(pa.float32())
    rows = outcomes.option_logliks_nats
    if rows is None:
        return pa.nulls(len(outcomes), kind)
    offsets = np.concatenate([[0], rows.ends]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.values.astype(np.float32)), type=kind)


def _ragged(table: pa.Table) -> Ragged | None:
    column = table["option_logliks_nats"]
    if len(column) and column.null_count == len(column):
        return None
    if column.null_count:
        raise ValueError(f"column 'option_logliks_nats' has {column.null_count} empty rows")
    values, ends = numbers_of_lists(column)
    if not np.isfinite(values).all():
        raise ValueError("a score is NaN, infinite or missing")
    return Ragged(values.astype(np.float64), ends.astype(np.int64))


def _texts(table: pa.Table) -> tuple[str, ...] | None:
    column = table["text"]
    if column.null_count == len(column):
        return None
    if column.null_count:
        raise ValueError(f"column 'text' has {column.null_count} empty rows")
    return tuple(column.to_pylist())


def _choices(table: pa.Table) -> tuple[tuple[int, ...], ...] | None:
    if "choice" not in table.column_names:
        return None
    if table["choice"].null_count:
        raise ValueError(f"column 'choice' has {table['choice'].null_count} empty rows")
    return tuple(lists(table["choice"]))


def _numpy(table: pa.Table, name: str) -> np.ndarray:
    column = table[name]
    if column.null_count:
        raise ValueError(f"column {name!r} has {column.null_count} empty rows")
    return numbers(column)


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as neighbour:
        pq.write_table(table, neighbour, compression="zstd", use_dictionary=["group", "text"])


def _read_table(path: Path, schema: pa.Schema, names: Sequence[str] = (), *, also: Sequence[pa.Field] = ()) -> pa.Table:
    """The columns ``names`` (all if there are none) of a file that must have those of ``schema``, and may have some of
    ``also`` behind them."""
    try:
        # read_table would open a whole data set around one file, and a buffer would be filled by another thread
        with pq.ParquetFile(path, pre_buffer=False) as file:
            found = file.schema_arrow
            table = file.read(list(names) or None, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise FileFormatError(f"{path} can't be read as parquet ({error}): restore it or make it again.") from error
    for extra in also:
        if extra.name in found.names:
            schema = schema.append(extra)
    if found.names != schema.names or not found.equals(schema, check_metadata=False):
        raise FileFormatError(f"{path} has columns {found.names}, expected {schema.names}: restore it or make it again.")
    return table
