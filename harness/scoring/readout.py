"""From logits to log-probabilities of given tokens, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TokenReading:
    """The log-probabilities (natural log) of some tokens, whether each was the most likely one, and how far it is ahead of the
    likeliest other token (behind: negative)."""

    logprobs_nats: Float[np.ndarray, " reads"]
    is_top: Bool[np.ndarray, " reads"]
    leads_nats: Float[np.ndarray, " reads"]

    @classmethod
    def empty(cls, n_reads: int) -> TokenReading:
        """Room for so many."""
        return cls(np.empty(n_reads), np.empty(n_reads, dtype=np.bool_), np.empty(n_reads))

    def put(self, where: Int[np.ndarray, " some"] | list[int], part: TokenReading) -> None:
        """Fill in some of them."""
        self.logprobs_nats[where], self.is_top[where] = part.logprobs_nats, part.is_top
        self.leads_nats[where] = part.leads_nats

    def take(self, part: slice) -> TokenReading:
        """Some of them."""
        return TokenReading(self.logprobs_nats[part], self.is_top[part], self.leads_nats[part])


def read_logits(logits: Float[Tensor, "rows vocabulary"], rows: Sequence[int], tokens: Sequence[int]) -> TokenReading:
    """Read each ``tokens[i]`` off row ``rows[i]``: log softmax in float32 (float64 stays so); the lowest of equal tops.

    ``logits`` are used up: the softmax is taken in place, which saves a third of the time beside the matrix product.

    >>> reading = read_logits(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), [0, 0, 1], [0, 1, 1])
    >>> reading.logprobs_nats.round(4).tolist(), reading.is_top.tolist()
    ([-0.6931, -0.6931, -0.3133], [True, False, True])
    >>> reading.leads_nats.tolist()
    [0.0, 0.0, 1.0]
    """
    exact = logits if logits.dtype == torch.float64 else logits.float()
    row = torch.tensor(list(rows), device=logits.device)
    token = torch.tensor(list(tokens), device=logits.device)
    read, top = exact[row, token], exact.amax(dim=-1)
    is_top = read == top[row]
    leads = read - top[row]
    ties = torch.nonzero(is_top).flatten()
    if len(ties):
        tied, which = torch.unique(row[ties], return_inverse=True)
        at_top = torch.empty_like(tied)
        at_top[which] = token[ties]
        exact[tied, at_top] = -torch.inf  # for a moment: taking these rows out costs more
        second = exact.amax(dim=-1)[tied]
        exact[tied, at_top] = top[tied]
        leads[ties] = (top[tied] - second)[which]
        equal = second == top[tied]
        if bool(equal.any()):  # of equal tops the first counts; argmax is slow, and this is rare
            first = torch.full_like(tied, -1)
            first[equal] = exact[tied[equal]].argmax(dim=-1)
            is_top[ties] = ~equal[which] | (first[which] == token[ties])
    log_sum = exact.sub_(top[:, None]).exp_().sum(dim=-1).log_()
    logprobs = read - top[row] - log_sum[row]
    return TokenReading(logprobs.double().cpu().numpy(), is_top.cpu().numpy(), leads.double().cpu().numpy())
