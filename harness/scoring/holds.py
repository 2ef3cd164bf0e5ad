"""Does the tree path hold for a model? Found by comparing it with the plain path: no list of architectures could know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from torch import nn

from harness.models.loaded import LoadedModel
from harness.models.roots import SoftRoot
from harness.scoring.answers import AGREE_NATS
from harness.scoring.encode import Encoded
from harness.scoring.lean import Forward, lean_forwards
from harness.scoring.plain import score_plain
from harness.scoring.products import product_forwards
from harness.scoring.readout import TokenReading
from harness.scoring.rooted import body, keep_root
from harness.scoring.stems import Stem, find_stems
from harness.scoring.tree import Layout, TreeEngine
from harness.scoring.trie import Trie, make_tries

MANY_NODES = 4096
"""More than the probe has: it is one batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A layout that gives the plain scores, whether it does so behind a stem that is fed once, and the modules that compute in
    place meanwhile."""

    layout: Layout
    keeps_stems: bool
    lean: dict[nn.Module, Forward]


def find_layout(model: LoadedModel, layouts: Sequence[Layout], deepest: int, root: SoftRoot) -> Held | None:
    """The first of ``layouts`` that gives this model's plain scores on a probe with branches, roots and padding, behind a soft
    root; None where none does.

    What a wrong mask or a missing cap does is far larger in trained models than ``AGREE_NATS``.
    """
    if not layouts:
        return None
    groups = _probe(model.module.get_input_embeddings().num_embeddings, deepest)  # type: ignore[operator]
    tries = [trie for group, requests in enumerate(groups) for trie in make_tries(group, requests, max_nodes=MANY_NODES)]
    requests = [request for group in groups for request in group]
    plain = score_plain(model, requests, root=root)
    noise_nats = _largest_difference(plain, score_plain(model, requests, budget_tokens=1, root=root))
    # weights ruined by compression multiply rounding errors
    tolerance_nats = max(AGREE_NATS[model.dtype], 10 * noise_nats)
    lean, products = lean_forwards(model), product_forwards(model)
    ways = [lean_forwards(model, last_where_read=True), lean, {}] if lean else [{}]
    for layout, way in product(layouts, ways):
        forwards = way | products
        engine = TreeEngine(model, MANY_NODES, layout, lean=forwards)
        made = [_try_tree(engine, tries, find_stems(tries, shortest), root) for shortest in (None, 2)]
        holds = [tree is not None and _largest_difference(tree, plain) <= tolerance_nats for tree in made]
        if holds[0]:
            return Held(layout, keeps_stems=holds[1], lean=forwards)
    return None


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
