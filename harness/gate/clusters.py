"""Which relations stand for others, and the items of one unit by relation.

The matrix says it of a task, or its suite does; the record carries it (``TaskInfo.n_clusters``). What an accepted baseline
says holds until another one is accepted: a line of the matrix alone makes no test easier. A task of fewer than ten relations
is fixed strata in any case, and its items are tested one by one. Of a task with more, a limited run may ask fewer than ten;
these prove nothing about the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from harness.core.columns import StoredItems
from harness.core.digest import digest_text
from harness.core.records import Items, TaskInfo
from harness.stats.cluster_estimates import Resampled
from harness.stats.clusters import FEWEST_CLUSTERS, Clusters

ALONE = -1
"""The number of items that belong to no cluster."""


def has_clusters(now: TaskInfo, known: TaskInfo) -> bool:
    """Whether a task's relations stand for others, by what is asked now or was accepted, and are enough for it.

    The task's whole number of relations counts, not that of a limited run. Where only limited runs say that they stand for
    others, the whole number is not known, and they do.
    """
    claims = [info for info in (known, now) if info.n_clusters is not None]
    whole = next((info.n_clusters for info in claims if info.limit is None), None)
    return bool(claims) if whole is None else whole >= FEWEST_CLUSTERS


def relation_numbers(items: Items) -> Int[np.ndarray, " n"]:
    """A number for each item's relation, from its name alone: two tasks of a pool that ask one relation move together."""
    groups = items.labels()[1] if isinstance(items, StoredItems) else [item.group for item in items]
    numbers = {group: int(digest_text(group)[:15], 16) for group in set(groups)}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class FewRelations:
    """Fewer relations that stand for others than can prove anything, and how many items they have."""

    n_relations: int
    n_items: int


@dataclass(frozen=True, eq=False)
class ClusteredItems:
    """A unit's items, all of them, right or wrong before and now; ``clusters``: their relations' numbers, or ALONE."""

    before: Bool[np.ndarray, " n"]
    now: Bool[np.ndarray, " n"]
    clusters: Int[np.ndarray, " n"]

    @cached_property
    def counts(self) -> Clusters:
        """Lost, gained and all items by relation."""
        return Clusters.of(self.before & ~self.now, ~self.before & self.now, self.clusters)

    @cached_property
    def few(self) -> FewRelations | None:
        """What there is where the relations are too few for any test; None where they are enough."""
        return few_relations(self.clusters)

    @property
    def resampled(self) -> Resampled:
        """Samples of relations; the same whenever they are drawn."""
        rng = np.random.default_rng(int(digest_text("relations drawn again")[:12], 16))
        return Resampled.of(self.before, self.now, self.clusters, rng)


def together(
    clusters: Sequence[Int[np.ndarray, " _"] | None], kept: Sequence[Bool[np.ndarray, " _"]]
) -> Int[np.ndarray, " kept"]:
    """The numbers of the kept items of several tasks, one behind the other; ALONE where relations do not stand for others."""
    parts = [
        np.full(int(chosen.sum()), ALONE) if numbers is None else numbers[chosen]
        for numbers, chosen in zip(clusters, kept, strict=True)
    ]
    return np.concatenate(parts)


def few_relations(clusters: Int[np.ndarray, " n"]) -> FewRelations | None:
    """Of a unit some of whose items are in relations that stand for others: these, where they are fewer than ten.

    >>> few_relations(np.array([3, 3, 8, ALONE])), few_relations(np.arange(10))
    (FewRelations(n_relations=2, n_items=3), None)
    """
    among = clusters[clusters != ALONE]
    n_relations = len(np.unique(among))
    return FewRelations(n_relations, len(among)) if n_relations < FEWEST_CLUSTERS else None
