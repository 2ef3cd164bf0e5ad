"""Columns over items as parquet: what was asked and what came, read as strictly as the records beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.core.errors import FileFormatError
from harness.core.records import Item, Outcomes
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
        ("id", pa.string()),
        ("group", pa.string()),
        ("prompt", pa.string()),
        ("options", pa.list_(pa.string())),
        ("gold", pa.list_(pa.int32())),
    ]
)


def write_outcomes(path: Path, outcomes: Outcomes) -> None:
    """Write outcomes as parquet, atomically; log-likelihoods as float32 (6e-8 relative)."""
    logliks = outcomes.option_logliks_nats
    columns = [
        pa.array(outcomes.digests, pa.string()),
        pa.array(outcomes.correct),
        pa.array(outcomes.answers, pa.int32()),
        pa.array(outcomes.ranks, pa.int32()),
        pa.array(outcomes.margins_nats, pa.float64()),
        pa.array(outcomes.near_ties),
        pa.array([None] * len(outcomes) if logliks is None else [list(row) for row in logliks], pa.list_(pa.float32())),
        pa.array(outcomes.texts or [None] * len(outcomes), pa.string()),
    ]
    _write_table(path, pa.table(columns, schema=_OUTCOMES))


def read_outcomes(path: Path) -> Outcomes:
    """Outcomes from parquet. Raises FileFormatError (missing, truncated, other columns, duplicated items, NaN)."""
    table = _read_table(path, _OUTCOMES)
    digests = tuple(table["digest"].to_pylist())
    if len(set(digests)) != len(digests):
        raise FileFormatError(f"{path} holds an item twice: it was edited or mixed; restore it or make it again.")
    column = table["option_logliks_nats"]
    try:
        logliks = None if column.null_count == len(column) and len(column) else tuple(map(tuple, column.to_pylist()))
        return Outcomes(
            digests=digests,
            correct=_numpy(table, "correct"),
            answers=_numpy(table, "answer"),
            ranks=_numpy(table, "rank"),
            margins_nats=_numpy(table, "margin_nats"),
            near_ties=_numpy(table, "near_tie"),
            option_logliks_nats=logliks,
            texts=_texts(table),
        )
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: {error}") from error


def write_items(path: Path, items: tuple[Item, ...]) -> None:
    """Write items as parquet, atomically."""
    columns = {
        "id": [i.id for i in items],
        "group": [i.group for i in items],
        "prompt": [i.prompt for i in items],
        "options": [list(i.options) for i in items],
        "gold": [list(i.gold) for i in items],
    }
    _write_table(path, pa.table(columns, schema=_ITEMS))


def read_items(path: Path) -> tuple[Item, ...]:
    """Items from parquet. Raises FileFormatError."""
    table = _read_table(path, _ITEMS)
    try:
        return tuple(
            Item(row["id"], row["group"], row["prompt"], tuple(row["options"]), tuple(row["gold"]))
            for row in table.to_pylist()
        )
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: {error}") from error


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
        pq.write_table(table, neighbour, compression="zstd")


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise FileFormatError(f"{path} can't be read as parquet ({error}): restore it or make it again.") from error
    if table.schema.names != schema.names or not table.schema.equals(schema, check_metadata=False):
        raise FileFormatError(
            f"{path} has columns {table.schema.names}, expected {schema.names}: restore it or make it again."
        )
    return table
