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
    batches = [[position] for position in order if lengths[position] > budget_tokens]
    order = order[len(batches) :]
    total = sum(lengths[position] for position in order)
    fair = total / max(1, -(-total // budget_tokens))
    n_full, n_here, n_planned = len(batches), 0, 0
    for position in order:
        n_own = len(batches) - n_full
        if not n_own or n_here + lengths[position] > budget_tokens or n_planned >= fair * n_own:
            batches.append([])
            n_here = 0
        batches[-1].append(position)
        n_here += lengths[position]
        n_planned += lengths[position]
    return batches
