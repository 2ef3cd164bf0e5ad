"""The way to a count: a unit's flips as they stood at the end of every round that was fed.

Early verdicts look at the whole way, because an e-value's running maximum stays valid whenever one stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from harness.core.verdicts import PairedCounts
from harness.stats.sequential import round_ends


@dataclass(frozen=True, slots=True, eq=False)
class Trail:
    """Items lost, gained and fed, all cumulative, at the rounds' ends; ``n_planned`` items are fed when nothing stops it."""

    n_lost: Int[np.ndarray, " rounds"]
    n_gained: Int[np.ndarray, " rounds"]
    n_fed: Int[np.ndarray, " rounds"]
    n_planned: int

    @classmethod
    def of(
        cls, before: Bool[np.ndarray, " n"], now: Bool[np.ndarray, " n"], n_all: int, kept: Bool[np.ndarray, " n"]
    ) -> Trail:
        """The trail of one task from its fed items in their order, ``n_all`` of which there would be.

        Only items of ``kept`` count (the pool takes at most so many of a task); all of them are fed.

        >>> right, wrong = np.ones(50, dtype=bool), np.zeros(50, dtype=bool)
        >>> Trail.of(right, wrong, 50, kept=right).n_lost.tolist()[:4]
        [1, 2, 3, 4]
        """
        ends = np.array([end for end in round_ends(n_all) if end <= len(before)], dtype=np.int64)
        lost, gained = (before & ~now & kept).cumsum(), (~before & now & kept).cumsum()
        return cls(lost[ends - 1], gained[ends - 1], kept.cumsum()[ends - 1], n_all)

    @classmethod
    def pooled(cls, trails: Sequence[Trail], n_planned: int) -> Trail:
        """Several tasks' trails as one, as far as all of them went."""
        common = min(len(trail.n_fed) for trail in trails)
        return cls(
            np.sum([trail.n_lost[:common] for trail in trails], axis=0),
            np.sum([trail.n_gained[:common] for trail in trails], axis=0),
            np.sum([trail.n_fed[:common] for trail in trails], axis=0),
            n_planned,
        )

    @property
    def is_complete(self) -> bool:
        """Whether every planned item was fed."""
        return len(self.n_fed) > 0 and int(self.n_fed[-1]) == self.n_planned

    @property
    def cumulative(self) -> tuple[Int[np.ndarray, " rounds"], Int[np.ndarray, " rounds"], Int[np.ndarray, " rounds"]]:
        """Lost, gained and fed, as the tests take them."""
        return self.n_lost, self.n_gained, self.n_fed

    @property
    def counts(self) -> PairedCounts:
        """The counts at the end of the last round; none at all before the first."""
        if not len(self.n_fed):
            return PairedCounts(0, 0, 0)
        lost, gained = int(self.n_lost[-1]), int(self.n_gained[-1])
        return PairedCounts(lost, gained, int(self.n_fed[-1]) - lost - gained)
