"""The tree path: batches of tries fed side by side, the output head only where a score is read.

What several tries begin with, their stem, is fed once; its keys and values then stand before each of them, behind those of a
soft root, where the model has one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues
from harness.scoring.lean import Forward, computing_in_place
from harness.scoring.memory import Halving, is_out_of_memory, make_room
from harness.scoring.packed import feed_packed, keep_packed
from harness.scoring.padded import feed_padded
from harness.scoring.plan import plan_batches, plan_packed
from harness.scoring.readout import TokenReading, read_logits
from harness.scoring.rooted import body, keep, n_positions
from harness.scoring.stems import Stem
from harness.scoring.trie import Trie

log = logging.getLogger(__name__)

Layout = Literal["packed", "padded"]
"""How the tries of a batch stand side by side: in one row without padding, or a row each."""

KEPT_TOKENS = 8192
"""Kept positions that stand before the rows of a padded batch, rows x (root + stem): more make the rows fewer."""

HEAD_ROWS = 512
"""Positions whose logits are made at once, at most: 512 x 50,000 in float32 are 100 MB."""

HEAD_BYTES = 30_000_000
"""Logits that are made at once where each time a new tensor is: larger ones get fresh pages from the system every time, which
costs a quarter of the product."""

FEWEST_HEAD_ROWS = 32
"""Fewer are multiplied too slowly, however many bytes they are."""


@dataclass(frozen=True, slots=True)
class TreeEngine:
    """Scores tries. Only valid where ``DecoderScorer`` found it to agree with the plain path. ``lean``: modules that compute
    in place meanwhile."""

    model: LoadedModel
    budget_tokens: int
    layout: Layout = "packed"
    halving: Halving = field(default_factory=Halving)
    lean: dict[nn.Module, Forward] = field(default_factory=dict)
    _rooms: list[Tensor] = field(default_factory=list)

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
            kept = self._keep(stem.tokens, root) if n_stem else root
            for batch in self._plan([tries[position].n_nodes - n_stem for position in stem.members], n_positions(kept)):
                positions = [stem.members[row] for row in batch]
                chosen = [tries[position] for position in positions]
                with torch.inference_mode(), computing_in_place(self.lean):
                    score_batch = partial(self._score_batch, kept=kept, n_stem=n_stem)
                    made = self.halving.feed(chosen, self._n_tokens, score_batch)
                readings.update(zip(positions, made, strict=True))
                if done:
                    done(positions)
        return [readings[position] for position in range(len(tries))]

    def _keep(self, tokens: Sequence[int], before: KeysValues | None) -> KeysValues:
        """The keys and values of a stem behind what is kept; where memory runs out, half of it is fed after the other."""
        try:
            with computing_in_place(self.lean):
                if self.layout == "packed":
                    return keep_packed(self.model, tokens, before)
                return keep(body(self.model), tokens, before, self.model.device)
        except RuntimeError as error:
            if len(tokens) == 1 or not is_out_of_memory(error):
                raise
        log.warning("a beginning of %s tokens is too much for the memory: fed in halves", f"{len(tokens):,}")
        make_room()
        middle = len(tokens) // 2
        return self._keep(tokens[middle:], self._keep(tokens[:middle], before))

    def _plan(self, lengths: Sequence[int], n_kept: int) -> list[list[int]]:
        if self.layout == "packed":
            return plan_packed(lengths, budget_tokens=self.budget_tokens)
        most_rows = max(1, KEPT_TOKENS // n_kept) if n_kept else None
        return plan_batches(lengths, budget_tokens=self.budget_tokens, most_rows=most_rows)

    def _n_tokens(self, tries: Sequence[Trie]) -> int:
        lengths = [trie.n_nodes for trie in tries]
        return sum(lengths) if self.layout == "packed" else len(tries) * max(lengths)

    def _score_batch(self, tries: Sequence[Trie], kept: KeysValues | None, n_stem: int) -> list[list[TokenReading]]:
        feed = feed_packed if self.layout == "packed" else feed_padded
        hidden, starts = feed(self.model, tries, kept, n_stem)
        reads = [
            (int(start) + node - n_stem, token)
            for start, trie in zip(starts, tries, strict=True)
            for request in trie.reads
            for node, token in request
        ]
        places = np.array([place for place, _ in reads])
        tokens = np.array([token for _, token in reads])
        return _split(self._read(hidden, places, tokens), tries)

    def _read(self, hidden: Tensor, places: Int[np.ndarray, " reads"], tokens: Int[np.ndarray, " reads"]) -> TokenReading:
        """Read tokens off places of ``hidden`` [places, hidden], each place's logits made once."""
        unique, inverse = np.unique(places, return_inverse=True)
        made = TokenReading.empty(len(places))
        most = self._head_rows()
        for start in range(0, len(unique), most):
            here = np.flatnonzero((inverse >= start) & (inverse < start + most))
            rows = torch.from_numpy(unique[start : start + most]).to(hidden.device)
            logits = head(self.model, hidden[rows], self._room(hidden))
            made.put(here, read_logits(logits, (inverse[here] - start).tolist(), tokens[here].tolist()))
        return made

    def _head_rows(self) -> int:
        layer = self.model.module.get_output_embeddings()  # type: ignore[operator]
        if layer not in self.lean:
            return HEAD_ROWS
        row_bytes: int = layer.weight.element_size() * layer.weight.shape[0]
        return min(HEAD_ROWS, max(FEWEST_HEAD_ROWS, HEAD_BYTES // row_bytes))

    def _room(self, hidden: Tensor) -> Tensor:
        """Where logits are written, batch after batch, if the head writes there."""
        if not self._rooms:
            vocabulary = self.model.module.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
            self._rooms.append(hidden.new_empty((HEAD_ROWS, vocabulary)))
        return self._rooms[0]


def head(model: LoadedModel, hidden: Tensor, room: Tensor | None = None) -> Tensor:
    """The logits of hidden states, with what the config lays over the output layer (Gemma 2: a cap; Cohere, Granite: a scale).

    ``room`` [rows, vocabulary] is written to where the layer is a plain matrix: a new tensor of this size costs a quarter of
    the product. What is not known here shows as a difference to the plain path, and the model is scored there.
    """
    layer: Any = model.module.get_output_embeddings()  # type: ignore[operator]
    if room is not None and _is_plain_matrix(layer):
        logits: Tensor = torch.mm(hidden, layer.weight.T, out=room[: len(hidden)])
    else:
        logits = layer(hidden)
    config: Any = model.module.config
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def _is_plain_matrix(layer: Any) -> bool:
    """Whether a layer does nothing but multiply: no bias, nothing hung on it, nothing in place of its own code."""
    if type(layer) is not nn.Linear or getattr(layer, "bias", None) is not None:
        return False
    return not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))


def _split(reading: TokenReading, tries: Sequence[Trie]) -> list[list[TokenReading]]:
    """One batch's reading cut into each trie's requests."""
    made: list[list[TokenReading]] = []
    start = 0
    for trie in tries:
        made.append([])
        for request in trie.reads:
            part = slice(start, start + len(request))
            made[-1].append(reading.take(part))
            start = part.stop
    return made
