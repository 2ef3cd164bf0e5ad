"""Which weights go: masks that are True where a weight becomes zero, the same ones on every machine.

Absolute values are compared as the bits of float32 numbers, which order as the numbers do. So the threshold over any
number of layers is counted in two passes, without the memory of a second copy of the weights, and ties are broken by place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_HALF_BITS = 16


def smallest_masks(weights: Sequence[Float[Tensor, ...]], n_pruned: int) -> Iterator[Bool[Tensor, ...]]:
    """For each tensor, which of its elements are among the ``n_pruned`` of the smallest absolute value of all of them.

    Of elements of one size at the threshold, the first in order go.

    >>> [mask.tolist() for mask in smallest_masks([torch.tensor([3.0, -1.0]), torch.tensor([1.0, 0.5])], 2)]
    [[False, True], [False, True]]
    """
    if n_pruned == 0:
        yield from (torch.zeros_like(weight, dtype=torch.bool) for weight in weights)
        return
    threshold, n_ties = _nth_size(weights, n_pruned)
    for weight in weights:
        sizes = _size_bits(weight)
        ties = sizes == threshold
        chosen = ties & (ties.cumsum(0) <= n_ties)
        n_ties -= int(chosen.sum())
        yield ((sizes < threshold) | chosen).reshape(weight.shape)


def _size_bits(weight: Float[Tensor, ...]) -> Int[Tensor, " n"]:
    """The absolute values as integers that order as they do."""
    return weight.detach().float().abs().flatten().view(torch.int32)


def _nth_size(weights: Sequence[Float[Tensor, ...]], nth: int) -> tuple[int, int]:
    """The bits of the nth smallest absolute value (from 1), and how many of its size are among the n smallest."""
    high, nth = _nth_bucket((_size_bits(weight) >> _HALF_BITS for weight in weights), nth)
    inside = (sizes[sizes >> _HALF_BITS == high] & (2**_HALF_BITS - 1) for sizes in map(_size_bits, weights))
    low, nth = _nth_bucket(inside, nth)
    return (high << _HALF_BITS) + low, nth


def _nth_bucket(keys: Iterator[Int[Tensor, " n"]], nth: int) -> tuple[int, int]:
    """The nth smallest key (from 1) and its rank among the keys that equal it."""
    counts = np.zeros(2**_HALF_BITS, dtype=np.int64)
    for part in keys:
        counts += torch.bincount(part, minlength=2**_HALF_BITS).cpu().numpy()
    up_to = counts.cumsum()
    bucket = int(np.searchsorted(up_to, nth))
    return bucket, nth - int(up_to[bucket] - counts[bucket])
