"""The tree path: tries fed as rows of one batch under a 4-D mask, the output head only where a score is read.

What several tries begin with, their stem, is fed once; its keys and values then stand before each row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from harness.models.loaded import LoadedModel
from harness.scoring.memory import Halving
from harness.scoring.plan import plan_batches
from harness.scoring.readout import TokenReading, read_logits
from harness.scoring.stems import Stem
from harness.scoring.trie import Trie

Kept = list[tuple[Tensor, Tensor]]
"""Keys and values of a stem, a pair a layer, each [1, heads, stem, head size]."""

KEPT_TOKENS = 8192
"""Stem tokens whose keys and values stand before the rows of a batch, rows x stem: more make the rows fewer."""

HEAD_ROWS = 512
"""Positions whose logits are made at once: 512 x 50,000 in float32 are 100 MB."""

_WINDOW_KEYS = ("sliding_window", "attention_chunk_size", "window_size")


@dataclass(frozen=True, slots=True)
class TreeEngine:
    """Scores tries. Only valid where ``DecoderScorer`` found it to agree with the plain path."""

    model: LoadedModel
    budget_tokens: int
    halving: Halving = field(default_factory=Halving)

    def score(
        self, tries: Sequence[Trie], stems: Sequence[Stem], done: Callable[[Sequence[int]], None] | None = None
    ) -> list[list[TokenReading]]:
        """For each trie its requests' readings, in order. ``done`` gets each batch's positions."""
        readings: dict[int, list[TokenReading]] = {}
        for stem in stems:
            n = len(stem.tokens)
            with torch.inference_mode():
                kept = self._keep(stem.tokens) if n else None
            rows = [tries[position].n_nodes - n for position in stem.members]
            most_rows = max(1, KEPT_TOKENS // n) if n else None
            for batch in plan_batches(rows, budget_tokens=self.budget_tokens, most_rows=most_rows):
                chosen = [tries[stem.members[row]] for row in batch]
                with torch.inference_mode():
                    made = self.halving.feed(chosen, _padded_tokens, partial(self._score_batch, kept=kept))
                positions = [stem.members[row] for row in batch]
                readings.update(zip(positions, made, strict=True))
                if done:
                    done(positions)
        return [readings[position] for position in range(len(tries))]

    def _keep(self, stem: Sequence[int]) -> Kept:
        """Feed a stem for its keys and values."""
        ids = torch.tensor([stem], device=self.model.device)
        cache = DynamicCache()
        body(self.model)(input_ids=ids, past_key_values=cache, use_cache=True)
        kept: Kept = []
        for layer in cache.layers:
            if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
                raise ValueError("this architecture keeps other things than keys and values")
            kept.append((layer.keys, layer.values))
        return kept

    def _score_batch(self, tries: Sequence[Trie], kept: Kept | None) -> list[list[TokenReading]]:
        n_kept = kept[0][0].shape[-2] if kept else 0
        hidden = self._feed(tries, kept, n_kept)
        width = hidden.shape[1]
        reads = [
            (row * width + node - n_kept, token)
            for row, trie in enumerate(tries)
            for request in trie.reads
            for node, token in request
        ]
        places = np.array([place for place, _ in reads])
        tokens = np.array([token for _, token in reads])
        reading = self._read(hidden.flatten(0, 1), places, tokens)
        return _split(reading, tries)

    def _feed(self, tries: Sequence[Trie], kept: Kept | None, n_kept: int) -> Tensor:
        """The body's last hidden states of what comes after the stem, [tries, widest trie - stem, hidden]."""
        width = max(trie.n_nodes for trie in tries) - n_kept
        ids = np.zeros((len(tries), width), dtype=np.int64)
        positions = np.full_like(ids, n_kept)
        visible = np.zeros((len(tries), width, n_kept + width), dtype=np.bool_)
        visible[:, :, n_kept:] = np.eye(width, dtype=np.bool_)  # padding sees itself
        for row, trie in enumerate(tries):
            n = trie.n_nodes - n_kept
            ids[row, :n], positions[row, :n] = trie.tokens[n_kept:], trie.depths[n_kept:]
            visible[row, :n, : trie.n_nodes] = trie.visible()[n_kept:]
        device, dtype = self.model.device, next(self.model.module.parameters()).dtype
        mask = torch.zeros((len(tries), 1, width, n_kept + width), dtype=dtype, device=device)
        mask.masked_fill_(~torch.from_numpy(visible).to(device)[:, None], torch.finfo(dtype).min)
        before = {} if kept is None else {"past_key_values": _beside_each_row(kept, len(tries))}
        out = body(self.model)(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=mask,
            position_ids=torch.from_numpy(positions).to(device),
            use_cache=kept is not None,
            **before,
        )
        states: Tensor = out.last_hidden_state
        return states

    def _read(self, hidden: Tensor, places: np.ndarray, tokens: np.ndarray) -> TokenReading:
        """Read tokens off positions of ``hidden`` [positions, hidden], each position's logits made once."""
        unique, inverse = np.unique(places, return_inverse=True)
        logprobs, is_top = np.empty(len(places)), np.empty(len(places), dtype=np.bool_)
        for start in range(0, len(unique), HEAD_ROWS):
            here = np.flatnonzero((inverse >= start) & (inverse < start + HEAD_ROWS))
            rows = torch.from_numpy(unique[start : start + HEAD_ROWS]).to(hidden.device)
            part = read_logits(head(self.model, hidden[rows]), (inverse[here] - start).tolist(), tokens[here].tolist())
            logprobs[here], is_top[here] = part.logprobs_nats, part.is_top
        return TokenReading(logprobs, is_top)


def body(model: LoadedModel) -> Any:
    """The model without its output head."""
    return model.module.base_model


def head(model: LoadedModel, hidden: Tensor) -> Tensor:
    """The logits of hidden states, with what the config lays over the output layer (Gemma 2: a cap; Cohere, Granite: a scale).

    What is not known here shows as a difference to the plain path, and the model is scored there.
    """
    logits: Tensor = model.module.get_output_embeddings()(hidden)  # type: ignore[operator]
    config: Any = model.module.config
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def _padded_tokens(tries: Sequence[Trie]) -> int:
    return len(tries) * max(trie.n_nodes for trie in tries)


def _beside_each_row(kept: Kept, n_rows: int) -> DynamicCache:
    """A stem's keys and values before every row of a batch."""
    return DynamicCache([(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1)) for keys, values in kept])


def deepest_path(config: Any) -> int | None:
    """How long a path may be before a sliding or chunked window would cut it: a mask of ours replaces the model's own.

    None: as long as the model's window.
    """
    limits = [getattr(config, key, None) for key in _WINDOW_KEYS]
    return min((limit for limit in limits if isinstance(limit, int)), default=None)


def _split(reading: TokenReading, tries: Sequence[Trie]) -> list[list[TokenReading]]:
    """One batch's reading cut into each trie's requests."""
    made: list[list[TokenReading]] = []
    start = 0
    for trie in tries:
        made.append([])
        for request in trie.reads:
            part = slice(start, start + len(request))
            made[-1].append(TokenReading(reading.logprobs_nats[part], reading.is_top[part]))
            start = part.stop
    return made
