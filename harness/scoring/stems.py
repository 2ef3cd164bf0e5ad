"""Beginnings that several tries share (few-shot examples, a description of the task): fed once, their keys and values kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.scoring.trie import Trie

SHORTEST_STEM_TOKENS = 32
"""Where texts are generated: a shorter one costs more, as a pass of its own, than it saves."""

PASS_TOKENS = 64
"""Where requests are scored: a stem takes a pass through all weights by itself, which costs about as much as so many tokens
beside others."""

_Block = tuple[int, int, int, list[tuple[int, int, int]]]
"""Places low to high of the sorted beginnings, the tokens that its stems save, and these as (low, high, length)."""


@dataclass(frozen=True, slots=True)
class Stem:
    """The ``tokens`` that the tries at the positions ``members`` begin with; none: tries that are fed whole."""

    tokens: tuple[int, ...]
    members: tuple[int, ...]


def find_stems(tries: Sequence[Trie], shortest: int | None, *, pass_tokens: int = 0) -> list[Stem]:
    """The tries parted by what they begin with, so that the fewest tokens are fed when each stem is fed once, and each costs
    ``pass_tokens`` more.

    Every trie is in one stem, of at least ``shortest`` tokens (None: fed whole); of stems within stems the one that saves
    most is taken. The longest comes first.

    >>> from harness.scoring.encode import Encoded
    >>> from harness.scoring.trie import make_tries
    >>> paths = [(7, 8, 1, 1, 0), (7, 8, 1, 2, 0), (7, 8, 1, 3, 0), (7, 9, 4, 0)]
    >>> tries = [make_tries(i, [Encoded(path, 1)], max_nodes=9)[0] for i, path in enumerate(paths)]
    >>> find_stems(tries, shortest=2)
    [Stem(tokens=(7, 8, 1), members=(0, 1, 2)), Stem(tokens=(), members=(3,))]
    """
    beginnings = [() if shortest is None else _beginning(trie) for trie in tries]
    order = sorted(range(len(tries)), key=lambda position: (beginnings[position], position))
    stems = [
        Stem(beginnings[order[low]][:length], tuple(sorted(order[low:high])))
        for low, high, length in _best_parts([beginnings[position] for position in order], shortest or 1, pass_tokens)
    ]
    stems.sort(key=lambda stem: (-len(stem.tokens), stem.members))
    alone = set(order).difference(*(stem.members for stem in stems))
    return [*stems, Stem((), tuple(sorted(alone)))] if alone else stems


def tokens_to_feed(tries: Sequence[Trie], stems: Sequence[Stem]) -> int:
    """How many tokens are fed, padding left out."""
    saved = sum((len(stem.members) - 1) * len(stem.tokens) for stem in stems)
    return sum(trie.n_nodes for trie in tries) - saved


def _beginning(trie: Trie) -> tuple[int, ...]:
    """The tokens that all requests of a trie begin with, up to the first after which something is read."""
    if int((trie.parents < 0).sum()) != 1:
        return ()
    n_children = np.bincount(trie.parents[1:], minlength=trie.n_nodes)
    until = 1 + int(np.flatnonzero(n_children != 1)[0])  # a leaf at the latest
    return tuple(trie.tokens[: min(until, int(trie.nodes_read[0]))].tolist())


def _best_parts(beginnings: Sequence[tuple[int, ...]], shortest: int, pass_tokens: int) -> list[tuple[int, int, int]]:
    """Stretches (low, high, shared length) of sorted beginnings that save most when each stretch's stem is fed once and costs
    ``pass_tokens`` more; none of them costs more than it saves.

    Neighbours are joined from the longest common beginning to the shortest; a stretch that was joined keeps its parts'
    stems where these save more than the one of all.
    """
    common = [_n_common(a, b) for a, b in pairwise(beginnings)]
    blocks: dict[int, _Block] = {i: (i, i + 1, 0, []) for i in range(len(beginnings))}  # by their first places
    first = {i + 1: i for i in range(len(beginnings))}  # the first places of blocks by their ends
    for left in sorted(range(len(common)), key=lambda i: (-common[i], i)):
        length = common[left]
        if length < shortest:
            break
        low, middle, saved_left, parts_left = blocks.pop(first.pop(left + 1))
        _, high, saved_right, parts_right = blocks.pop(middle)
        saved_as_one, saved_apart = (high - low - 1) * length - pass_tokens, saved_left + saved_right
        if saved_as_one >= saved_apart and saved_as_one > 0:
            blocks[low] = (low, high, saved_as_one, [(low, high, length)])
        else:
            blocks[low] = (low, high, saved_apart, parts_left + parts_right)
        first[high] = low
    return [part for _, _, _, parts in blocks.values() for part in parts]


def _n_common(a: Sequence[int], b: Sequence[int]) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
