"""The Pareto front of size and retention: what no other cell of its model, nor the dense model, beats at both."""

from __future__ import annotations

from collections.abc import Sequence


def on_front(points: Sequence[tuple[int, float]]) -> tuple[bool, ...]:
    """For each (bytes, kept share), whether no other is at most as large and keeps at least as much, and differs.

    By the estimates alone: neighbours whose intervals overlap may change places. Equal points stand or fall together.

    >>> on_front([(100, 0.9), (50, 0.8), (60, 0.7), (100, 0.9), (40, 0.7)])
    (True, True, False, True, True)
    """
    return tuple(
        not any(size <= own_size and kept >= own_kept and (size, kept) != (own_size, own_kept) for size, kept in points)
        for own_size, own_kept in points
    )
