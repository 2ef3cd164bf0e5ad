"""Keys and values of rows that are generated side by side, and the attention that reads them.

Each row has a slot for the keys and values of its own tokens, in one buffer a layer that is made once. What all rows begin
with is kept once and stands before every slot without being copied there. The tokens of a forward pass, of however many rows,
stand in one line: no padding is fed, and transformers' modelling code needs to know of nothing but the attention function.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from harness.models.quiet import quiet_transformers
from harness.models.roots import KeysValues

ATTENTION = "harness_slots"
"""The name of ``attend`` among transformers' attention functions."""

_CLEARED_TOKENS = 64
"""Places that are cleared at once: memory that no row comes to is never touched."""

_UNKNOWN = ("s_aux", "position_bias")
"""What some models add to attention and ``attend`` does not."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens of one row in a forward pass; keys and values of ``n_before`` own tokens are in its slot already.

    A row that enters has none and feeds its prompt; a running row has some and feeds one token.
    """

    slot: int
    n_before: int
    tokens: tuple[int, ...]


class Slots:
    """Room for ``n_rows`` rows of ``width`` own tokens each, after ``before``, which all of them begin with.

    ``like`` has a pair of keys and values a layer, whose heads, sizes, dtype and device are taken over.
    """

    def __init__(self, n_rows: int, width: int, before: KeysValues | None, like: KeysValues) -> None:
        self.before = before
        self.n_rows = n_rows
        self._n_clear = 0
        self.n_shared = before[0][0].shape[-2] if before else 0
        self.own = [
            (
                key.new_empty(n_rows, key.shape[1], width, key.shape[3]),
                value.new_empty(n_rows, *value.shape[1:2], width, value.shape[3]),
            )
            for key, value in like
        ]

    def clear(self, n_tokens: int) -> None:
        """Make the first places of every slot ready to be read: what is masked must be finite, too."""
        if n_tokens <= self._n_clear:
            return
        until = -(-n_tokens // _CLEARED_TOKENS) * _CLEARED_TOKENS
        for buffer in (buffer for pair in self.own for buffer in pair):
            buffer[:, :, self._n_clear : until].zero_()
        self._n_clear = until

    def move(self, source: int, target: int, n_tokens: int) -> None:
        """Move a row's first tokens to another slot."""
        for keys, values in self.own:
            keys[target, :, :n_tokens] = keys[source, :, :n_tokens]
            values[target, :, :n_tokens] = values[source, :, :n_tokens]

    def kept(self, n_tokens: int) -> KeysValues:
        """What the first row begins with, up to so many own tokens, as something that others may begin with."""
        own = tuple((keys[:1, :, :n_tokens], values[:1, :, :n_tokens]) for keys, values in self.own)
        if not self.before:
            return own
        return tuple(
            (torch.cat([k, key], dim=-2), torch.cat([v, value], dim=-2))
            for (k, v), (key, value) in zip(self.before, own, strict=True)
        )


class Step:
    """One forward pass: running rows in neighbouring slots, a token each, then rows that enter.

    ``windows`` tells afterwards how far each layer looked back (None: all the way).
    """

    def __init__(self, slots: Slots, stretches: Sequence[Stretch], softcaps: bool) -> None:
        self.slots = slots
        self.softcaps = softcaps
        self.windows: dict[int, int | None] = {}
        running = [stretch for stretch in stretches if stretch.n_before]
        self.entering = [stretch for stretch in stretches if not stretch.n_before]
        self.n_running = len(running)
        self._low = running[0].slot if running else 0
        device = slots.own[0][0].device
        self._places = torch.tensor([stretch.slot for stretch in running], device=device)
        self._lengths = torch.tensor([stretch.n_before for stretch in running], device=device)
        self._longest = max((stretch.n_before for stretch in running), default=0) + 1
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        slots.clear(max(stretch.n_before + len(stretch.tokens) for stretch in stretches))
        in_order = [*running, *self.entering]
        starts = [slots.n_shared + stretch.n_before for stretch in in_order]
        self.ids = torch.tensor([[token for stretch in in_order for token in stretch.tokens]], device=device)
        self.positions = torch.tensor(
            [[start + i for start, stretch in zip(starts, in_order, strict=True) for i in range(len(stretch.tokens))]],
            device=device,
        )
        ends = torch.tensor([len(stretch.tokens) for stretch in in_order]).cumsum(0) - 1
        self.last = ends.to(device)
        """Where in the line each stretch ends."""

    def attend_running(self, how: _How, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of running rows: q, k, v [1, heads, rows, size] to [1, rows, heads, size]."""
        keys, values = self.slots.own[how.layer]
        keys[self._places, :, self._lengths] = k[0].transpose(0, 1)
        values[self._places, :, self._lengths] = v[0].transpose(0, 1)
        n_rows, n_heads = self.n_running, keys.shape[1]
        rows = slice(self._low, self._low + n_rows)
        keys, values = keys[rows, :, : self._longest], values[rows, :, : self._longest]
        # heads that share keys stand in groups: [rows, key heads, group, size]
        grouped = q[0].transpose(0, 1).reshape(n_rows, n_heads, -1, q.shape[-1])
        scores = grouped @ keys.transpose(-1, -2)
        n_shared = 0
        if self.slots.before:
            shared_keys, shared_values = self.slots.before[how.layer]
            n_shared = shared_keys.shape[-2]  # a layer may keep fewer than the first
            together = grouped.transpose(0, 1).flatten(1, 2)  # all rows read them in one product
            read = (together @ shared_keys[0].transpose(-1, -2)).view(n_heads, n_rows, -1, n_shared).transpose(0, 1)
            scores = torch.cat([read, scores], dim=-1)
        weights = how.weights(scores, _of_layer(self._mask_running(how.window), scores.shape[-1]))
        out = weights[..., n_shared:] @ values
        if self.slots.before:
            together = weights[..., :n_shared].transpose(0, 1).flatten(1, 2)
            out = out + (together @ shared_values[0]).view(n_heads, n_rows, -1, out.shape[-1]).transpose(0, 1)
        return out.reshape(1, n_rows, -1, out.shape[-1])

    def attend_entering(self, how: _How, stretch: Stretch, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of a row that enters: q, k, v [1, heads, tokens, size] to [1, tokens, heads, size]."""
        keys, values = self.slots.own[how.layer]
        n = len(stretch.tokens)
        keys[stretch.slot, :, :n], values[stretch.slot, :, :n] = k[0], v[0]
        if self.slots.before:
            shared_keys, shared_values = self.slots.before[how.layer]
            k, v = torch.cat([shared_keys, k], dim=-2), torch.cat([shared_values, v], dim=-2)
        mask = self._mask_entering(n, how.window)
        mask = mask if mask is None else _of_layer(mask, k.shape[-2])
        n_groups = q.shape[1] // k.shape[1]
        # off the CPU a mask and heads that share keys together leave torch only its slowest way
        shares = how.softcap is None and n_groups > 1 and (mask is None or q.device.type == "cpu")
        if not shares:
            k, v = k.repeat_interleave(n_groups, dim=1), v.repeat_interleave(n_groups, dim=1)
        if how.softcap is None:
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=how.scaling, enable_gqa=shares
            )
        else:
            mask = mask if mask is not None else _visible(n, n, None, q)
            out = how.weights(q @ k.transpose(-1, -2), mask) @ v
        return out.transpose(1, 2)

    def _mask_running(self, window: int | None) -> Tensor:
        """What running rows see, added to their scores: [rows, 1, 1, shared + longest]."""
        if (known := self._masks.get((0, window))) is not None:
            return known
        n_shared = self.slots.n_shared
        place = torch.arange(n_shared + self._longest, device=self._lengths.device)
        at = (n_shared + self._lengths)[:, None]
        seen = place <= at if window is None else (place <= at) & (place > at - window)
        mask = self._masks[0, window] = _added(seen, self.slots.own[0][0].dtype)[:, None, None]
        return mask

    def _mask_entering(self, n_tokens: int, window: int | None) -> Tensor | None:
        """What ``n_tokens`` after the shared ones see, [n_tokens, shared + n_tokens]; None: each what is before it."""
        n = self.slots.n_shared + n_tokens
        window = None if window is None or window >= n else window
        if window is None and not self.slots.n_shared:
            return None
        if (n_tokens, window) not in self._masks:
            self._masks[n_tokens, window] = _visible(n_tokens, n, window, self.slots.own[0][0])
        return self._masks[n_tokens, window]


@dataclass(frozen=True, slots=True)
class _How:
    """What a layer says of its attention."""

    layer: int
    scaling: float
    window: int | None
    softcap: float | None

    def weights(self, scores: Tensor, mask: Tensor) -> Tensor:
        scores = scores * self.scaling
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        return (scores + mask).softmax(dim=-1, dtype=torch.float32).to(scores.dtype)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - transformers' signature; what is seen follows from the slots
    *,
    slots: Step,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function over slots: query, key, value [1, heads, tokens, size] to [1, tokens, heads, size]."""
    if unknown := [name for name in _UNKNOWN if others.get(name) is not None]:
        raise ValueError(f"attention with {unknown[0]} is not known here")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    how = _How(module.layer_idx, scaling, sliding_window, softcap if slots.softcaps else None)
    slots.windows[how.layer] = sliding_window
    n = slots.n_running
    made = [slots.attend_running(how, query[:, :, :n], key[:, :, :n], value[:, :, :n])] if n else []
    for stretch in slots.entering:
        part = slice(n, n := n + len(stretch.tokens))
        made.append(slots.attend_entering(how, stretch, query[:, :, part], key[:, :, part], value[:, :, part]))
    return torch.cat(made, dim=1), None


@contextmanager
def attending(module: Any) -> Iterator[bool]:
    """While the block runs, a model attends through ``attend``; says whether its own attention caps its scores.

    Raises ValueError for a model whose attention can't be set.
    """
    AttentionInterface.register(ATTENTION, attend)
    own = module.config._attn_implementation
    with quiet_transformers():
        module.set_attn_implementation(ATTENTION)
    try:
        if module.config._attn_implementation != ATTENTION:
            raise ValueError("this architecture has an attention of its own")
        yield own == "eager"  # transformers' other attention functions leave the cap out
    finally:
        with quiet_transformers():
            module.set_attn_implementation(own)


def _of_layer(mask: Tensor, n_keys: int) -> Tensor:
    """The mask for a layer that may keep fewer shared places than the first: what stands before all is seen by all."""
    return mask[..., mask.shape[-1] - n_keys :]


def _visible(n_tokens: int, n: int, window: int | None, like: Tensor) -> Tensor:
    """What the last ``n_tokens`` of ``n`` see of all, added to their scores: [n_tokens, n]."""
    at = torch.arange(n - n_tokens, n, device=like.device)[:, None]
    place = torch.arange(n, device=like.device)
    return _added(place <= at if window is None else (place <= at) & (place > at - window), like.dtype)


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
