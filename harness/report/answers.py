"""Forgotten or displaced, for every recovered cell and task of a run: its dense model, its compressed sibling and the dense
model under the same recovery put beside it, item by item.

Descriptive, not judged: no verdict hangs on these numbers, and their intervals are not corrected for how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np

from harness.core.digest import digest_text
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellRun, TaskRun
from harness.core.verdicts import Estimate, NotEstimable
from harness.gate.clusters import ALONE, few_relations
from harness.report.bundle import RunBundle
from harness.report.pairs import clusters_of, labels_of
from harness.stats.answer import Answer, answer, gain_of, gap_closed_of
from harness.stats.attribution import LostItems, split_lost
from harness.stats.clusters import FEWEST_CLUSTERS

LEVEL = 0.95

TUNING = "lora"
"""The recovery method that adds weights: what only it brings back was learnt again."""


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """Some items of a recovered cell: one relation of a task, or all tasks of one group of knowledge. ``n_back`` of the
    ``n_lost`` items that compressing lost are right again. ``dense_gain``: None without the dense model under the same
    recovery. ``lost`` as in ``Answered``."""

    name: str
    n_items: int
    gap_closed: Estimate | NotEstimable
    gain: Estimate
    dense_gain: Estimate | None
    n_lost: int
    n_back: int
    lost: LostItems | None


@dataclass(frozen=True, slots=True)
class Answered:
    """One task of a recovered cell. ``answer`` is None where a run is missing, and ``missing`` says which; ``lost`` are the
    lost items by what brings them back, None for LoRA itself and without a LoRA cell beside a prompted one. ``parts``: its
    relations in the order of their first items, none where it has but one."""

    cell: Cell
    task: str
    method: str
    answer: Answer | None
    lost: LostItems | None
    missing: str
    parts: tuple[AnswerPart, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Beside:
    """Which items of a task are right in the runs beside a recovered one, and the relation of each. ``clusters``: its number
    where relations stand for others, ALONE elsewhere."""

    dense: np.ndarray
    compressed: np.ndarray
    now: np.ndarray
    control: np.ndarray | None
    tuned: np.ndarray | None
    relations: tuple[str, ...]
    clusters: np.ndarray

    @classmethod
    def all_of(cls, tasks: Sequence[_Beside]) -> _Beside:
        """The items of several tasks."""

        def joined(columns: list[np.ndarray | None]) -> np.ndarray | None:
            known = [column for column in columns if column is not None]
            return np.concatenate(known) if len(known) == len(columns) else None

        return cls(
            dense=np.concatenate([one.dense for one in tasks]),
            compressed=np.concatenate([one.compressed for one in tasks]),
            now=np.concatenate([one.now for one in tasks]),
            control=joined([one.control for one in tasks]),
            tuned=joined([one.tuned for one in tasks]),
            relations=tuple(chain.from_iterable(one.relations for one in tasks)),
            clusters=np.concatenate([one.clusters for one in tasks]),
        )

    def part(self, name: str, kept: np.ndarray) -> AnswerPart:
        """What is known of some of the items."""
        dense, compressed, now = self.dense[kept], self.compressed[kept], self.now[kept]
        lost, clusters = dense & ~compressed, self.many_clusters(kept)
        return AnswerPart(
            name=name,
            n_items=len(now),
            gap_closed=gap_closed_of(dense, compressed, now, LEVEL, clusters),
            gain=gain_of(compressed, now, LEVEL, clusters),
            dense_gain=None if self.control is None else gain_of(dense, self.control[kept], LEVEL, clusters),
            n_lost=int(lost.sum()),
            n_back=int((lost & now).sum()),
            lost=None if self.tuned is None else split_lost(dense, compressed, now, self.tuned[kept]),
        )

    def many_clusters(self, kept: np.ndarray | slice = slice(None)) -> np.ndarray | None:
        """The clusters of some of the items; None where there are fewer than ten of them: one relation by itself."""
        numbers = self.clusters[kept]
        return numbers if len(np.unique(numbers[numbers != ALONE])) >= FEWEST_CLUSTERS else None

    def by_relation(self) -> tuple[AnswerPart, ...]:
        """Each relation; none where there is but one."""
        number = {name: i for i, name in enumerate(dict.fromkeys(self.relations))}
        if len(number) < 2:
            return ()
        of_item = np.array([number[name] for name in self.relations])
        return tuple(self.part(name, of_item == i) for name, i in number.items())


@lru_cache(maxsize=1)
def find_groups(bundle: RunBundle) -> Mapping[Cell, tuple[AnswerPart, ...]]:
    """Every recovered compressed cell by groups of knowledge, as far as it was measured in full beside the others; cells whose
    tasks are but one are left out. An item counts in each task that asks it. Kept for the bundle at hand."""
    return dict(_groups(bundle))


def _groups(bundle: RunBundle) -> Iterator[tuple[Cell, tuple[AnswerPart, ...]]]:
    runs = {entry.record.cell: entry for entry in bundle.cells if isinstance(entry, CellRun)}
    for cell, run in runs.items():
        if cell.sibling is None or cell.compression == "none":
            continue
        grouped: dict[str, list[_Beside]] = {}
        for name in _asked(run):
            found = _beside(bundle, runs, run, name)
            if isinstance(found, _Beside) and name in bundle.groups:
                grouped.setdefault(bundle.groups[name], []).append(found)
        if sum(map(len, grouped.values())) > 1:
            together = {name: _Beside.all_of(tasks) for name, tasks in grouped.items()}
            yield cell, tuple(one.part(name, np.ones(len(one.now), dtype=np.bool_)) for name, one in together.items())


@lru_cache(maxsize=1)
def find_answers(bundle: RunBundle) -> tuple[Answered, ...]:
    """Every task but perplexities of every recovered compressed cell, in the bundle's order. Kept for the bundle at hand."""
    return tuple(_answers(bundle))


def _answers(bundle: RunBundle) -> Iterator[Answered]:
    runs = {entry.record.cell: entry for entry in bundle.cells if isinstance(entry, CellRun)}
    for cell, run in runs.items():
        if cell.sibling is not None and cell.compression != "none":
            yield from (_answered(bundle, runs, run, name) for name in _asked(run))


def _asked(run: CellRun) -> list[str]:
    """The tasks whose items are right or wrong: nothing of a perplexity is."""
    return [name for name, task in run.runs.items() if task.info.score_class != "perplexity"]


def _answered(bundle: RunBundle, runs: Mapping[Cell, CellRun], recovered: CellRun, name: str) -> Answered:
    cell, method, info = recovered.record.cell, recovered.record.recovery_method, recovered.runs[name].info
    found = _beside(bundle, runs, recovered, name)
    if isinstance(found, str):
        return Answered(cell, name, method, None, None, found)
    dense, compressed, now, tuned = found.dense, found.compressed, found.now, found.tuned
    rng = np.random.default_rng(int(digest_text(f"answer:{cell.id}:{name}")[:12], 16))
    clusters = found.many_clusters()
    made = answer(dense, compressed, now, found.control, chance=info.chance, level=LEVEL, rng=rng, clusters=clusters)
    lost = None if tuned is None else split_lost(dense, compressed, now, tuned)
    return Answered(cell, name, method, made, lost, "", found.by_relation())


def _beside(bundle: RunBundle, runs: Mapping[Cell, CellRun], recovered: CellRun, name: str) -> _Beside | str:
    """The runs beside a recovered one, or what keeps them from answering."""
    cell, task = recovered.record.cell, recovered.runs[name]
    dense = right_on(task, _dense(bundle, cell, name))
    compressed = right_on(task, _outcomes(runs, Cell(cell.model, cell.compression, "none"), name))
    clusters = clusters_of(bundle, cell, task)
    missing = _missing(cell, task, clusters, dense is not None, compressed is not None)
    if missing or dense is None or compressed is None:
        return missing
    return _Beside(
        dense=dense,
        compressed=compressed,
        now=task.outcomes.correct,
        control=right_on(task, _outcomes(runs, Cell(cell.model, "none", cell.recovery), name)),
        tuned=None if recovered.record.recovery_method == TUNING else _tuned(runs, cell, task),
        relations=labels_of(task.items)[1],
        clusters=clusters,
    )


def _missing(cell: Cell, task: TaskRun, clusters: np.ndarray, has_dense: bool, has_compressed: bool) -> str:
    """What an answer needs that is not there, a run or relations; empty where all is."""
    if len(task.outcomes) < task.info.n_items:
        return "it was decided early, and a part of its items is no fair sample: measure it in full (--harness-full)"
    if not has_compressed:
        return f"{Cell(cell.model, cell.compression, 'none').id} was not measured on the same items in this run"
    if not has_dense:
        return f"{cell.dense.id} was not asked the same items"
    if not (clusters == ALONE).all() and few_relations(clusters) is not None:
        return f"its relations stand for others, and fewer than {FEWEST_CLUSTERS} were asked: ask more items"
    return ""


def _dense(bundle: RunBundle, cell: Cell, name: str) -> Outcomes | None:
    found = bundle.dense.get(cell.model)
    return None if found is None else found.outcomes.get(name)


def _outcomes(runs: Mapping[Cell, CellRun], cell: Cell, name: str) -> Outcomes | None:
    return runs[cell].runs[name].outcomes if cell in runs and name in runs[cell].runs else None


def _tuned(runs: Mapping[Cell, CellRun], cell: Cell, task: TaskRun) -> np.ndarray | None:
    """Which items the first LoRA cell over the same compression has right; None without one."""
    for other, run in runs.items():
        if (other.model, other.compression) == (cell.model, cell.compression) and run.record.recovery_method == TUNING:
            return right_on(task, _outcomes(runs, other, task.info.name))
    return None


def right_on(task: TaskRun, outcomes: Outcomes | None) -> np.ndarray | None:
    """Whether each item of a task's run is right in other outcomes; None where these lack one of them."""
    if outcomes is None:
        return None
    place = {digest: i for i, digest in enumerate(outcomes.digests)}
    places = [place.get(digest) for digest in task.outcomes.digests]
    return None if None in places else np.asarray(outcomes.correct[np.array(places, dtype=np.intp)])
