"""Tries side by side in one row, without padding: every layer but attention sees no difference, and attention is ours.

transformers lets a model's attention be replaced by name; each trie then attends to itself, to what is kept before it, and
to nothing else. Short tries of about one length attend together, padded there and only there; in a long one the stretch
before its first branch needs no mask. A model whose layers want more than queries, keys and values (a cap, sinks, a bias) is
refused, and fed by ``scoring.padded``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from harness.core.errors import ModelError
from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues
from harness.scoring.attention import attend_in_blocks, products_are_faster
from harness.scoring.lean import reading_only
from harness.scoring.rooted import body, n_positions
from harness.scoring.trie import Trie

NAME = "retention_packed"

TOGETHER_TOKENS = 128
"""Longer tries attend one by one: a call's own cost is small beside theirs."""

NEARLY_AS_LONG = 0.8
"""Tries attend together down to this share of the longest one's length."""

MANY_KEPT = 64
"""More kept positions are not copied beside each of the tries that attend together."""

CHAIN_TOKENS = 64
"""A shorter stretch without branches is not worth a call of its own."""

_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some architectures lay over attention, and we do not."""


@dataclass(frozen=True, slots=True, eq=False)
class _Alone:
    """One trie: its tokens, how many of them need no mask, and the mask of the others over all that stands before."""

    here: slice
    n_chain: int
    mask: Float[Tensor, "rest seen"] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Together:
    """Tries padded to one width: which token is at each place, their mask, and which places are tokens, and of what."""

    tokens: Int[Tensor, " tries*width"]
    mask: Float[Tensor, "tries 1 width seen"]
    places: Int[Tensor, " tokens"]
    into: Int[Tensor, " tokens"]


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """How a row's tokens attend, and what is kept before all of them."""

    n_tokens: int
    n_deepest: int
    parts: tuple[_Alone | _Together, ...]
    kept: KeysValues | None
    made: dict[int, tuple[Tensor, Tensor]] | None = None
    """Where each layer's keys and values are put, if they are wanted."""


_LAYOUT: ContextVar[_Layout] = ContextVar("layout")


def feed_packed(
    model: LoadedModel, tries: Sequence[Trie], kept: KeysValues | None, n_stem: int
) -> tuple[Float[Tensor, "places hidden"], Int[np.ndarray, " tries"]]:
    """The body's last hidden states, right where the tries are read, and where those of each trie begin; ``kept`` ends with
    the stem, which is not fed.

    Raises ValueError for an architecture that attends in another way.
    """
    n_kept = n_positions(kept)
    starts = np.cumsum([0, *(trie.n_nodes - n_stem for trie in tries)])
    ids = np.concatenate([trie.tokens[n_stem:] for trie in tries])
    positions = np.concatenate([trie.depths[n_stem:] for trie in tries]) + n_kept - n_stem
    dtype = next(model.module.parameters()).dtype
    parts = _parts(tries, starts, n_kept, n_stem, dtype=dtype, device=model.device)
    read = np.concatenate([trie.nodes_read + start - n_stem for trie, start in zip(tries, starts[:-1], strict=True)])
    with (
        reading_only(len(ids), torch.from_numpy(read).to(model.device)),
        _attending(model, _Layout(len(ids), int(positions.max()) + 1, parts, kept)),
    ):
        out = body(model)(
            input_ids=torch.from_numpy(ids).to(model.device)[None],
            position_ids=torch.from_numpy(positions).to(model.device)[None],
            use_cache=False,
        )
    states: Tensor = out.last_hidden_state
    return states[0], starts[:-1]


def keep_packed(model: LoadedModel, tokens: Sequence[int], kept: KeysValues | None) -> KeysValues:
    """Feed tokens behind what is kept, for the keys and values of both. Raises ValueError for an architecture that attends in
    another way or keeps other things."""
    n_kept, n_tokens = n_positions(kept), len(tokens)
    made: dict[int, tuple[Tensor, Tensor]] = {}
    chain = _chain(n_tokens, n_kept, dtype=next(model.module.parameters()).dtype, device=model.device)
    ids = torch.tensor([list(tokens)], device=model.device)
    positions = torch.arange(n_kept, n_kept + n_tokens, device=model.device)[None]
    with (
        torch.inference_mode(),
        reading_only(n_tokens, torch.empty(0, dtype=torch.long, device=model.device)),
        _attending(model, _Layout(n_tokens, n_kept + n_tokens, (chain,), kept, made)),
    ):
        body(model)(input_ids=ids, position_ids=positions, use_cache=False)
    layers = tuple(made[layer] for layer in sorted(made))
    if not layers or len(layers) != len(kept or layers) or sorted(made) != list(range(len(layers))):
        raise ValueError("this architecture keeps other things than keys and values of each layer")
    return layers


# ------------------------------------------------------------------------------------------------ who attends to what


def _parts(
    tries: Sequence[Trie], starts: Int[np.ndarray, " tries+1"], n_kept: int, n_stem: int, *, dtype: torch.dtype, device: str
) -> tuple[_Alone | _Together, ...]:
    parts: list[_Alone | _Together] = []
    on_cpu = torch.device(device).type == "cpu"
    for members in _alike(starts, one_by_one=on_cpu and n_kept > MANY_KEPT, all_at_once=not on_cpu):
        chosen = [tries[member] for member in members]
        if len(members) == 1:
            here = slice(int(starts[members[0]]), int(starts[members[0] + 1]))
            parts.append(_alone(chosen[0], here, n_kept, n_stem, dtype=dtype, device=device))
        else:
            parts.append(_together(chosen, starts[members], n_kept, n_stem, dtype=dtype, device=device))
    return tuple(parts)


def _alike(starts: Int[np.ndarray, " tries+1"], *, one_by_one: bool, all_at_once: bool) -> list[list[int]]:
    """Which tries attend together: neighbours of nearly one length, which the plan's order has side by side."""
    lengths = np.diff(starts)
    parts: list[list[int]] = []
    for trie, length in enumerate(lengths):
        longest = lengths[parts[-1][0]] if parts else 0
        fits = longest <= TOGETHER_TOKENS and NEARLY_AS_LONG * longest <= length <= longest and not one_by_one
        if parts and (fits or all_at_once):
            parts[-1].append(trie)
        else:
            parts.append([trie])
    return parts


def _alone(trie: Trie, here: slice, n_kept: int, n_stem: int, *, dtype: torch.dtype, device: str) -> _Alone:
    n_nodes = trie.n_nodes - n_stem
    n_chain = 0 if n_kept else trie.n_chain
    if n_chain < CHAIN_TOKENS:
        n_chain = 0
    if n_chain == n_nodes:
        return _Alone(here, n_chain, None)
    visible = np.ones((n_nodes - n_chain, n_kept + n_nodes), dtype=np.bool_)
    visible[:, n_kept:] = trie.visible()[n_stem + n_chain :, n_stem:]
    return _Alone(here, n_chain, _mask(visible, dtype, device))


def _chain(n_tokens: int, n_kept: int, *, dtype: torch.dtype, device: str) -> _Alone:
    """Tokens without branches, behind what is kept."""
    here = slice(0, n_tokens)
    if not n_kept:
        return _Alone(here, n_tokens, None)
    return _Alone(here, 0, _mask(np.tri(n_tokens, n_kept + n_tokens, n_kept, dtype=np.bool_), dtype, device))


def _together(
    tries: Sequence[Trie], starts: Int[np.ndarray, " tries"], n_kept: int, n_stem: int, *, dtype: torch.dtype, device: str
) -> _Together:
    lengths = np.array([trie.n_nodes - n_stem for trie in tries])
    width = int(lengths.max())
    is_token = np.arange(width) < lengths[:, None]
    tokens = np.where(is_token, starts[:, None] + np.arange(width), starts[:, None])
    visible = np.zeros((len(tries), 1, width, n_kept + width), dtype=np.bool_)
    visible[:, :, :, n_kept:] = np.eye(width, dtype=np.bool_)  # padding sees itself
    for row, (trie, n) in enumerate(zip(tries, lengths, strict=True)):
        visible[row, 0, :n, :n_kept] = True
        visible[row, 0, :n, n_kept : n_kept + n] = trie.visible()[n_stem:, n_stem:]
    return _Together(
        tokens=torch.from_numpy(tokens.reshape(-1)).to(device),
        mask=_mask(visible, dtype, device),
        places=torch.from_numpy(np.flatnonzero(is_token)).to(device),
        into=torch.from_numpy(tokens[is_token]).to(device),
    )


def _mask(visible: np.ndarray, dtype: torch.dtype, device: str) -> Tensor:
    hidden = ~torch.from_numpy(visible).to(device)
    return torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(hidden, torch.finfo(dtype).min)


# ------------------------------------------------------------------------------------------------ attention


@contextmanager
def _attending(model: LoadedModel, layout: _Layout) -> Iterator[None]:
    """While the block runs, the model attends as the layout says."""
    AttentionInterface.register(NAME, _attend)
    config: Any = model.module.config
    inner = [
        getattr(config, name, None) for name in getattr(config, "sub_configs", {})
    ]  # the outer one's setter sets these, too
    before = [(part, part._attn_implementation) for part in (config, *inner) if part is not None]
    token = _LAYOUT.set(layout)
    try:
        config._attn_implementation = NAME
        yield
    finally:
        for part, own in before:
            part._attn_implementation = own
        _LAYOUT.reset(token)


def _attend(
    module: Any,
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 kv_heads tokens size"],
    value: Float[Tensor, "1 kv_heads tokens value_size"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "1 tokens heads value_size"], None]:
    """Attention as transformers asks for it, by the layout at hand."""
    layout = _LAYOUT.get()
    unknown = [name for name in _UNKNOWN if others.get(name) is not None]
    as_fed = (1, layout.n_tokens)
    if unknown or attention_mask is not None or query.shape[:3:2] != as_fed or key.shape[:3:2] != as_fed:
        raise ValueError(f"this architecture attends in a way that is not known here ({', '.join(unknown) or 'a mask'})")
    window = others.get("sliding_window")
    if isinstance(window, int) and window < layout.n_deepest:
        raise ModelError(
            f"a layer of {type(module).__name__} sees {window} tokens, and {layout.n_deepest} stand in a row: expected a "
            "config that names its sliding_window; report this model, its scores would be wrong."
        )
    states = _States(query, key, value, layout.kept[module.layer_idx] if layout.kept else None, scaling)
    if layout.made is not None:
        # copies: what is kept must not hold the whole of a product that makes queries, keys and values at once
        layout.made[module.layer_idx] = _apart(*states.behind_kept(key, value))
    out = query.new_empty((layout.n_tokens, query.shape[1], value.shape[3]))
    for part in layout.parts:
        if isinstance(part, _Alone):
            states.attend_alone(part, out)
        else:
            states.attend_together(part, out)
    return out[None], None


def _apart(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    return keys.contiguous(), values.contiguous()


@dataclass(frozen=True, slots=True, eq=False)
class _States:
    """What a layer attends with. Keys and values may have fewer heads, each for several of the queries'."""

    query: Float[Tensor, "1 heads tokens size"]
    key: Float[Tensor, "1 kv_heads tokens size"]
    value: Float[Tensor, "1 kv_heads tokens value_size"]
    kept: tuple[Tensor, Tensor] | None
    scaling: float | None

    def attend_alone(self, part: _Alone, out: Float[Tensor, "tokens heads value_size"]) -> None:
        """Fill in one trie's places."""
        start, end = part.here.start, part.here.stop
        middle = start + part.n_chain
        query = self.query[0, :, start:end]
        if products_are_faster(query):
            key, value = self.behind_kept(self.key[:, :, start:end], self.value[:, :, start:end])
            mask = None if part.mask is None else _of_layer(part.mask, key)
            attend_in_blocks(query, key[0], value[0], mask=mask, scaling=self.scaling, out=out[start:end])
            return
        if part.n_chain:
            key, value = self.key[:, :, start:middle], self.value[:, :, start:middle]
            out[start:middle] = self._attend(self.query[:, :, start:middle], key, value, None)[0].transpose(0, 1)
        if part.mask is not None:
            key, value = self.behind_kept(self.key[:, :, start:end], self.value[:, :, start:end])
            made = self._attend(self.query[:, :, middle:end], key, value, _of_layer(part.mask[None, None], key))
            out[middle:end] = made[0].transpose(0, 1)

    def attend_together(self, part: _Together, out: Float[Tensor, "tokens heads value_size"]) -> None:
        """Fill in the places of tries that are padded to one width."""
        n_tries, _, width, _ = part.mask.shape

        def rows(states: Tensor) -> Tensor:
            chosen = states[0].index_select(1, part.tokens)  # [heads, tries*width, size]
            return chosen.view(len(chosen), n_tries, width, -1).transpose(0, 1)

        key, value = self.behind_kept(rows(self.key), rows(self.value))
        made = self._attend(rows(self.query), key, value, _of_layer(part.mask, key))  # [tries, heads, width, size]
        out.index_copy_(0, part.into, made.transpose(1, 2).flatten(0, 1).index_select(0, part.places))

    def behind_kept(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values with those that are kept before them."""
        if self.kept is None:
            return key, value
        keys, values = (states.expand(len(key), -1, -1, -1) for states in self.kept)
        return torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled dot-product attention, causal without a mask."""
        groups = query.shape[1] // key.shape[1]
        if groups > 1 and mask is not None and query.device.type != "cpu":  # CUDA's fast kernels take a mask or groups
            key, value, groups = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), 1
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=self.scaling, enable_gqa=groups > 1
        )


def _of_layer(mask: Tensor, key: Tensor) -> Tensor:
    """The mask for a layer that may keep fewer positions than the first: those that stand before all are seen by all."""
    return mask[..., mask.shape[-1] - key.shape[2] :]
