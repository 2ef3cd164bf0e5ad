"""Answers to some requests as the bytes of one parquet file, with what they were measured by: a block of the run store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.core.errors import FileFormatError
from harness.core.records import SCHEMA_VERSION, record
from harness.core.serial import from_json, to_json

KEY_BYTES = 16
"""Of a request's SHA-256: two of 10⁹ requests share them with a chance below 10⁻²⁰."""

_ABOUT = b"about"

_ANSWERS = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("loglik_nats", pa.float64()),
        ("is_greedy", pa.bool_()),
        ("lead_nats", pa.float64()),
        ("n_tokens", pa.int32()),
        ("n_cut", pa.int32()),
        ("text", pa.string()),
        ("is_ended", pa.bool_()),
        ("token", pa.int32()),
        ("n_ahead", pa.int32()),
        ("best", pa.list_(pa.int32())),
        ("best_logliks_nats", pa.list_(pa.float64())),
    ]
)


_ROOT = pa.field("root", pa.int32())
"""A column that only models with several soft roots to choose from have."""

_KINDS = (
    ("key", "loglik_nats", "is_greedy", "lead_nats", "n_tokens", "n_cut"),
    ("key", "n_tokens", "n_cut", "text", "is_ended"),
    ("key", "loglik_nats", "n_tokens", "n_cut", "token", "n_ahead", "best", "best_logliks_nats"),
)
"""The columns that scores, texts and standings have."""


@record
class Circumstances:
    """When, by which commit and on what answers were measured, and how long their forward passes took."""

    commit: str
    measured_at: str
    engine: dict[str, str]
    wall_s: float


@record
class BlockAbout:
    """What a block's answers are: of what (``scope``: digest of everything that decides an answer but the request itself),
    and, for people, of which cell and by which scorer."""

    scope: str
    cell: str
    scorer: str
    circumstances: Circumstances
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Standings:
    """Where answers stand at their blanks: their tokens, how many candidates are ahead of each, and the likeliest ones."""

    tokens: Sequence[int]
    n_ahead: Sequence[int]
    best: Sequence[Sequence[int]]
    best_logliks_nats: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class AnswerBlock:
    """Answers by the keys of their requests: scores (with ``leads_nats``), ``standings`` (with ``logliks_nats`` too) or
    generated ``texts`` (with ``are_ended``); the others are None. ``n_tokens`` were scored, or made, after a context of which
    ``n_cut`` were cut off. ``roots``: which soft roots were chosen for them, None where there was nothing to choose."""

    about: BlockAbout
    keys: Sequence[bytes]
    n_tokens: Sequence[int]
    n_cut: Sequence[int]
    logliks_nats: Sequence[float] | None
    is_greedy: Sequence[bool] | None
    leads_nats: Sequence[float] | None
    texts: Sequence[str] | None
    are_ended: Sequence[bool] | None
    standings: Standings | None = None
    roots: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.keys)


def to_bytes(block: AnswerBlock) -> bytes:
    """A block as parquet."""
    standings = block.standings
    columns = [
        pa.array(block.keys, pa.binary(KEY_BYTES)),
        _column(block.logliks_nats, len(block), pa.float64()),
        _column(block.is_greedy, len(block), pa.bool_()),
        _column(block.leads_nats, len(block), pa.float64()),
        pa.array(block.n_tokens, pa.int32()),
        pa.array(block.n_cut, pa.int32()),
        _column(block.texts, len(block), pa.string()),
        _column(block.are_ended, len(block), pa.bool_()),
        _column(standings.tokens if standings else None, len(block), pa.int32()),
        _column(standings.n_ahead if standings else None, len(block), pa.int32()),
        _column(standings.best if standings else None, len(block), pa.list_(pa.int32())),
        _column(standings.best_logliks_nats if standings else None, len(block), pa.list_(pa.float64())),
    ]
    schema = _ANSWERS
    if block.roots is not None:
        columns.append(_column(block.roots, len(block), _ROOT.type))
        schema = schema.append(_ROOT)
    schema = schema.with_metadata({_ABOUT: to_json(block.about)})
    made = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=schema), made, compression="zstd", use_dictionary=False, write_statistics=False)
    data: bytes = made.getvalue().to_pybytes()
    return data


def from_bytes(data: bytes, what: str) -> AnswerBlock:
    """The block in parquet bytes; ``what`` names their source. Raises FileFormatError."""
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            found, table = file.schema_arrow, file.read(use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise FileFormatError(f"{what} can't be read as parquet ({error}): it is made again.") from error
    about = (found.metadata or {}).get(_ABOUT)
    has_roots = found.equals(_ANSWERS.append(_ROOT), check_metadata=False)
    if not (has_roots or found.equals(_ANSWERS, check_metadata=False)) or about is None:
        raise FileFormatError(f"{what} has columns {found.names}, expected {_ANSWERS.names} and what they are.")
    columns: dict[str, Any] = {name: None if table[name].null_count else table[name].to_pylist() for name in _ANSWERS.names}
    told = tuple(name for name in _ANSWERS.names if columns[name] is not None)
    if len(table) and told not in _KINDS:
        raise FileFormatError(f"{what} has answers that are neither scores nor standings nor texts.")
    ranked = [columns[name] for name in ("token", "n_ahead", "best", "best_logliks_nats")]
    return AnswerBlock(
        about=from_json(about, BlockAbout, what),
        keys=columns["key"] or [],
        n_tokens=columns["n_tokens"] or [],
        n_cut=columns["n_cut"] or [],
        logliks_nats=columns["loglik_nats"],
        is_greedy=columns["is_greedy"],
        leads_nats=columns["lead_nats"],
        texts=columns["text"],
        are_ended=columns["is_ended"],
        standings=None if None in ranked else Standings(*ranked),
        roots=table[_ROOT.name].to_pylist() if has_roots else None,
    )


def _column(values: Sequence[Any] | None, n: int, kind: Any) -> pa.Array:
    return pa.nulls(n, kind) if values is None else pa.array(values, kind)
