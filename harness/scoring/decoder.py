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
from harness.scoring.answers import AGREE_NATS, PartsDone, broken_score, check_looks_left
from harness.scoring.encode import Encoded, window_tokens
from harness.scoring.memory import Halving
from harness.scoring.plain import BUDGET_TOKENS, score_plain
from harness.scoring.readout import TokenReading
from harness.scoring.rolling import encode_pieces
from harness.scoring.rooted import choose_roots, keep_root
from harness.scoring.stems import SHORTEST_STEM_TOKENS, Stem, find_stems, tokens_to_feed
from harness.scoring.tree import TreeEngine, body, deepest_path
from harness.scoring.trie import Trie, make_tries

ScoringPath = Literal["tree", "plain"]
Held = Literal["tree", "stems"]

BATCH_TOKENS = 1024
"""Padded tokens fed at once: enough to keep two cores busy, small enough for their caches (measured on SmolLM2-135M)."""

MAX_TRIE_NODES = 4096
"""A larger group is cut into several tries: a mask has nodes² entries."""

_ROPE_BY_BATCH = ("dynamic", "longrope")
"""Rotary scalings that depend on the longest row of a batch: such models are fed one request at a time."""


class DecoderScorer:
    """Scores requests with a loaded decoder. ``path`` says how: "tree", or "plain" where the model can't take tree masks.

    The choice is made at construction by comparing both on a small probe, or forced. Groups that reach beyond a sliding
    window are always scored plainly. ``keeps_stems``: whether what several groups begin with (at least ``shortest_stem``
    tokens) is fed once for all of them, which the probe must allow, too. ``tokens_fed`` counts fed tokens, padding left out.
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
        batch_tokens: int = BATCH_TOKENS,
        path: Literal["auto", "tree", "plain"] = "auto",
        shortest_stem: int = SHORTEST_STEM_TOKENS,
        progress: Progress | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}: expected at least 1.")
        module: Any = model.module
        config = module.config
        rope = getattr(config, "rope_parameters", None) or {}
        row_by_row = rope.get("rope_type") in _ROPE_BY_BATCH
        roots = model.soft_roots
        self._model = model
        self._roots: tuple[SoftRoot, ...] = roots.roots if roots else (SoftRoot(keys_values=()),)
        self._kept: dict[int, KeysValues | None] = {}
        self._halving = Halving()
        self._engine = TreeEngine(model, batch_tokens, self._halving)
        self._plain_tokens = 1 if row_by_row else min(batch_tokens, BUDGET_TOKENS)
        whole_window = window_tokens(config, model.tokenizer)
        taken = roots.most_positions if roots else 0
        self._window = _left_of_window(whole_window, taken)
        self._deepest = min(self._window, (deepest_path(config) or whole_window) - taken)
        self._shortest_stem = shortest_stem
        self._progress = progress
        self.tokens_fed = 0
        check_looks_left(model, lambda ids: module(input_ids=ids, use_cache=False).logits, self._window)
        untried = path == "plain" or (path == "auto" and row_by_row)
        longest = max(self._roots, key=lambda root: root.n_positions)
        holds: set[Held] = set() if untried else _what_holds(model, self._deepest, longest)
        self.path: ScoringPath = path if path != "auto" else "tree" if "tree" in holds else "plain"
        self.keeps_stems = "stems" in holds

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
        return [
            [
                _score([next(in_order[g]) for _ in fed], request, self._model)
                for request, fed in zip(group, pieces[g], strict=True)
            ]
            for g, group in enumerate(groups)
        ]

    def _read(
        self, root: int, plan: _Plan, encoded: Sequence[Sequence[Encoded]], done: PartsDone
    ) -> dict[tuple[int, int], TokenReading]:
        """What is read behind one root, by group and request."""
        tries, plain = plan.tries, plan.plain
        readings: dict[tuple[int, int], TokenReading] = {}
        stems = find_stems(tries, self._shortest_stem if self.keeps_stems else None)
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
            if self.path == "tree" and longest <= self._deepest:
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


def _left_of_window(window: int, taken: int) -> int:
    """What a root leaves of the window. Raises ConfigError where that is nothing."""
    if taken >= window:
        raise ConfigError(
            f"the soft prompt takes {taken} positions, the model {window} in all: expected room for a text behind it; train a "
            "shorter one."
        )
    return window - taken


def _score(readings: Sequence[TokenReading], request: Request, model: LoadedModel) -> Score:
    loglik = sum(float(reading.logprobs_nats.sum()) for reading in readings)
    if not np.isfinite(loglik):
        raise broken_score(request, loglik, model)
    return Score(loglik, all(bool(r.is_top.all()) for r in readings), sum(len(r.is_top) for r in readings))


# ------------------------------------------------------------------------------------------------ does the tree path hold?


def _what_holds(model: LoadedModel, deepest: int, root: SoftRoot) -> set[Held]:
    """Whether the tree path, and stems on it, give this model's plain scores on a probe with branches, roots and padding,
    behind a soft root.

    What a wrong mask or a missing cap does is far larger in trained models than ``AGREE_NATS``.
    """
    groups = _probe(model.module.get_input_embeddings().num_embeddings, deepest)  # type: ignore[operator]
    tries = [trie for group, requests in enumerate(groups) for trie in make_tries(group, requests, max_nodes=MAX_TRIE_NODES)]
    requests = [request for group in groups for request in group]
    plain = score_plain(model, requests, root=root)
    noise_nats = _largest_difference(plain, score_plain(model, requests, budget_tokens=1, root=root))
    # weights ruined by compression multiply rounding errors
    tolerance_nats = max(AGREE_NATS[model.dtype], 10 * noise_nats)
    engine = TreeEngine(model, budget_tokens=MAX_TRIE_NODES)
    ways: dict[Held, list[Stem]] = {"tree": find_stems(tries, None), "stems": find_stems(tries, 2)}
    by_way = {held: _try_tree(engine, tries, stems, root) for held, stems in ways.items()}
    return {held for held, tree in by_way.items() if tree and _largest_difference(tree, plain) <= tolerance_nats}


def _try_tree(engine: TreeEngine, tries: Sequence[Trie], stems: Sequence[Stem], root: SoftRoot) -> list[TokenReading] | None:
    """The readings on the tree path, or None where the architecture does not take it."""
    try:
        by_trie = engine.score(tries, stems, root=keep_root(body(engine.model), root))
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
        return None  # an architecture that takes no 4-D mask, no positions or no keys and values says so in many ways
    return [reading for readings in by_trie for reading in readings]


def _largest_difference(some: Sequence[TokenReading], others: Sequence[TokenReading]) -> float:
    return float(max(np.abs(a.logprobs_nats - b.logprobs_nats).max() for a, b in zip(some, others, strict=True)))


def _probe(vocabulary: int, deepest: int) -> list[list[Encoded]]:
    """Groups of made-up requests, cut to ``deepest``: a stem with branches of several depths, a second root, a shared stem."""

    def tokens(start: int, n: int) -> tuple[int, ...]:
        return tuple((start + 17 * i * i + 5 * i) % vocabulary for i in range(n))

    stem = tokens(11, 6)
    branches = [stem + tokens(start, n) for start, n in ((101, 4), (203, 2), (307, 5))]
    deeper = branches[0] + tokens(409, 3)
    other_root = tokens(29, 5)
    groups = ([*branches, deeper, other_root], [stem], branches, [stem + other_root, stem + tokens(53, 7)])
    cut = [[path[: deepest + 1] for path in group] for group in groups]
    # the first two are read from their first token on, the others after what they share
    n_before = (1, 1, len(stem) - 1, len(stem) - 1)
    return [[Encoded(path, max(1, len(path) - n)) for path in group] for group, n in zip(cut, n_before, strict=True)]


def _groups_of(plain: Sequence[tuple[int, int]], done: PartsDone) -> Callable[[Sequence[int]], None]:
    return lambda batch: done.tell(plain[position][0] for position in batch)
