"""What a cell's results move by when nothing changed (A/A): measured for every baseline, never assumed.

The same cell is run several times with what should not matter varied: batch sizes and threads; for a cell that is compressed
anew each time also the calibration samples. The run of median accuracy is stored, the others say how far it can be trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from harness.core.digest import places_of
from harness.core.errors import EvidenceError
from harness.core.outcomes import Outcomes
from harness.core.records import CellFailure, CellRun, record
from harness.core.verdicts import POOLED
from harness.stats.intervals import wilson

MIN_NOISE_RUNS = 3
"""A/A runs below which their spread is no evidence (a standard deviation of two numbers says nothing)."""

FLIP_RATE_LEVEL = 0.95
"""Confidence of the interval whose upper end is the flip rate."""


@record
class NoiseRun:
    """One of the runs that should all say the same: what was varied, and what came.

    ``seed``: of the calibration sample that it was compressed again with; None where the weights stayed. ``batch_tokens``:
    None for the scorer's own. ``accuracy`` and ``n_flips`` are by task; a flip is an item whose correctness is not that of the
    stored run.
    """

    label: str
    seed: int | None
    threads: int
    batch_tokens: int | None
    accuracy: dict[str, float]
    n_flips: dict[str, int]


@record
class Noise:
    """What the A/A runs say, per task and under "pooled" over the pooled tasks; in fractions of all items.

    ``runs``: the stored one first. ``sigma``: the standard deviation (ddof 1) of the accuracy. ``flip_rate``: the upper end
    of the 95 % Wilson interval of the share of items that flip between the stored run and another.
    """

    runs: tuple[NoiseRun, ...]
    sigma: dict[str, float]
    flip_rate: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """One A/A run as measured: what was varied (as in ``NoiseRun``), and the run."""

    label: str
    seed: int | None
    threads: int
    batch_tokens: int | None
    run: CellRun | CellFailure

    def measured(self) -> CellRun:
        """The run. Raises EvidenceError where it failed."""
        if isinstance(self.run, CellFailure):
            raise EvidenceError(
                f"{self.run.cell.id} was not measured ({self.run.reason}), so it can't become a baseline: fix that first."
            )
        return self.run

    def against(self, stored: Mapping[str, Outcomes]) -> NoiseRun:
        """This run as evidence: its accuracies, and its flips against the stored outcomes."""
        runs = self.measured().runs
        return NoiseRun(
            label=self.label,
            seed=self.seed,
            threads=self.threads,
            batch_tokens=self.batch_tokens,
            accuracy={name: float(task.outcomes.correct.mean()) for name, task in runs.items()},
            n_flips={name: count_flips(stored[name], task.outcomes) for name, task in runs.items()},
        )


def choose_stored(repeats: Sequence[Repeat]) -> Repeat:
    """The run of median pooled accuracy (of an even number, the better of the middle two); of equal ones the lowest label."""
    right = [_n_right_pooled(repeat.measured()) for repeat in repeats]
    median = sorted(right)[len(right) // 2]
    return min((r for r, n_right in zip(repeats, right, strict=True) if n_right == median), key=lambda repeat: repeat.label)


def describe_repeats(repeats: Sequence[Repeat], stored: Repeat) -> tuple[NoiseRun, ...]:
    """All runs against the stored one, which comes first."""
    outcomes = {name: task.outcomes for name, task in stored.measured().runs.items()}
    return tuple(repeat.against(outcomes) for repeat in (stored, *(other for other in repeats if other is not stored)))


def make_noise(runs: Sequence[NoiseRun], n_items: Mapping[str, int], pooled: Collection[str]) -> Noise:
    """The noise that runs show, the stored one first; ``n_items`` of each task, ``pooled`` the tasks of the pool.

    >>> runs = [NoiseRun(str(i), None, 1, None, {"facts": 0.4}, {"facts": n}) for i, n in enumerate((0, 3, 2))]
    >>> made = make_noise(runs, {"facts": 1000}, ["facts"])
    >>> round(made.flip_rate["facts"], 5), made.sigma["facts"]
    (0.00584, 0.0)
    """
    if len(runs) < MIN_NOISE_RUNS:
        raise EvidenceError(f"the noise of a cell needs at least {MIN_NOISE_RUNS} A/A runs to be known, {len(runs)} came.")
    units = {name: [name] for name in n_items}
    if pooled:
        units[POOLED] = [name for name in n_items if name in pooled]
    sigma = {unit: recompression_sigma(runs, {name: n_items[name] for name in names}) for unit, names in units.items()}
    return Noise(tuple(runs), sigma, {unit: _flip_rate(runs, n_items, names) for unit, names in units.items()})


def recompression_sigma(runs: Sequence[NoiseRun], n_items: Mapping[str, int]) -> float:
    """The spread (standard deviation, ddof 1) of accuracy over A/A runs, tasks weighted by ``n_items``.

    In fractions of all items.

    >>> runs = [NoiseRun(str(i), i, 1, None, {"facts": a}, {"facts": 9}) for i, a in enumerate((0.40, 0.41, 0.42))]
    >>> round(recompression_sigma(runs, {"facts": 1000}), 6)
    0.01
    """
    return float(np.std(pooled_differences(runs, n_items), ddof=1))


def pooled_differences(runs: Sequence[NoiseRun], n_items: Mapping[str, int]) -> Float[np.ndarray, " runs"]:
    """How far each run's accuracy lies above the first one's, over tasks weighted by ``n_items``.

    Differences, because equal accuracies then have a spread of exactly 0, not of a rounding error.
    """
    weights = np.array(list(n_items.values()), dtype=np.float64)
    accuracies = np.array([[run.accuracy[name] for name in n_items] for run in runs], dtype=np.float64)
    return np.asarray((accuracies - accuracies[0]) @ (weights / weights.sum()))


def count_flips(stored: Outcomes, other: Outcomes) -> int:
    """The items whose correctness differs, joined by digest. Raises EvidenceError where the items are not the same."""
    before, now = pair_correct(stored, other)
    if not len(before) == len(stored) == len(other):
        raise EvidenceError(
            f"the A/A runs of a cell must answer the same items, and only {len(before)} of {len(stored)} are in both: "
            "something else than their noise was varied; measure them again (--fresh)."
        )
    return int(np.count_nonzero(before != now))


def pair_correct(before: Outcomes, now: Outcomes) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Whether each item that both hold was right before and now, joined by digest, in the order of ``before``."""
    place = places_of(now.digests)
    shared = [(i, place[digest]) for i, digest in enumerate(before.digests) if digest in place]
    rows = np.array(shared, dtype=np.intp).reshape(-1, 2)
    return before.correct[rows[:, 0]], now.correct[rows[:, 1]]


def _flip_rate(runs: Sequence[NoiseRun], n_items: Mapping[str, int], names: Sequence[str]) -> float:
    n_flips = sum(run.n_flips[name] for run in runs for name in names)
    return wilson(n_flips, (len(runs) - 1) * sum(n_items[name] for name in names), FLIP_RATE_LEVEL).high


def _n_right_pooled(run: CellRun) -> int:
    return sum(int(task.outcomes.correct.sum()) for task in run.runs.values() if task.info.pooled)
