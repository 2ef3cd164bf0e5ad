"""Many simulated commits of one cell at once, fed and decided as ``measure`` and ``judge`` do.

Only counts are simulated: how many items of each task were lost and gained by each round's end, against each anchor. What
they decide is looked up in tables that the gate's own tests fill (``stats.boundaries``), by the rules of
``gate.judge.undecided``: a task of the pool is fed while the pool is undecided, a REGRESSED pool stops the cell, FAIL wins
over PASS. That both reach the same verdicts on the same items is part of the self-test (``gate.replay``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.stats.boundaries import Bounds, find_bounds
from harness.stats.sequential import Rule, round_ends

_COMPACT_BELOW = 0.75
"""The share of commits still fed below which the others are taken out of the arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedTask:
    """One task: how many items it feeds, how many of them to the pool, and its bounds for each anchor (None: it is
    UNINFORMATIVE there, never judged and never in the pool)."""

    name: str
    n_items: int
    n_in_pool: int
    bounds: tuple[Bounds | None, ...]

    @property
    def ends(self) -> Int[np.ndarray, " rounds"]:
        """How many items are fed by the end of each round."""
        return np.array(round_ends(self.n_items))

    @property
    def pool_ends(self) -> Int[np.ndarray, " rounds"]:
        """How many of them enter the pool, in proportion (which they are is random in a real run)."""
        return (2 * self.ends * self.n_in_pool + self.n_items) // (2 * self.n_items)

    def is_member(self, anchor: int) -> bool:
        """Whether the task is in the pool that is compared with this anchor."""
        return self.n_in_pool > 0 and self.bounds[anchor] is not None


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedCell:
    """One cell: its tasks, and its pool's bounds for each anchor (None: no task of it is in the pool)."""

    tasks: tuple[SimulatedTask, ...]
    pool: tuple[Bounds | None, ...]

    @property
    def n_items(self) -> int:
        """The items of all tasks."""
        return sum(task.n_items for task in self.tasks)


@dataclass(frozen=True, slots=True, eq=False)
class Flips:
    """Items lost and gained in one round of one task, by anchor and commit; those that entered the pool apart."""

    lost: Int[np.ndarray, "anchors n"]
    gained: Int[np.ndarray, "anchors n"]
    pool_lost: Int[np.ndarray, "anchors n"]
    pool_gained: Int[np.ndarray, "anchors n"]


Draw = Callable[[int, int, Int[np.ndarray, " n"]], Flips]
"""The flips of one task (by its index) in one round (by its index) of the commits of these numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of each simulated commit of a cell. Tasks and pool by anchor: whether FAIL, and whether PASS, was proven.

    ``rounds``: how many rounds each task was fed.
    """

    pool_fails: Bool[np.ndarray, "anchors n"]
    pool_passes: Bool[np.ndarray, "anchors n"]
    task_fails: Bool[np.ndarray, "tasks anchors n"]
    task_passes: Bool[np.ndarray, "tasks anchors n"]
    rounds: Int[np.ndarray, "tasks n"]

    @property
    def pool_red(self) -> Bool[np.ndarray, " n"]:
        """Whether the pool is REGRESSED against any anchor."""
        return np.asarray(self.pool_fails.any(0))

    @property
    def red(self) -> Bool[np.ndarray, " n"]:
        """Whether the cell is red: its pool or one of its tasks is."""
        return np.asarray(self.pool_red | self.task_fails.any((0, 1)))

    @property
    def pool_passed(self) -> Bool[np.ndarray, "anchors n"]:
        """Whether the pool's verdict against each anchor is PASS."""
        return np.asarray(self.pool_passes & ~self.pool_fails)

    def share_used(self, cell: SimulatedCell) -> Float[np.ndarray, " n"]:
        """The share of the cell's items that were fed."""
        used = sum(task.ends[rounds - 1] for task, rounds in zip(cell.tasks, self.rounds, strict=True))
        return np.asarray(used / cell.n_items, dtype=np.float64)


def simulate(cell: SimulatedCell, n_commits: int, draw: Draw) -> Outcome:
    """Feed and decide so many commits."""
    state = _State.start(cell, n_commits)
    n_rounds = len(cell.tasks[0].ends)
    for index in range(n_rounds):
        state.feed(index, draw)
        state.look(index)
        if index < n_rounds - 1:
            state.choose_open()
            if not state.open_tasks.any():
                break
            if state.open_tasks.any(0).mean() < _COMPACT_BELOW:
                state.compact()
    state.compact(everything=True)
    return state.outcome


def draw_fates(cell: SimulatedCell, fates: Sequence[Fates], rng: np.random.Generator) -> Draw:
    """Flips drawn at random, item by item, from what may become of an item of each task."""
    steps = [np.diff(task.ends, prepend=0) for task in cell.tasks]
    pool_steps = [np.diff(task.pool_ends, prepend=0) for task in cell.tasks]

    def draw(task: int, index: int, commits: Int[np.ndarray, " n"]) -> Flips:
        n_pool = int(pool_steps[task][index])
        lost, gained = fates[task].draw(n_pool, commits, rng)
        if n_pool == int(steps[task][index]):
            return Flips(lost, gained, lost, gained)
        more_lost, more_gained = fates[task].draw(int(steps[task][index]) - n_pool, commits, rng)
        return Flips(lost + more_lost, gained + more_gained, lost, gained)

    return draw


@dataclass(frozen=True, slots=True, eq=False)
class Fates:
    """What may become of an item, and how likely: lost or gained against each anchor; what is neither needs no fate.

    ``chances`` are the same for all commits (one row) or differ from commit to commit (a row each).
    """

    chances: Float[np.ndarray, "rows fates"]
    lost: Bool[np.ndarray, "anchors fates"]
    gained: Bool[np.ndarray, "anchors fates"]

    def draw(
        self, n_items: int, commits: Int[np.ndarray, " n"], rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, "anchors n"], Int[np.ndarray, "anchors n"]]:
        """Items lost and gained by anchor among ``n_items`` of each of these commits."""
        if n_items == 0:
            return tuple(np.zeros((len(self.lost), len(commits)), dtype=np.int64) for _ in range(2))  # type: ignore[return-value]
        chances = self.chances if len(self.chances) == 1 else self.chances[commits]
        rest = np.maximum(1 - chances.sum(1, keepdims=True), 0.0)
        drawn = rng.multinomial(n_items, np.concatenate([chances, rest], axis=1), size=len(commits))[:, :-1]
        return self.lost.astype(np.int64) @ drawn.T, self.gained.astype(np.int64) @ drawn.T

    def mean_chances(self, anchor: int) -> tuple[float, float]:
        """The chances of an item to be lost and gained against an anchor, over all commits."""
        chances = self.chances.mean(axis=0)
        return float(chances[self.lost[anchor]].sum()), float(chances[self.gained[anchor]].sum())


def bounds_of(rule: Rule, n_fed: Int[np.ndarray, " rounds"], n_gained_most: int) -> Bounds:
    """A unit's bounds as ``judge`` decides: a full run without one flip passes as *identical*, whatever it could prove."""
    found = find_bounds(rule, n_fed, n_gained_most)
    pass_to = found.pass_to.copy()
    pass_to[-1, 0] = max(pass_to[-1, 0], 0)
    return Bounds(found.n_fed, found.fail_from, pass_to)


# ------------------------------------------------------------------------------------------------ the walk


@dataclass(slots=True, eq=False)
class _State:
    """The commits that are still fed (``commits``: their numbers) and, in ``outcome``, what became of all."""

    cell: SimulatedCell
    outcome: Outcome
    commits: Int[np.ndarray, " n"]
    open_tasks: Bool[np.ndarray, "tasks n"]
    lost: Int[np.ndarray, "tasks anchors n"]
    gained: Int[np.ndarray, "tasks anchors n"]
    pool_lost: Int[np.ndarray, "anchors n"]
    pool_gained: Int[np.ndarray, "anchors n"]
    now: Outcome

    @classmethod
    def start(cls, cell: SimulatedCell, n: int) -> _State:
        n_tasks, n_anchors = len(cell.tasks), len(cell.pool)

        def nothing() -> Outcome:
            return Outcome(
                pool_fails=np.zeros((n_anchors, n), dtype=np.bool_),
                pool_passes=np.zeros((n_anchors, n), dtype=np.bool_),
                task_fails=np.zeros((n_tasks, n_anchors, n), dtype=np.bool_),
                task_passes=np.zeros((n_tasks, n_anchors, n), dtype=np.bool_),
                rounds=np.zeros((n_tasks, n), dtype=np.int64),
            )

        return cls(
            cell=cell,
            outcome=nothing(),
            commits=np.arange(n),
            open_tasks=np.ones((n_tasks, n), dtype=np.bool_),
            lost=np.zeros((n_tasks, n_anchors, n), dtype=np.int64),
            gained=np.zeros((n_tasks, n_anchors, n), dtype=np.int64),
            pool_lost=np.zeros((n_anchors, n), dtype=np.int64),
            pool_gained=np.zeros((n_anchors, n), dtype=np.int64),
            now=nothing(),
        )

    def feed(self, index: int, draw: Draw) -> None:
        """One more round of every open task."""
        for t, task in enumerate(self.cell.tasks):
            where = np.flatnonzero(self.open_tasks[t])
            if not len(where):
                continue
            flips = draw(t, index, self.commits[where])
            self.lost[t][:, where] += flips.lost
            self.gained[t][:, where] += flips.gained
            self.now.rounds[t][where] = index + 1
            for anchor in range(len(self.cell.pool)):
                if task.is_member(anchor):
                    self.pool_lost[anchor][where] += flips.pool_lost[anchor]
                    self.pool_gained[anchor][where] += flips.pool_gained[anchor]

    def look(self, index: int) -> None:
        """What the counts prove by now; a pool is looked at where all of its tasks were fed."""
        for t, task in enumerate(self.cell.tasks):
            for anchor, bounds in enumerate(task.bounds):
                if bounds is not None:
                    fed = self.open_tasks[t]
                    at = index, self.lost[t, anchor], self.gained[t, anchor]
                    self.now.task_fails[t, anchor] |= fed & bounds.fails(*at)
                    self.now.task_passes[t, anchor] |= fed & bounds.passes(*at)
        for anchor, bounds in enumerate(self.cell.pool):
            if bounds is not None:
                fed = self.open_tasks[[task.is_member(anchor) for task in self.cell.tasks]].all(0)
                at = index, self.pool_lost[anchor], self.pool_gained[anchor]
                self.now.pool_fails[anchor] |= fed & bounds.fails(*at)
                self.now.pool_passes[anchor] |= fed & bounds.passes(*at)

    def choose_open(self) -> None:
        """Which tasks are fed on: those that some anchor can't decide yet, alone or in its pool; none of a REGRESSED cell."""
        left = np.zeros_like(self.open_tasks)
        pool_open = ~(self.now.pool_fails | self.now.pool_passes)
        for t, task in enumerate(self.cell.tasks):
            for anchor, bounds in enumerate(task.bounds):
                if bounds is not None:
                    left[t] |= ~(self.now.task_fails[t, anchor] | self.now.task_passes[t, anchor])
                if task.is_member(anchor):
                    left[t] |= pool_open[anchor]
        self.open_tasks = left & ~self.now.pool_fails.any(0)

    def compact(self, everything: bool = False) -> None:
        """Put away the commits that are not fed any more, or all."""
        done = np.ones(len(self.commits), dtype=np.bool_) if everything else ~self.open_tasks.any(0)
        kept = np.flatnonzero(~done)
        for name in Outcome.__slots__:
            getattr(self.outcome, name)[..., self.commits[done]] = getattr(self.now, name)[..., done]
        self.now = Outcome(*(getattr(self.now, name)[..., kept] for name in Outcome.__slots__))
        self.commits, self.open_tasks = self.commits[kept], self.open_tasks[:, kept]
        self.lost, self.gained = self.lost[..., kept], self.gained[..., kept]
        self.pool_lost, self.pool_gained = self.pool_lost[:, kept], self.pool_gained[:, kept]
