"""The scorer of causal decoders: log-likelihoods by lm-eval's convention, each distinct token of a group fed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from harness.core.errors import ConfigError
from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues, SoftRoot
from harness.scoring import Progress, Reading, Request, Score
from harness.scoring.answers import PartsDone, broken_score, check_looks_left
from harness.scoring.encode import Encoded, window_tokens
from harness.scoring.holds import find_layout
from harness.scoring.limits import deepest_path, rope_by_batch
from harness.scoring.memory import Halving
from harness.scoring.plain import BUDGET_TOKENS, score_plain
from harness.scoring.products import multiplies_by_onednn
from harness.scoring.readout import TokenReading
from harness.scoring.rolling import encode_pieces
from harness.scoring.rooted import body, choose_roots, keep_root, room_beside_roots
from harness.scoring.stems import PASS_TOKENS, find_stems, tokens_to_feed
from harness.scoring.tree import Layout, TreeEngine
from harness.scoring.trie import Trie, make_tries

ScoringPath = Literal["packed", "padded", "plain"]

BATCH_TOKENS = 1024
"""Tokens fed at once: enough to keep two cores busy, small enough for their caches (measured on SmolLM2-135M)."""

MORE_BATCH_TOKENS = 3072
"""The same where products are so fast that everything beside them counts: 1 to 6 % less time than with 1,024."""

MAX_TRIE_NODES = 4096
"""A larger group is cut into several tries: a mask has nodes² entries."""


class DecoderScorer:
    """Scores requests with a loaded decoder. ``path`` says how: tries "packed" side by side, "padded" where attention can't be
    ours, or "plain" where the model can't take tree masks either.

    The choice is made at construction by comparing them on a small probe, or forced. Groups that reach beyond a sliding
    window are always scored plainly. ``keeps_stems``: whether what several groups begin with is fed once for all, where that
    saves more than ``pass_tokens`` tokens; the probe must allow it, too. ``tokens_fed`` counts fed tokens, padding left out.
    """

    identities: ClassVar[dict[Reading, str]] = {
        "continuation": "loglikelihood/1",
        "sentence": "loglikelihood/1",
        "blank": "loglikelihood/1",
        "rolling": "rolling/1",
    }

    def __init__(
        self,
        model: LoadedModel,
        *,
        batch_tokens: int | None = None,
        path: Literal["auto", "packed", "padded", "plain"] = "auto",
        pass_tokens: int = PASS_TOKENS,
        progress: Progress | None = None,
    ) -> None:
        if batch_tokens is None:
            batch_tokens = MORE_BATCH_TOKENS if multiplies_by_onednn(model.device, model.dtype) else BATCH_TOKENS
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}: expected at least 1.")
        module: Any = model.module
        config = module.config
        row_by_row = rope_by_batch(config)
        roots = model.soft_roots
        self._model = model
        self._roots: tuple[SoftRoot, ...] = roots.roots if roots else (SoftRoot(keys_values=()),)
        self._kept: dict[int, KeysValues | None] = {}
        self._halving = Halving()
        self._plain_tokens = 1 if row_by_row else min(batch_tokens, BUDGET_TOKENS)
        whole_window = window_tokens(config, model.tokenizer)
        self._window = room_beside_roots(model, whole_window)
        self._deepest = min(self._window, self._window - whole_window + (deepest_path(config) or whole_window))
        self._pass_tokens = pass_tokens
        self._progress = progress
        self.tokens_fed = 0
        check_looks_left(model, lambda ids: module(input_ids=ids, use_cache=False).logits, self._window)
        layouts: Sequence[Layout] = ("packed", "padded") if path == "auto" else () if path == "plain" else (path,)
        if any(root.is_uneven for root in self._roots):  # one mask can't serve layers that keep different numbers of keys
            layouts = [layout for layout in layouts if layout == "packed"]
        longest = max(self._roots, key=lambda root: root.n_positions)
        untried = (path == "auto" and row_by_row) or self._deepest < 2
        held = None if untried else find_layout(model, layouts, self._deepest, longest)
        self.path: ScoringPath = path if path != "auto" and layouts else held.layout if held else "plain"
        self.keeps_stems = held is not None and held.keeps_stems
        layout: Layout = "padded" if self.path == "padded" else "packed"
        self._engine = TreeEngine(model, batch_tokens, layout, self._halving, held.lean if held else {})

    def score(self, groups: Sequence[Sequence[Request]]) -> list[list[Score]]:
        """The scores of each group's requests, in order. Raises ScoreError for a score that is not finite."""
        pieces = encode_pieces(groups, self._model, self._window)
        roots = choose_roots(groups, pieces, self._model, self._window)
        encoded = [[piece for request in group for piece in request] for group in pieces]
        behind = [
            [root for root, fed in zip(row, group, strict=True) for _ in fed] for row, group in zip(roots, pieces, strict=True)
        ]
        plans = {root: self._plan(encoded, behind, root) for root in sorted({root for row in behind for root in row})}
        parts = [part for plan in plans.values() for part in plan.groups]
        done = PartsDone(self._progress, len(groups), parts)
        readings: dict[tuple[int, int], TokenReading] = {}
        for root, plan in plans.items():
            readings.update(self._read(root, plan, encoded, done))
        in_order = [iter([readings[g, r] for r in range(len(row))]) for g, row in enumerate(encoded)]
        has_choice = len(self._roots) > 1
        return [
            [
                _score(
                    [next(in_order[g]) for _ in fed],
                    request,
                    self._model,
                    n_cut=sum(piece.n_cut for piece in fed),
                    root=root if has_choice else None,
                )
                for request, fed, root in zip(group, pieces[g], roots[g], strict=True)
            ]
            for g, group in enumerate(groups)
        ]

    def _read(
        self, root: int, plan: _Plan, encoded: Sequence[Sequence[Encoded]], done: PartsDone
    ) -> dict[tuple[int, int], TokenReading]:
        """What is read behind one root, by group and request."""
        tries, plain = plan.tries, plan.plain
        readings: dict[tuple[int, int], TokenReading] = {}
        stems = find_stems(tries, 1 if self.keeps_stems else None, pass_tokens=self._pass_tokens)
        kept = self._keep(root) if tries else None
        by_trie = self._engine.score(
            tries, stems, lambda batch: done.tell(tries[position].group for position in batch), root=kept
        )
        for trie, rows in zip(tries, by_trie, strict=True):
            readings.update(zip(((trie.group, request) for request in trie.requests), rows, strict=True))
        requests = [encoded[group][request] for group, request in plain]
        made = score_plain(
            self._model,
            requests,
            budget_tokens=self._plain_tokens,
            halving=self._halving,
            done=_groups_of(plain, done),
            root=self._roots[root],
        )
        readings.update(zip(plain, made, strict=True))
        self.tokens_fed += tokens_to_feed(tries, stems) + sum(len(request.tokens) - 1 for request in requests)
        return readings

    def _keep(self, root: int) -> KeysValues | None:
        """The keys and values of a root, made when it is first asked for."""
        if root not in self._kept:
            self._kept[root] = keep_root(body(self._model), self._roots[root])
            self.tokens_fed += self._roots[root].n_positions if self._roots[root].embeddings is not None else 0
        return self._kept[root]

    def _plan(self, encoded: Sequence[Sequence[Encoded]], behind: Sequence[Sequence[int]], root: int) -> _Plan:
        """How to feed what is asked behind one root."""
        plan = _Plan([], [])
        for group, requests in enumerate(encoded):
            here = [request for request, chosen in enumerate(behind[group]) if chosen == root]
            longest = max((len(requests[request].tokens) - 1 for request in here), default=0)
            if self.path != "plain" and longest <= self._deepest:
                plan.tries.extend(make_tries(group, requests, max_nodes=MAX_TRIE_NODES, only=here))
            else:
                plan.plain.extend((group, request) for request in here)
        return plan


@dataclass(frozen=True, slots=True)
class _Plan:
    """The tries to feed, and the (group, request) pairs that are fed plainly."""

    tries: list[Trie]
    plain: list[tuple[int, int]]

    @property
    def groups(self) -> list[int]:
        """The group of each part."""
        return [trie.group for trie in self.tries] + [group for group, _ in self.plain]


def _score(readings: Sequence[TokenReading], request: Request, model: LoadedModel, *, n_cut: int, root: int | None) -> Score:
    loglik = sum(float(reading.logprobs_nats.sum()) for reading in readings)
    if not np.isfinite(loglik):
        raise broken_score(request, loglik, model)
    return Score(
        loglik,
        is_greedy=all(bool(reading.is_top.all()) for reading in readings),
        n_tokens=sum(len(reading.is_top) for reading in readings),
        lead_nats=min(float(reading.leads_nats.min()) for reading in readings),
        n_cut=n_cut,
        root=root,
    )


def _groups_of(plain: Sequence[tuple[int, int]], done: PartsDone) -> Callable[[Sequence[int]], None]:
    return lambda batch: done.tell(plain[position][0] for position in batch)
