"""Which prompt a context attends to: the pure part of inference-time dynamic prompting.

m prompts stand side by side before a context. With A the context's attention over all of them and itself, the chosen prompt
is argmax_i of the mean of A[t, j] over the context's tokens t and the prompt's positions j (Hoang et al., arXiv 2310.00867).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_TOKENS = 128
"""Tokens whose attention is computed at once: their weights stay in a CPU's cache."""


def attention_weights(
    query: Float[Tensor, "rows heads tokens size"],
    key: Float[Tensor, "rows kv_heads keys size"],
    *,
    scaling: float,
    softcap: float | None = None,
) -> Float[Tensor, "rows heads tokens keys"]:
    """One softmax over all keys, causal at the end: the last ``tokens`` keys are the tokens' own, all others are seen by all.

    ``kv_heads`` divides ``heads`` (grouped queries); ``softcap`` c bounds a logit z to c tanh(z / c) (Gemma 2). Float32.

    >>> attention_weights(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 3, 4), scaling=0.5)[0, 0].tolist()
    [[0.5, 0.5, 0.0], [0.3333333432674408, 0.3333333432674408, 0.3333333432674408]]
    """
    n_groups = query.shape[1] // key.shape[1]
    logits = (query @ key.repeat_interleave(n_groups, dim=1).transpose(-1, -2)).float() * scaling
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    seen = sees(query.shape[-2], key.shape[-2], logits.device)
    return logits.masked_fill(~seen, -torch.inf).softmax(-1)


def sees(n_tokens: int, n_keys: int, device: torch.device) -> Tensor:
    """Which of ``n_keys`` keys each of the last ``n_tokens`` sees: all before them, and causally one another.

    >>> sees(2, 3, torch.device("cpu")).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    return torch.ones((n_tokens, n_keys), dtype=torch.bool, device=device).tril(n_keys - n_tokens)


def attention_to_prompts(
    weights: Float[Tensor, "rows heads tokens keys"], lengths: Sequence[int]
) -> Float[Tensor, "rows tokens prompts"]:
    """The share of its attention that each token gives to each prompt, heads averaged. Prompts come first, in this order.

    >>> attention_to_prompts(torch.tensor([[[[0.125, 0.25, 0.5, 0.125]]]]), (1, 2)).tolist()
    [[[0.125, 0.75]]]
    """
    parts = torch.split(weights[..., : sum(lengths)].mean(1), list(lengths), dim=-1)
    return torch.stack([part.sum(-1) for part in parts], dim=-1)


def shares_of_prompts(
    query: Float[Tensor, "rows heads tokens size"],
    key: Float[Tensor, "rows kv_heads keys size"],
    lengths: Sequence[int],
    *,
    scaling: float,
    softcap: float | None = None,
    block_tokens: int = BLOCK_TOKENS,
) -> Float[Tensor, "rows tokens prompts"]:
    """``attention_to_prompts`` of ``attention_weights``, block by block: what a block can't see is not computed, and
    the weights of a long context never stand in memory at once.

    >>> drawn = torch.sin(torch.arange(48.0)).view(1, 2, 3, 8), torch.cos(torch.arange(80.0)).view(1, 2, 5, 8)
    >>> made = [shares_of_prompts(*drawn, (1, 1), scaling=1.0, block_tokens=n) for n in (2, 3)]
    >>> torch.allclose(*made), torch.allclose(made[1], attention_to_prompts(attention_weights(*drawn, scaling=1.0), (1, 1)))
    (True, True)
    """
    n_tokens, n_before = query.shape[-2], key.shape[-2] - query.shape[-2]
    parts = []
    for start in range(0, n_tokens, block_tokens):
        end = min(start + block_tokens, n_tokens)
        weights = attention_weights(query[..., start:end, :], key[..., : n_before + end, :], scaling=scaling, softcap=softcap)
        parts.append(attention_to_prompts(weights, lengths))
    return torch.cat(parts, dim=1)


def prompt_scores(
    shares: Float[Tensor, "rows tokens prompts"],
    n_tokens: Int[Tensor, " rows"],
    lengths: Sequence[int],
    *,
    length_normalised: bool,
) -> Float[Tensor, "rows prompts"]:
    """A score a prompt: the larger, the rather it is chosen. Only each row's first ``n_tokens`` tokens count.

    As in the paper: the mean attention to one of the prompt's positions. All prompts share one softmax, so a short prompt is
    favoured by its fewer positions; ``length_normalised`` takes the mean log of the whole prompt's share instead.

    >>> shares = torch.tensor([[[0.2, 0.3], [0.9, 0.1]]])
    >>> prompt_scores(shares, torch.tensor([1]), (1, 3), length_normalised=False)[0].tolist()
    [0.20000000298023224, 0.10000000149011612]
    >>> [round(score, 3) for score in prompt_scores(shares, torch.tensor([1]), (1, 3), length_normalised=True)[0].tolist()]
    [-1.609, -1.204]
    """
    counted = torch.arange(shares.shape[1], device=shares.device)[None] < n_tokens[:, None]
    values = shares.clamp_min(torch.finfo(torch.float32).tiny).log() if length_normalised else shares
    mean = (values * counted[..., None]).sum(1) / n_tokens[:, None]
    return mean if length_normalised else mean / torch.tensor(list(lengths), device=shares.device)
