"""Arrow columns as Python's and NumPy's own, read off their buffers.

Every ``to_numpy`` and ``pa.array`` imports pandas where that is installed, which takes a quarter of the time of judging a run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from harness.core.errors import FileFormatError

_KINDS = {pa.int32(): np.int32, pa.float32(): np.float32, pa.float64(): np.float64}
"""NumPy's kinds of number for Arrow's; yes and no are bits there."""


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers, or of yes and no, as an array that must not be written to. No row may be empty.

    >>> numbers(pa.chunked_array([pa.array([True, False]), pa.array([True])])).tolist()
    [True, False, True]
    """
    return _values(_flat(column))


def numbers_of_lists(column: pa.ChunkedArray) -> tuple[np.ndarray, Int[np.ndarray, " rows"]]:
    """The numbers in a column of lists, one after the other, and where each list ends. Raises ValueError for an empty number.

    >>> [part.tolist() for part in numbers_of_lists(pa.chunked_array([pa.array([[1, 2], [], [3]], pa.list_(pa.int32()))]))]
    [[1, 2, 3], [2, 2, 3]]
    """
    flat = _flat(column)
    ends = _ends(flat)
    inner = flat.values.slice(int(ends[0]), int(ends[-1] - ends[0]))
    if inner.null_count:
        raise ValueError("a number in a list is missing")
    return _values(inner), ends[1:] - ends[0]


def strings(column: pa.ChunkedArray) -> tuple[str, ...]:
    """A column of texts. Raises FileFormatError where one is empty or no UTF-8."""
    if column.null_count:
        raise FileFormatError(f"a column of {len(column)} texts has {column.null_count} empty rows: restore the file.")
    return tuple(_texts(_flat(column)))


def names(column: pa.ChunkedArray) -> tuple[str, ...]:
    """A column of names that many columns share, such as the items' digests: each is kept once. Raises FileFormatError."""
    return tuple(map(sys.intern, strings(column)))


def lists(column: pa.ChunkedArray) -> list[tuple[Any, ...]]:
    """A column of lists of texts or numbers as tuples. Raises ValueError where something in it is empty."""
    flat = _flat(column)
    if flat.null_count or flat.values.null_count:
        raise ValueError("a column of lists has empty rows")
    inner = _texts(flat.values) if flat.values.type == pa.string() else _values(flat.values).tolist()
    return [tuple(inner[start:end]) for start, end in pairwise(_ends(flat).tolist())]


def whole_numbers(values: Sequence[int]) -> pa.Array:
    """Whole numbers as an Arrow array."""
    return pa.Int64Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.array(values, dtype=np.int64))])


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _values(flat: pa.Array) -> np.ndarray:
    data, start = flat.buffers()[1], flat.offset
    if flat.type == pa.bool_():
        raw = np.frombuffer(b"" if data is None else data, np.uint8)
        return np.unpackbits(raw, count=start + len(flat), bitorder="little")[start:].view(np.bool_)
    kind = np.dtype(_KINDS[flat.type])
    return np.frombuffer(b"" if data is None else data, kind, len(flat), kind.itemsize * start)


def _ends(flat: pa.Array) -> Int[np.ndarray, " rows_and_one"]:
    """Where each text or list begins among the values of all, and where the last one ends."""
    if not len(flat):
        return np.zeros(1, np.int32)
    return np.frombuffer(flat.buffers()[1], np.int32, len(flat) + 1, 4 * flat.offset)


def _texts(flat: pa.Array) -> list[str]:
    data, places = flat.buffers()[2], _ends(flat).tolist()
    raw = b"" if data is None else data.to_pybytes()
    try:
        text = raw.decode("utf-8")
        if len(text) == len(raw):
            return [text[start:end] for start, end in pairwise(places)]
        return [raw[start:end].decode("utf-8") for start, end in pairwise(places)]
    except UnicodeDecodeError as error:
        raise FileFormatError(f"a column of texts is not UTF-8 ({error}): restore the file.") from error
