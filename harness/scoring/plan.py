"""What is fed together: longest first, batches under a token budget. Depends on the lengths and their order only."""

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


def plan_packed(lengths: Sequence[int], *, budget_tokens: int) -> list[list[int]]:
    """Positions of ``lengths`` in batches whose sum stays within the budget, longest first; a longer one is fed alone.

    The batches are about equally full, so that none is too small to be worth its own pass through the weights.

    >>> plan_packed([3, 9, 4, 3, 2], budget_tokens=9)
    [[1], [2, 0], [3, 4]]
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    total = sum(lengths)
    fair = total / max(1, -(-total // budget_tokens))
    batches: list[list[int]] = []
    n_here, n_before = 0, 0
    for position in order:
        full = n_here + lengths[position] > budget_tokens or n_before + n_here >= fair * len(batches)
        if not batches or full:
            batches.append([])
            n_before, n_here = n_before + n_here, 0
        batches[-1].append(position)
        n_here += lengths[position]
    return batches
