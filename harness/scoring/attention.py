"""Attention as matrix products, a block of tokens at a time: for long stretches where products are faster than the kernel.

torch's own kernel for float32 on a CPU multiplies by the library that ``scoring.products`` leaves aside.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from harness.scoring.products import onednn_is_faster, product

FEWEST_TOKENS = 112
"""Fewer take longer this way (measured with 9 heads of 64)."""

BLOCK_ROWS = 768
"""Rows of one product, tokens times the heads that share a key: the attention of so many rows stays in the caches."""


def products_are_faster(query: Float[Tensor, "heads tokens size"]) -> bool:
    """Whether ``attend_in_blocks`` is the faster way for these queries."""
    return (
        query.device.type == "cpu" and query.dtype == torch.float32 and query.shape[1] >= FEWEST_TOKENS and onednn_is_faster()
    )


def attend_in_blocks(
    query: Float[Tensor, "heads tokens size"],
    key: Float[Tensor, "kv_heads seen size"],
    value: Float[Tensor, "kv_heads seen value_size"],
    *,
    mask: Float[Tensor, "last seen"] | None,
    scaling: float | None,
    out: Float[Tensor, "tokens heads value_size"],
) -> None:
    """Write softmax(q · kᵀ · scaling + mask) · v to ``out``; ``scaling`` is 1/√size where it is None.

    The queries are the last of what is seen, and none looks ahead; ``mask`` (0 or the lowest value) says what else the last
    of them do not see. ``heads`` is a multiple of ``kv_heads``: neighbours share a key.
    """
    n_tokens, n_seen = query.shape[1], key.shape[1]
    n_before, shared = n_seen - n_tokens, len(query) // len(key)
    n_causal = n_tokens - (0 if mask is None else len(mask))
    scale = query.shape[2] ** -0.5 if scaling is None else scaling
    block = max(1, BLOCK_ROWS // shared)
    ahead = _ahead(block)
    for start in range(0, n_tokens, block):
        end = min(start + block, n_tokens)
        seen, middle = n_before + end, min(max(start, n_causal), end)
        for group in range(len(key)):
            heads = slice(group * shared, (group + 1) * shared)
            rows = (query[heads, start:end].transpose(0, 1) * scale).reshape(-1, query.shape[2])  # token by token
            scores = product(rows, key[group, :seen].contiguous()).view(end - start, shared, seen)
            if middle > start:
                scores[: middle - start, :, n_before + start :].add_(ahead[: middle - start, None, : end - start])
            if mask is not None and end > middle:
                scores[middle - start :].add_(mask[middle - n_causal : end - n_causal, None, :seen])
            weights = scores.softmax(-1).view(-1, seen)
            out[start:end, heads] = product(weights, value[group, :seen].T.contiguous()).view(end - start, shared, -1)


@cache
def _ahead(n_tokens: int) -> Float[Tensor, "tokens tokens"]:
    """The mask of what lies ahead."""
    with torch.inference_mode(mode=False):
        return torch.full((n_tokens, n_tokens), torch.finfo(torch.float32).min, dtype=torch.float32).triu_(1)
