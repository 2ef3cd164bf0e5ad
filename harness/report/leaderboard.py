"""The leaderboard: cells by tasks, each mean with its interval, the best in bold only where it is significantly the best.

A task's items are averaged one by one ("micro"); where they come in ten relations or more the interval is cluster-robust, and
the mean over relations ("macro") stands beside it. Tasks that rank many answers have P@10 and MRR, too. Dense cells come first
and are references: the best is sought among the other rows. It is the one that paired tests find better than each of them, on
the items that both have and by the mean that the column shows; rows of other items are not ranked by their means, which may
differ by what was asked. Each test is at 5 %, and all must find it: a row that is no better than some other is called the best
in no more than 5 %. A dense cell that the run left out is taken from its baseline, on the items that the run asked: a
limited run, or one that ended early, asked a part of them. Perplexities have a section of the report
(``sections.perplexity``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int

from harness.core.columns import StoredItems
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellRun, TaskRun
from harness.core.verdicts import Estimate, NotEstimable
from harness.report.bundle import RunBundle
from harness.stats.clusters import FEWEST_CLUSTERS
from harness.stats.continuous import paired_t
from harness.stats.intervals import wilson
from harness.stats.macro import macro_mean, micro_mean, p_same_macro, p_same_micro
from harness.stats.paired import mcnemar_midp

LEVEL = 0.95
MANY_ANSWERS_CHANCE = 0.1
"""Where guessing is right less often than this, P@10 says something. Where there is no guessing at all (a chance of 0: a last
word, a generated answer) nothing is ranked, and a wrong answer's rank is only behind the accepted ones."""

Measure = Literal["right", "P@10", "MRR"]


@dataclass(frozen=True, slots=True)
class Column:
    """What a column shows: a task's mean of right answers, P@10 or 1/rank, by item or by relation first."""

    task: str
    measure: Measure
    is_macro: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One mean, of ``n_items`` of the ``n_all`` items that its cell has: those that the run asked.

    ``is_best``: significantly better than every other row that is not dense.
    """

    mean: Estimate
    n_items: int
    n_all: int
    is_best: bool


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows in order, dense ones first; a missing entry was not measured.

    ``unasked``: dense cells whose baseline knows a task, but none of the items that the run asked of it.
    """

    columns: tuple[Column, ...]
    rows: tuple[Cell, ...]
    entries: Mapping[tuple[Cell, Column], Entry]
    unasked: tuple[tuple[Cell, str], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """One task of one row: its outcomes, and which items of which relations they are, as numbers that all rows share."""

    outcomes: Outcomes
    items: Int[np.ndarray, " items"]
    relations: Int[np.ndarray, " items"]
    n_all: int

    def values(self, measure: Measure) -> np.ndarray:
        ranks = self.outcomes.ranks
        made = {
            "right": self.outcomes.correct.astype(np.float64),
            "P@10": (ranks <= 10).astype(np.float64),
            "MRR": 1.0 / ranks,
        }
        return made[measure]


def make_leaderboard(bundle: RunBundle) -> Leaderboard:
    """The leaderboard of a run; a dense cell that the run left out is taken from its baseline."""
    tasks: dict[str, dict[Cell, _Asked]] = {}
    chances: dict[str, float] = {}
    for name in bundle.task_names:
        runs = [entry.runs[name] for entry in bundle.cells if isinstance(entry, CellRun) and name in entry.runs]
        runs = [run for run in runs if len(run.outcomes) and run.info.score_class != "perplexity"]
        if runs:
            tasks[name] = _rows_of(name, runs, bundle)
            chances[name] = min(run.info.chance for run in runs)
    cells = list(dict.fromkeys(cell for rows in tasks.values() for cell in rows))
    order = list(dict.fromkeys(cell.model for cell in cells))
    cells.sort(key=lambda cell: (not cell.is_dense, order.index(cell.model)))
    columns = [column for name, rows in tasks.items() for column in _columns(name, rows, chances[name])]
    entries: dict[tuple[Cell, Column], Entry] = {}
    for column in columns:
        rows = tasks[column.task]
        means = {cell: mean for cell, asked in rows.items() if (mean := _mean(asked, column)) is not None}
        best = _best({cell: mean for cell, mean in means.items() if not cell.is_dense}, rows, column)
        for cell, mean in means.items():
            entries[cell, column] = Entry(mean, len(rows[cell].outcomes), rows[cell].n_all, cell == best)
    unasked = tuple((cell, name) for name, rows in tasks.items() for cell, asked in rows.items() if not len(asked.outcomes))
    return Leaderboard(tuple(columns), tuple(cells), entries, unasked)


def _rows_of(name: str, runs: Sequence[TaskRun], bundle: RunBundle) -> dict[Cell, _Asked]:
    """A task's rows. Relations are known where items are: of a baseline those items count that the runs asked."""
    group_of = {digest: group for run in runs for digest, group in zip(run.outcomes.digests, _groups(run), strict=True)}
    number = {group: i for i, group in enumerate(sorted(set(group_of.values())))}
    known = {digest: (i, number[group]) for i, (digest, group) in enumerate(group_of.items())}
    rows = {Cell.parse(run.cell): _asked(run.outcomes, known, run.info.n_items) for run in runs}
    models = {cell.model for cell in rows}
    for reference in bundle.dense.values():
        outcomes = reference.outcomes.get(name)
        if reference.cell in rows or not outcomes:
            continue
        shared = np.array([i for i, digest in enumerate(outcomes.digests) if digest in known], dtype=np.int64)
        if len(shared) or reference.cell.model in models:
            rows[reference.cell] = _asked(outcomes.take(shared), known, reference.tasks[name].n_items)
    return rows


def _groups(run: TaskRun) -> Sequence[str]:
    return run.items.labels()[1] if isinstance(run.items, StoredItems) else [item.group for item in run.items]


def _asked(outcomes: Outcomes, known: Mapping[str, tuple[int, int]], n_all: int) -> _Asked:
    of_items = np.array([known[digest] for digest in outcomes.digests], dtype=np.int64).reshape(-1, 2)
    return _Asked(outcomes, of_items[:, 0], of_items[:, 1], n_all)


def _columns(name: str, rows: Mapping[Cell, _Asked], chance: float) -> list[Column]:
    has_relations = any(len(np.unique(asked.relations)) >= FEWEST_CLUSTERS for asked in rows.values())
    measures: list[Measure] = ["right", "P@10", "MRR"] if 0 < chance < MANY_ANSWERS_CHANCE else ["right"]
    means = (True, False) if has_relations else (False,)
    return [Column(name, measure, is_macro) for measure in measures for is_macro in means]


def _mean(asked: _Asked, column: Column) -> Estimate | None:
    if not len(asked.outcomes):
        return None
    values, relations = asked.values(column.measure), _numbered(asked.relations)
    n_relations = int(relations.max()) + 1
    found: Estimate | NotEstimable
    if column.is_macro:
        found = macro_mean(values, relations, LEVEL)
    elif n_relations >= FEWEST_CLUSTERS:
        found = micro_mean(values, relations, LEVEL)
    elif column.measure == "MRR":
        found = _mean_of_ranks(values)
    else:
        found = wilson(int(values.sum()), len(values), LEVEL)
    return found if isinstance(found, Estimate) else None


def _mean_of_ranks(values: np.ndarray) -> Estimate | NotEstimable:
    """The mean of 1/rank by Student's t, its interval cut at 0 and 1."""
    if len(values) < 2:
        return NotEstimable("one item")
    mean = paired_t(values, 0.0, LEVEL).mean
    return replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 1.0))


def _best(means: Mapping[Cell, Estimate], rows: Mapping[Cell, _Asked], column: Column) -> Cell | None:
    """The row that is significantly better than each of the others; None where there is none, or nothing to compare with.

    Highest means first: all but the best are mostly beaten by the first row that they meet.
    """
    ranked = sorted(means, key=lambda cell: -means[cell].value)
    if len(ranked) < 2:
        return None
    return next(
        (one for one in ranked if all(_beats(rows[one], rows[other], column) for other in ranked if other != one)), None
    )


def _beats(one: _Asked, other: _Asked, column: Column) -> bool:
    """Whether a row is significantly better than another one on the items that both have, by the column's kind of mean. Where
    a row's relations stand for others, those of fewer than ten shared ones can't."""
    here, there = _shared(one.items, other.items)
    relations = _numbered(one.relations[here])
    n_relations = len(np.unique(relations))
    is_clustered = column.is_macro or max(len(np.unique(row.relations)) for row in (one, other)) >= FEWEST_CLUSTERS
    if len(here) < 2 or (is_clustered and n_relations < FEWEST_CLUSTERS):
        return False
    values, rivals = one.values(column.measure)[here], other.values(column.measure)[there]
    lead, p = _mean_of(values - rivals, relations, column), _p_same(values, rivals, relations, column)
    if isinstance(lead, NotEstimable) or isinstance(p, NotEstimable):
        return False
    return lead > 0 and p < 1 - LEVEL


def _mean_of(differences: np.ndarray, relations: np.ndarray, column: Column) -> float | NotEstimable:
    """The mean difference by item, or by relation first."""
    if not column.is_macro:
        return float(differences.mean())
    made = macro_mean(differences, relations, LEVEL, (-1.0, 1.0))
    return made.value if isinstance(made, Estimate) else made


def _shared(
    one: Int[np.ndarray, " items"], other: Int[np.ndarray, " others"]
) -> tuple[Int[np.ndarray, " shared"], Int[np.ndarray, " shared"]]:
    """The places of the items that both have, in either.

    >>> [places.tolist() for places in _shared(np.array([7, 2, 5]), np.array([5, 3, 7]))]
    [[0, 2], [2, 0]]
    """
    place = np.full(1 + max(one.max(initial=0), other.max(initial=0)), -1)
    place[other] = np.arange(len(other))
    here = np.flatnonzero(place[one] >= 0)
    return here, place[one][here]


def _p_same(one: np.ndarray, other: np.ndarray, relations: np.ndarray, column: Column) -> float | NotEstimable:
    if column.is_macro:
        return p_same_macro(one, other, relations)
    if int(relations.max()) + 1 >= FEWEST_CLUSTERS:
        return p_same_micro(one, other, relations)
    n_better, n_worse = int((one > other).sum()), int((one < other).sum())
    by_signs = min(1.0, 2 * float(mcnemar_midp(n_better, n_worse)))
    if column.measure == "MRR" and np.ptp(other - one) > 0:  # differences that are all the same have no t
        made = paired_t(other - one, 0.0, LEVEL)
        return 2 * min(made.p_above, made.p_below)
    return by_signs


def _numbered(relations: np.ndarray) -> np.ndarray:
    """The relations that are there, numbered from 0 on without a gap."""
    return np.unique(relations, return_inverse=True)[1]
