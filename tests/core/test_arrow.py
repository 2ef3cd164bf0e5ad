"""Columns read off Arrow's buffers are what pyarrow itself makes of them: cut, in pieces, empty, not ASCII."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from harness.core.arrow import lists, names, numbers, numbers_of_lists, strings, whole_numbers
from harness.core.errors import FileFormatError

BITS = [True, False, True, True, False, False, True, False, True, True, False]
TEXTS = ["a", "", "Łódź", "日本", "long enough", "🙂"]


def shapes(values: list[Any], kind: pa.DataType) -> list[pa.ChunkedArray]:
    """The same values whole, cut out of a longer array, in pieces, and none of them."""
    whole = pa.array(values, kind)
    cut = pa.array([*values[:3], *values, *values[:1]], kind).slice(3, len(values))
    pieces = pa.chunked_array([whole.slice(0, 2), whole.slice(2), whole.slice(0, 0)])
    return [pa.chunked_array([whole]), pa.chunked_array([cut]), pieces, pa.chunked_array([], kind)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [(BITS, pa.bool_()), ([3, -1, 2**31 - 1, 0], pa.int32()), ([0.5, -2.25, 1e30], pa.float32()), ([0.1, -7.0], pa.float64())],
)
def test_numbers_are_those_of_pyarrow(values: list[Any], kind: pa.DataType) -> None:
    for column in shapes(values, kind):
        found = numbers(column)
        assert found.tolist() == column.to_pylist()
        assert found.dtype == np.dtype(kind.to_pandas_dtype())


def test_texts_are_those_of_pyarrow_and_each_name_is_kept_once() -> None:
    for column in shapes(TEXTS, pa.string()):
        assert list(strings(column)) == list(names(column)) == column.to_pylist()
    one, other = (names(pa.chunked_array([pa.array(["the same digest"])]))[0] for _ in range(2))
    assert one is other


@pytest.mark.parametrize("values", [[["a", "b"], [], ["Łódź"], ["c"]], [[1, 2], [], [3], [4, 5, 6]]])
def test_lists_are_those_of_pyarrow(values: list[Any]) -> None:
    kind = pa.list_(pa.string() if isinstance(values[0][0], str) else pa.int32())
    for column in shapes(values, kind):
        assert [list(row) for row in lists(column)] == column.to_pylist()


def test_numbers_of_lists_begin_where_the_cut_does() -> None:
    for column in shapes([[0.5, 1.5], [], [2.5], [3.5, 4.5]], pa.list_(pa.float32())):
        values, ends = numbers_of_lists(column)
        rows = [part.tolist() for part in np.split(values, ends)[:-1]]
        assert rows == column.to_pylist()


def test_what_is_missing_is_refused_and_no_text_is_guessed() -> None:
    for read in (strings, names):
        with pytest.raises(FileFormatError, match="1 empty rows"):
            read(pa.chunked_array([pa.array(["a", None])]))
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff"))
    with pytest.raises(FileFormatError, match="not UTF-8"):
        strings(pa.chunked_array([broken]))
    holed = pa.chunked_array([pa.array([[1, None]], pa.list_(pa.int32()))])
    for read_lists in (lists, numbers_of_lists):
        with pytest.raises(ValueError, match=r"empty rows|missing"):
            read_lists(holed)


def test_whole_numbers_are_taken_as_places() -> None:
    assert pa.array(["a", "b", "c"]).take(whole_numbers([2, 0])).to_pylist() == ["c", "a"]
