"""Columns over items as parquet: what was asked and what came, read as strictly as the records beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.core.errors import FileFormatError
from harness.core.ragged import Ragged
from harness.core.records import Item, Items, Outcomes
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
    _write_table(path, pa.table(columns, schema=_OUTCOMES))


def read_outcomes(path: Path) -> Outcomes:
    """Outcomes from parquet. Raises FileFormatError (missing, truncated, other columns, duplicated items, NaN)."""
    table = _read_table(path, _OUTCOMES)
    digests = _strings(table["digest"])
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


@dataclass(slots=True)
class StoredItems:
    """The items of a file, read when they are first looked at, made one by one: judging a run needs none of them.

    ``digests`` are those of the outcomes beside the file; other items, or an edited one, raise FileFormatError.
    """

    path: Path
    digests: tuple[str, ...]
    _table: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int, /) -> Item:
        row = {name: column[0].as_py() for name, column in zip(_ITEMS.names, self._columns(index), strict=True)}
        try:
            item = Item(row["id"], row["group"], row["prompt"], tuple(row["options"]), tuple(row["gold"]))
        except (ValueError, TypeError) as error:
            raise FileFormatError(f"{self.path}: {error}") from error
        if item.digest != self.digests[index]:
            raise FileFormatError(f"{self.path} was edited: item {item.id!r} is not the one that was asked; measure it again.")
        return item

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each item."""
        return _strings(self._read()["group"])

    def _columns(self, index: int) -> list[pa.Array]:
        row = self._read().slice(range(len(self))[index], 1)
        return [column.combine_chunks() for column in row.columns]

    def _read(self) -> pa.Table:
        if self._table is None:
            table = _read_table(self.path, _ITEMS)
            if _strings(table["digest"]) != self.digests:
                raise FileFormatError(f"{self.path} does not hold the items of the outcomes beside it: measure it again.")
            self._table = table
        return self._table


def read_items(path: Path) -> tuple[Item, ...]:
    """Items from parquet, all of them. Raises FileFormatError."""
    table = _read_table(path, _ITEMS)
    return tuple(StoredItems(path, _strings(table["digest"]), table))


def _strings(column: pa.ChunkedArray) -> tuple[str, ...]:
    if column.null_count:
        raise FileFormatError(f"a column of {len(column)} texts has {column.null_count} empty rows: restore the file.")
    return tuple(column.to_numpy().tolist()) if len(column) else ()


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
    flat = column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):  # no chunk at all
        return Ragged.of([])
    offsets = flat.offsets.to_numpy()
    values = flat.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    if not np.isfinite(values).all():
        raise ValueError("a score is NaN, infinite or missing")
    return Ragged(values.astype(np.float64), offsets[1:].astype(np.int64) - int(offsets[0]))


def _texts(table: pa.Table) -> tuple[str, ...] | None:
    column = table["text"]
    if column.null_count == len(column):
        return None
    if column.null_count:
        raise ValueError(f"column 'text' has {column.null_count} empty rows")
    return tuple(column.to_pylist())


def _numpy(table: pa.Table, name: str) -> np.ndarray:
    column = table[name]
    if column.null_count:
        raise ValueError(f"column {name!r} has {column.null_count} empty rows")
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False))


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as neighbour:
        pq.write_table(table, neighbour, compression="zstd", use_dictionary=["group", "text"])


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:  # read_table would open a whole data set around one file
            table = file.read(use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise FileFormatError(f"{path} can't be read as parquet ({error}): restore it or make it again.") from error
    if table.schema.names != schema.names or not table.schema.equals(schema, check_metadata=False):
        raise FileFormatError(
            f"{path} has columns {table.schema.names}, expected {schema.names}: restore it or make it again."
        )
    return table
