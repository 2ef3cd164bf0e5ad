"""From logits to log-probabilities of given tokens, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TokenReading:
    """The log-probabilities (natural log) of some tokens, and whether each was the most likely one."""

    logprobs_nats: Float[np.ndarray, " reads"]
    is_top: Bool[np.ndarray, " reads"]


def read_logits(logits: Float[Tensor, "rows vocabulary"], rows: Sequence[int], tokens: Sequence[int]) -> TokenReading:
    """Read each ``tokens[i]`` off row ``rows[i]``: log softmax in float32 (float64 stays so); the lowest of equal tops.

    ``logits`` are used up: the softmax is taken in place, which saves a third of the time beside the matrix product.

    >>> reading = read_logits(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), [0, 0, 1], [0, 1, 1])
    >>> reading.logprobs_nats.round(4).tolist(), reading.is_top.tolist()
    ([-0.6931, -0.6931, -0.3133], [True, False, True])
    """
    exact = logits if logits.dtype == torch.float64 else logits.float()
    row = torch.tensor(list(rows), device=logits.device)
    token = torch.tensor(list(tokens), device=logits.device)
    read, top = exact[row, token], exact.amax(dim=-1)
    is_top = read == top[row]
    ties = torch.nonzero(is_top).flatten()  # of equal tops the first counts; argmax is slow, and few tokens are at the top
    if len(ties):
        tied, which = torch.unique(row[ties], return_inverse=True)
        is_top[ties] = exact[tied].argmax(dim=-1)[which] == token[ties]
    log_sum = exact.sub_(top[:, None]).exp_().sum(dim=-1).log_()
    logprobs = read - top[row] - log_sum[row]
    return TokenReading(logprobs.double().cpu().numpy(), is_top.cpu().numpy())
