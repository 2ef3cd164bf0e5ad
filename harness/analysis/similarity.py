"""How alike two models attend and compute, token by token: the pure part of the regimes.

Attention is compared row by row: a row is what one token gives to each of the shared tokens. Where a soft root stands before
them, its columns are left out; a cosine does not change when what remains of a row is scaled to 1 again, so that needs no
step of its own. Undefined, where a row is all zeros or holds what is no number, is NaN here and left out of every mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def cosine_of_rows(one: Float[Tensor, "*rows size"], other: Float[Tensor, "*rows size"]) -> Float[Tensor, "*rows"]:
    """The cosine of each pair of rows, in [-1, 1], in float64; NaN where it is undefined.

    >>> one = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    >>> cosine_of_rows(one, torch.tensor([[6.0, 8.0], [0.0, 5.0], [1.0, 1.0]])).tolist()
    [1.0, 0.0, nan]
    """
    a, b = one.double(), other.double()
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosine = (a * b).sum(-1) / norms
    return torch.where(torch.isfinite(cosine), cosine.clamp(-1.0, 1.0), torch.nan)


def without_root(maps: Float[Tensor, "heads tokens keys"], n_root: int) -> Float[Tensor, "heads tokens tokens"]:
    """Attention maps without the columns of a root, which stand first."""
    return maps[..., n_root:]


def share_of_root(maps: Float[Tensor, "heads tokens keys"], n_root: int) -> Float[Tensor, "heads tokens"]:
    """How much of its attention each token gives to the root's positions, in [0, 1].

    >>> share_of_root(torch.tensor([[[0.5, 0.25, 0.25, 0.0]]]), 2).tolist()
    [[0.75]]
    """
    share = maps[..., :n_root].double().sum(-1)
    return torch.where(torch.isfinite(share), share.clamp(0.0, 1.0), torch.nan)


def even_share(n_root: int, n_tokens: int) -> float:
    """``share_of_root`` of a model that attends to all that it sees alike: the mean over a causal text's tokens.

    >>> round(even_share(2, 2), 4)  # 2 of 3, then 2 of 4
    0.5833
    """
    return sum(n_root / (n_root + seen) for seen in range(1, n_tokens + 1)) / n_tokens


def sum_defined(values: Float[Tensor, "heads tokens"]) -> tuple[Float[Tensor, " heads"], Float[Tensor, " heads"]]:
    """Each head's sum over the tokens where it is defined, and how many these are.

    >>> [part.tolist() for part in sum_defined(torch.tensor([[0.5, float("nan"), 0.25]]))]
    [[0.75], [2.0]]
    """
    defined = torch.isfinite(values)
    return torch.where(defined, values, 0.0).sum(-1), defined.sum(-1).double()
