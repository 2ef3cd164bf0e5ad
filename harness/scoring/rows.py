"""Rows of tokens for a model that sees all of a row at once: each distinct one planned once, with others of its length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one request, all of one length, and what is read of them: of which row, at which position, which token."""

    ids: Int[np.ndarray, "rows width"]
    read_rows: Int[np.ndarray, " reads"]
    positions: Int[np.ndarray, " reads"]
    tokens: Int[np.ndarray, " reads"]


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Rows that are fed together, the reads that are made of them, and each read's place (row x width + position)."""

    ids: Int[np.ndarray, "rows width"]
    reads: Int[np.ndarray, " reads"]
    places: Int[np.ndarray, " reads"]


@dataclass(frozen=True, slots=True, eq=False)
class RowPlan:
    """What to feed, and how to read it: ``tokens`` are those of all reads, each request's begin at its one of ``starts``, and
    ``last_of_groups`` says how many rows must be fed until a group is done."""

    batches: tuple[RowBatch, ...]
    tokens: Int[np.ndarray, " reads"]
    starts: Int[np.ndarray, " requests"]
    last_of_groups: tuple[int, ...]


def plan_rows(groups: Sequence[Sequence[Rows]], *, budget_tokens: int) -> RowPlan:
    """Each distinct row of all requests once, in batches of one length under the budget, longest first (one row always may).

    >>> row, none = np.array([[1, 2, 3]]), np.array([0])
    >>> plan = plan_rows([[Rows(row, none, none + 1, none + 8), Rows(row, none, none + 1, none + 9)]], budget_tokens=9)
    >>> [(batch.ids.tolist(), batch.places.tolist()) for batch in plan.batches], plan.tokens.tolist()
    ([([[1, 2, 3]], [1, 1])], [8, 9])
    """
    requests = [request for group in groups for request in group]
    distinct: dict[bytes, int] = {}
    known = [_number(request.ids, distinct) for request in requests]
    read_rows = _join(rows[request.read_rows] for rows, request in zip(known, requests, strict=True))
    positions = _join(request.positions for request in requests)
    keys = list(distinct)
    order = list(_batches(keys, budget_tokens))
    rank = np.empty(len(keys), dtype=np.int64)
    rank[[row for batch in order for row in batch]] = np.arange(1, len(keys) + 1)
    by_row = np.argsort(read_rows, kind="stable")
    first = np.searchsorted(read_rows[by_row], np.arange(len(keys) + 1))
    lasts = iter([int(rank[rows].max()) for rows in known])
    return RowPlan(
        batches=tuple(_batch(rows, keys, by_row, first, positions) for rows in order),
        tokens=_join(request.tokens for request in requests),
        starts=np.cumsum([0, *(len(request.tokens) for request in requests)])[:-1],
        last_of_groups=tuple(max((next(lasts) for _ in group), default=0) for group in groups),
    )


def _number(ids: Int[np.ndarray, "rows width"], distinct: dict[bytes, int]) -> Int[np.ndarray, " rows"]:
    """Each row's number, a new one where the row was not seen before."""
    return np.array([distinct.setdefault(row.tobytes(), len(distinct)) for row in ids.astype(np.int64, copy=False)])


def _batches(keys: Sequence[bytes], budget_tokens: int) -> Iterable[list[int]]:
    alike: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        alike.setdefault(len(key) // np.dtype(np.int64).itemsize, []).append(row)
    for length, rows in sorted(alike.items(), reverse=True):
        n_rows = max(1, budget_tokens // length)
        yield from (rows[start : start + n_rows] for start in range(0, len(rows), n_rows))


def _batch(
    rows: Sequence[int], keys: Sequence[bytes], by_row: np.ndarray, first: np.ndarray, positions: np.ndarray
) -> RowBatch:
    ids = np.frombuffer(b"".join(keys[row] for row in rows), dtype=np.int64).reshape(len(rows), -1)
    reads = _join(by_row[first[row] : first[row + 1]] for row in rows)
    n_reads = [first[row + 1] - first[row] for row in rows]
    return RowBatch(ids.copy(), reads, np.repeat(np.arange(len(rows)), n_reads) * ids.shape[1] + positions[reads])


def _join(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])
