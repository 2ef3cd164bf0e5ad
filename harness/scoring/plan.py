"""Which rows are fed together: longest first, batches under a token budget. Depends on the lengths and their order only."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], *, budget_tokens: int, most_rows: int | None = None) -> list[list[int]]:
    """Positions of ``lengths`` in batches whose padded size (rows x longest) stays within the budget; one row always may.

    No batch has more than ``most_rows``, where that is given.

    >>> plan_batches([3, 9, 4, 3], budget_tokens=9)
    [[1], [2, 0], [3]]
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    batches: list[list[int]] = []
    for position in order:
        n_rows = len(batches[-1]) + 1 if batches else 1
        if batches and n_rows * lengths[batches[-1][0]] <= budget_tokens and (most_rows is None or n_rows <= most_rows):
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches
