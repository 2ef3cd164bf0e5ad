"""Attention behind a soft root of which some layers keep fewer keys and values than others.

transformers makes one mask for all layers, which fits none but those that keep as many. Its attention can be replaced by name,
though, and behind a root every layer needs only this: all that it keeps is seen, and what is fed is causal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "harness_uneven"

_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some architectures lay over attention, and we do not."""


@contextmanager
def reading_all_kept(config: Any) -> Iterator[None]:
    """While the block runs, every layer of the model of ``config`` reads whatever it keeps. Nothing that is kept, and nothing
    fed beside it in a row, may be padding on the left."""
    AttentionInterface.register(NAME, _attend)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - transformers' signature; it is made for the first layer
    *,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: query, key, value [rows, heads, tokens, size] to [rows, tokens, heads, size]."""
    n_tokens, n_keys = query.shape[-2], key.shape[-2]
    window = others.get("sliding_window")
    unknown = [name for name in _UNKNOWN if others.get(name) is not None]
    if unknown or (isinstance(window, int) and window < n_keys):
        told = ", ".join(unknown) or "a sliding window"
        raise ValueError(f"{type(module).__name__} attends with {told}, which is not known behind an uneven soft root")
    seen = torch.ones((n_tokens, n_keys), dtype=torch.bool, device=query.device).tril(n_keys - n_tokens)
    out = scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None
