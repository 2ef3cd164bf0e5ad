"""Requests behind soft roots: which root each is asked behind, and what a root keeps for those who come after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from harness.core.errors import ConfigError
from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues, SoftRoot, is_uneven
from harness.scoring import Request
from harness.scoring.encode import Encoded, encode_groups
from harness.scoring.uneven import reading_all_kept


def choose_roots(
    groups: Sequence[Sequence[Request]], pieces: Sequence[Sequence[Sequence[Encoded]]], model: LoadedModel, window: int
) -> list[list[int]]:
    """For each request the root that the model's soft roots choose for its context, 0 where it has none.

    The context is what is fed before the first scored token; of a whole sentence, all of which is scored, what stands before
    the answer. An answer is never looked at.
    """
    if model.soft_roots is None:
        return [[0] * len(group) for group in groups]
    contexts = [
        _context(request, fed, model, window)
        for group, row in zip(groups, pieces, strict=True)
        for request, fed in zip(group, row, strict=True)
    ]
    distinct = list(dict.fromkeys(contexts))
    chosen = dict(zip(distinct, model.soft_roots.choose(distinct), strict=True))
    in_order = iter(contexts)
    return [[int(chosen[next(in_order)]) for _ in group] for group in groups]


def _context(request: Request, fed: Sequence[Encoded], model: LoadedModel, window: int) -> tuple[int, ...]:
    if request.reading == "sentence" and request.context.strip():
        [[opening]] = encode_groups([[Request("", request.context.rstrip())]], model, window)
        return opening.tokens
    first = fed[0]
    return first.tokens[: -first.n_scored]


def room_beside_roots(model: LoadedModel, window: int) -> int:
    """What soft roots leave of a model's window. Raises ConfigError where that is nothing."""
    taken = model.soft_roots.most_positions if model.soft_roots else 0
    if taken >= window:
        raise ConfigError(
            f"the soft prompt takes {taken} positions, the model {window} in all: expected room for a text behind it; train a "
            "shorter one."
        )
    return window - taken


def body(model: LoadedModel) -> Any:
    """The model without its output head."""
    return model.module.base_model


def keep(body: Any, tokens: Sequence[int], before: KeysValues | None, device: str) -> KeysValues:
    """Feed tokens behind ``before`` for the keys and values of both. Raises ValueError for an architecture that keeps other
    things."""
    n_before = n_positions(before)
    positions = torch.arange(n_before, n_before + len(tokens), device=device)[None]
    return _kept(body, before, input_ids=torch.tensor([list(tokens)], device=device), position_ids=positions)


def keep_root(body: Any, root: SoftRoot) -> KeysValues | None:
    """The keys and values of a root, made by feeding it where it is embeddings; None for a root without positions."""
    if not root.n_positions:
        return None
    return root.keys_values if root.embeddings is None else _kept(body, None, inputs_embeds=root.embeddings[None])


def n_positions(kept: KeysValues | None) -> int:
    """How many positions some keys and values take."""
    return int(kept[0][0].shape[-2]) if kept else 0


def beside_each_row(kept: KeysValues, n_rows: int) -> DynamicCache:
    """Keys and values before every row of a batch, as transformers' models take them."""
    return DynamicCache([(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1)) for keys, values in kept])


@contextmanager
def calling_behind(module: Any, ids: Tensor, root: SoftRoot | None) -> Iterator[tuple[dict[str, Any], int]]:
    """What a model is called with for rows of ids behind a root, while the block runs, and how many places of its output come
    before the ids' own. A root of embeddings is fed again before every row; keys and values stand there as a cache."""
    if root is None or not root.n_positions:
        yield {"input_ids": ids, "use_cache": False}, 0
    elif root.embeddings is not None:
        before = root.embeddings.expand(len(ids), -1, -1)
        rows = torch.cat([before, module.get_input_embeddings()(ids)], dim=1)
        yield {"inputs_embeds": rows, "use_cache": False}, root.n_positions
    else:
        asked: dict[str, Any] = {
            "input_ids": ids,
            "past_key_values": beside_each_row(root.keys_values or (), len(ids)),
            "use_cache": True,
        }
        if root.is_uneven:
            positions = torch.arange(root.n_positions, root.n_positions + ids.shape[1], device=ids.device)
            with reading_all_kept(module.config):
                yield {**asked, "position_ids": positions.expand(len(ids), -1)}, 0
        else:
            seen = torch.ones((len(ids), root.n_positions + ids.shape[1]), dtype=torch.long, device=ids.device)
            yield {**asked, "attention_mask": seen}, 0


def _kept(body: Any, before: KeysValues | None, **inputs: Tensor) -> KeysValues:
    cache = DynamicCache() if before is None else beside_each_row(before, 1)
    uneven = reading_all_kept(body.config) if is_uneven(before) else nullcontext()
    with torch.inference_mode(), uneven:
        body(past_key_values=cache, use_cache=True, **inputs)
    kept = []
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            raise ValueError("this architecture keeps other things than keys and values")
        kept.append((layer.keys, layer.values))
    if not kept:
        raise ValueError("this architecture keeps nothing of what it is fed")
    return tuple(kept)
