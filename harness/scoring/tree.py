"""The tree path: tries fed as rows of one batch under a 4-D mask, the output head only where a score is read.

What several tries begin with, their stem, is fed once; its keys and values then stand before each row, behind those of a
soft root, where the model has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues
from harness.scoring.memory import Halving
from harness.scoring.plan import plan_batches
from harness.scoring.readout import TokenReading, read_logits
from harness.scoring.rooted import beside_each_row, keep, n_positions
from harness.scoring.stems import Stem
from harness.scoring.trie import Trie

KEPT_TOKENS = 8192
"""Kept positions that stand before the rows of a batch, rows x (root + stem): more make the rows fewer."""

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
        self,
        tries: Sequence[Trie],
        stems: Sequence[Stem],
        done: Callable[[Sequence[int]], None] | None = None,
        *,
        root: KeysValues | None = None,
    ) -> list[list[TokenReading]]:
        """For each trie its requests' readings, in order. ``done`` gets each batch's positions; ``root`` stands before all."""
        readings: dict[int, list[TokenReading]] = {}
        for stem in stems:
            n_stem = len(stem.tokens)
            kept = keep(body(self.model), stem.tokens, root, self.model.device) if n_stem else root
            rows = [tries[position].n_nodes - n_stem for position in stem.members]
            most_rows = max(1, KEPT_TOKENS // n_positions(kept)) if kept else None
            for batch in plan_batches(rows, budget_tokens=self.budget_tokens, most_rows=most_rows):
                chosen = [tries[stem.members[row]] for row in batch]
                with torch.inference_mode():
                    score_batch = partial(self._score_batch, kept=kept, n_stem=n_stem)
                    made = self.halving.feed(chosen, _padded_tokens, score_batch)
                positions = [stem.members[row] for row in batch]
                readings.update(zip(positions, made, strict=True))
                if done:
                    done(positions)
        return [readings[position] for position in range(len(tries))]

    def _score_batch(self, tries: Sequence[Trie], kept: KeysValues | None, n_stem: int) -> list[list[TokenReading]]:
        hidden = self._feed(tries, kept, n_stem)
        width = hidden.shape[1]
        reads = [
            (row * width + node - n_stem, token)
            for row, trie in enumerate(tries)
            for request in trie.reads
            for node, token in request
        ]
        places = np.array([place for place, _ in reads])
        tokens = np.array([token for _, token in reads])
        reading = self._read(hidden.flatten(0, 1), places, tokens)
        return _split(reading, tries)

    def _feed(self, tries: Sequence[Trie], kept: KeysValues | None, n_stem: int) -> Tensor:
        """The body's last hidden states of what comes after the stem, [tries, widest trie - stem, hidden]."""
        n_kept = n_positions(kept)
        n_root = n_kept - n_stem
        width = max(trie.n_nodes for trie in tries) - n_stem
        ids = np.zeros((len(tries), width), dtype=np.int64)
        positions = np.full_like(ids, n_kept)
        visible = np.zeros((len(tries), width, n_kept + width), dtype=np.bool_)
        visible[:, :, n_kept:] = np.eye(width, dtype=np.bool_)  # padding sees itself
        for row, trie in enumerate(tries):
            n = trie.n_nodes - n_stem
            ids[row, :n], positions[row, :n] = trie.tokens[n_stem:], n_root + trie.depths[n_stem:]
            visible[row, :n, :n_kept] = True
            visible[row, :n, n_kept : n_kept + n] = trie.visible()[n_stem:, n_stem:]
        device, dtype = self.model.device, next(self.model.module.parameters()).dtype
        mask = torch.zeros((len(tries), 1, width, n_kept + width), dtype=dtype, device=device)
        mask.masked_fill_(~torch.from_numpy(visible).to(device)[:, None], torch.finfo(dtype).min)
        before = {} if kept is None else {"past_key_values": beside_each_row(kept, len(tries))}
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
