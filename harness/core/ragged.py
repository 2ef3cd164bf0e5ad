"""Rows of numbers of different lengths, kept as two columns: the scores of each item's options, for thousands of items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Float, Int


class Ragged(Sequence[tuple[float, ...]]):
    """A sequence of tuples of floats; row i is ``values[ends[i-1]:ends[i]]``. Never changed once it is made.

    >>> rows = Ragged.of([(1.0, 2.0), (), (3.0,)])
    >>> rows[0], rows[-1], len(rows), rows.values.tolist(), rows.ends.tolist()
    ((1.0, 2.0), (3.0,), 3, [1.0, 2.0, 3.0], [2, 2, 3])
    """

    __slots__ = ("ends", "values")

    def __init__(self, values: Float[np.ndarray, " values"], ends: Int[np.ndarray, " rows"]) -> None:
        if (int(ends[-1]) if len(ends) else 0) != len(values) or (np.diff(ends, prepend=0) < 0).any():
            raise ValueError(f"the rows' ends do not cut {len(values)} values into {len(ends)} rows")
        self.values, self.ends = values, ends

    @classmethod
    def of(cls, rows: Iterable[Sequence[float]]) -> Ragged:
        """The columns of some rows."""
        kept = list(rows)
        values = np.array([value for row in kept for value in row], dtype=np.float64)
        return cls(values, np.cumsum([len(row) for row in kept], dtype=np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of several, one after the other."""
        starts = np.cumsum([0, *(len(part.values) for part in parts)])
        ends = [part.ends + start for part, start in zip(parts, starts, strict=False)]
        return cls(np.concatenate([part.values for part in parts]), np.concatenate(ends))

    def take(self, places: Int[np.ndarray, " chosen"]) -> Ragged:
        """Some rows, in the order of their places (0 or more).

        >>> Ragged.of([(1.0, 2.0), (), (3.0,)]).take(np.array([2, 0])).values.tolist()
        [3.0, 1.0, 2.0]
        """
        lengths = np.diff(self.ends, prepend=0)[places]
        ends = np.cumsum(lengths)
        shift = self.ends[places] - ends  # from where a value stands among the chosen to where it stands here
        return Ragged(self.values[np.repeat(shift, lengths) + np.arange(lengths.sum())], ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> tuple[float, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> Ragged: ...
    def __getitem__(self, index: int | slice) -> tuple[float, ...] | Ragged:
        if isinstance(index, slice):
            return Ragged.of([self[i] for i in range(*index.indices(len(self)))])
        place = range(len(self))[index]
        start = int(self.ends[place - 1]) if place else 0
        return tuple(self.values[start : int(self.ends[place])].tolist())

    def __iter__(self) -> Iterator[tuple[float, ...]]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ragged):
            return NotImplemented
        return np.array_equal(self.ends, other.ends) and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ragged({len(self)} rows, {len(self.values)} values)"
