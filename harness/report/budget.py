"""Sharing a page's room among many lists: everyone gets the same, and what a short list leaves goes to the long ones."""

from __future__ import annotations

from collections.abc import Sequence


def share_out(sizes: Sequence[int], room: int) -> tuple[int, ...]:
    """How much of each list is shown when ``room`` entries fit in all; the first lists get what can't be divided.

    >>> share_out([3, 100, 100], 50)
    (3, 24, 23)
    >>> share_out([3, 4], 50), share_out([], 50), share_out([5, 5, 5], 1)
    ((3, 4), (), (1, 0, 0))
    """
    shares = [0] * len(sizes)
    hungry = [i for i, size in enumerate(sizes) if size > 0]
    while hungry and room > 0:
        each = max(1, room // len(hungry))
        for i in hungry:
            taken = min(each, sizes[i] - shares[i], room)
            shares[i] += taken
            room -= taken
        hungry = [i for i in hungry if shares[i] < sizes[i]]
    return tuple(shares)
