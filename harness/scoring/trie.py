"""The tokens of a group of requests as a trie, so that each distinct prefix is fed once.

The nodes stand in one row, parents before children. A node attends to itself and its ancestors and has its depth as its
position: so it is computed exactly as if its path were fed alone. The last token of a continuation is never fed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from harness.scoring.encode import Encoded


@dataclass(frozen=True, slots=True, eq=False)
class Trie:
    """A token trie over some requests of a group.

    ``reads``: for each request its scored tokens as (node after which the token comes, token).
    """

    group: int
    requests: tuple[int, ...]
    tokens: Int[np.ndarray, " nodes"]
    parents: Int[np.ndarray, " nodes"]
    depths: Int[np.ndarray, " nodes"]
    reads: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def n_nodes(self) -> int:
        """How many tokens are fed."""
        return len(self.tokens)

    @property
    def nodes_read(self) -> Int[np.ndarray, " read"]:
        """The nodes after which something is read, in order, each once."""
        return np.unique([node for request in self.reads for node, _ in request])

    @property
    def n_chain(self) -> int:
        """How many nodes stand before the first branch: each the parent of the next."""
        follows = self.parents == np.arange(-1, self.n_nodes - 1)
        return self.n_nodes if follows.all() else int(np.argmin(follows))

    def visible(self) -> Bool[np.ndarray, "nodes nodes"]:
        """Which nodes (columns) each node (row) attends to: its ancestors and itself.

        >>> make_tries(0, [Encoded((5, 6, 7), 1), Encoded((5, 8, 9), 1)], max_nodes=9)[0].visible().astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
        """
        seen = np.eye(self.n_nodes, dtype=np.bool_)
        n_chain = self.n_chain
        seen[:n_chain, :n_chain] = np.tri(n_chain, dtype=np.bool_)
        for node, parent in enumerate(self.parents[n_chain:].tolist(), start=n_chain):
            if parent >= 0:
                seen[node, :node] = seen[parent, :node]
        return seen


def make_tries(group: int, requests: Sequence[Encoded], *, max_nodes: int, only: Collection[int] | None = None) -> list[Trie]:
    """The trie of a group; several where one would outgrow ``max_nodes`` (a single longer request still makes one). ``only``:
    of these requests alone.

    >>> [t.tokens.tolist() for t in make_tries(0, [Encoded((5, 6, 7), 1), Encoded((5, 8, 9), 1)], max_nodes=9)]
    [[5, 6, 8]]
    """
    tries: list[Trie] = []
    growing = _Growing()
    for index, request in enumerate(requests):
        if only is not None and index not in only:
            continue
        if growing.requests and growing.size_with(request.tokens[:-1]) > max_nodes:
            tries.append(growing.freeze(group))
            growing = _Growing()
        growing.add(index, request)
    if growing.requests:
        tries.append(growing.freeze(group))
    return tries


class _Growing:
    """A trie under construction: nodes by (parent, token), in order of first appearance."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[int, int], int] = {}
        self.depths: list[int] = []
        self.requests: list[int] = []
        self.reads: list[tuple[tuple[int, int], ...]] = []

    def add(self, index: int, request: Encoded) -> None:
        tokens, path, node = request.tokens, [], -1
        for depth, token in enumerate(tokens[:-1]):
            known = self.nodes.get((node, token))
            if known is None:
                known = self.nodes[node, token] = len(self.depths)
                self.depths.append(depth)
            node = known
            path.append(node)
        n = request.n_scored
        self.requests.append(index)
        self.reads.append(tuple(zip(path[-n:], tokens[-n:], strict=True)))

    def size_with(self, fed: Sequence[int]) -> int:
        """How many nodes there would be with another sequence."""
        node = -1
        for depth, token in enumerate(fed):
            known = self.nodes.get((node, token))
            if known is None:
                return len(self.depths) + len(fed) - depth
            node = known
        return len(self.depths)

    def freeze(self, group: int) -> Trie:
        keys = list(self.nodes)
        return Trie(
            group=group,
            requests=tuple(self.requests),
            tokens=np.array([token for _, token in keys], dtype=np.int64),
            parents=np.array([parent for parent, _ in keys], dtype=np.int64),
            depths=np.array(self.depths, dtype=np.int64),
            reads=tuple(self.reads),
        )
