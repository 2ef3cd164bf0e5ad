"""The same items in two outcomes, matched by content digest: never by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, overload

import numpy as np

from harness.baseline import identity_differences
from harness.core.columns import StoredItems
from harness.core.digest import places_of
from harness.core.near_ties import settled
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellRecord, CellRun, Item, Items, TaskRun
from harness.core.verdicts import PairedCounts
from harness.gate.clusters import ALONE, has_clusters, relation_numbers
from harness.report.bundle import Reference, RunBundle
from harness.stats.divergence import option_kl

Against = Literal["baseline", "dense model"]
"""What a run is compared with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said to one item.

    ``choice`` is the option's position, None where the answer is none of the options; a generated answer has its ``text``.
    ``margin_nats`` is the right answer's lead, negative where it is beaten; ``rank`` is the best right option's, 1 is best.
    ``logliks_nats`` are the options' scores, None where they were not kept.
    """

    choice: int | None
    text: str | None
    rank: int
    margin_nats: float
    logliks_nats: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Flip:
    """One item whose answer changed sides: ``lost`` (right in ``reference``, wrong in ``candidate``) or gained."""

    item: Item
    lost: bool
    near_tie: bool
    reference: Answer
    candidate: Answer


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A task run beside a reference that was asked every one of its items: item i there is item ``places[i]`` of it."""

    run: TaskRun
    reference: Outcomes
    places: np.ndarray

    @property
    def was_right(self) -> np.ndarray:
        """Whether the reference was right on each item of the run."""
        return np.asarray(self.reference.correct[self.places])


@dataclass(frozen=True, slots=True, eq=False)
class Flips(Sequence[Flip]):
    """The items that changed sides, lost ones first, each side by how far the candidate's answer moved.

    Flip k is item ``here[k]`` of the run. One is made when it is looked at: a large run has a hundred thousand.
    """

    pair: Pair
    against: Against
    here: np.ndarray
    n_lost: int

    def __len__(self) -> int:
        return len(self.here)

    @overload
    def __getitem__(self, index: int) -> Flip: ...
    @overload
    def __getitem__(self, index: slice) -> Flips: ...
    def __getitem__(self, index: int | slice) -> Flip | Flips:
        kept = np.arange(len(self))[index]
        if isinstance(index, slice):
            return self.only(kept)
        return next(iter(self.only(kept[None])))

    def __iter__(self) -> Iterator[Flip]:
        now, was = self.run.outcomes, self.pair.reference
        for item, i, j in zip(self.items(), self.here.tolist(), self.there.tolist(), strict=True):
            yield Flip(
                item=item,
                lost=bool(was.correct[j]),
                near_tie=bool(now.near_ties[i]) or bool(was.near_ties[j]),
                reference=_answer(item, was, j),
                candidate=_answer(item, now, i),
            )

    @property
    def run(self) -> TaskRun:
        """The run in which they flipped."""
        return self.pair.run

    @property
    def n_gained(self) -> int:
        """How many were wrong in the reference and are right now."""
        return len(self) - self.n_lost

    @property
    def open(self) -> np.ndarray:
        """Which of them have more than a row to show: scores of their options, or a generated answer."""
        return np.asarray(_kept_more(self.run.outcomes)[self.here] | _kept_more(self.pair.reference)[self.there])

    @property
    def there(self) -> np.ndarray:
        """Their places in the reference."""
        return np.asarray(self.pair.places[self.here])

    def only(self, kept: np.ndarray) -> Flips:
        """Some of them, by rising positions or as a mask."""
        chosen = np.arange(len(self))[kept]
        return replace(self, here=self.here[chosen], n_lost=int((chosen < self.n_lost).sum()))

    def items(self) -> list[Item]:
        """Their items; the others may stay in their file."""
        items, places = self.run.items, self.here.tolist()
        return items.take(places) if isinstance(items, StoredItems) else [items[i] for i in places]


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Right answers of one relation in each of up to three runs; None where that run has not the same items."""

    group: str
    n_items: int
    n_right_dense: int | None
    n_right_baseline: int | None
    n_right_candidate: int


def count_changes(was: np.ndarray, now: np.ndarray) -> PairedCounts:
    """Items lost, gained and unchanged between two columns of right answers to the same items."""
    n_lost, n_gained = int((was & ~now).sum()), int((~was & now).sum())
    return PairedCounts(n_lost, n_gained, len(now) - n_lost - n_gained)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A task run beside its baseline and its dense model, where these have outcomes of the same items.

    ``flips`` holds those of the same pairs, but of a dense cell only those against its baseline; ``groups`` stand in the
    order of their first item, and ``relations`` says which of them each item belongs to.
    """

    run: TaskRun
    pairs: Mapping[Against, Pair]
    flips: tuple[Flips, ...]
    groups: tuple[GroupCounts, ...]
    relations: np.ndarray

    @property
    def flipped(self) -> tuple[np.ndarray, np.ndarray]:
        """How many items of each relation were lost and gained since the baseline; none where that has other items."""
        found = next((one for one in self.flips if one.against == "baseline"), None)
        here, n_lost = (np.zeros(0, np.int64), 0) if found is None else (found.here, found.n_lost)
        lost, gained = (
            np.bincount(self.relations[side], minlength=len(self.groups)) for side in (here[:n_lost], here[n_lost:])
        )
        return lost, gained


@lru_cache(maxsize=1)
def compared(bundle: RunBundle) -> Mapping[tuple[str, str], Compared]:
    """Every task run, by the ids of cell and task, in the bundle's order.

    Kept for the bundle at hand, which never changes: all parts of its report start from it.
    """
    found = {
        (entry.record.cell.id, name): _compare(entry.record, run, bundle)
        for entry in bundle.cells
        if isinstance(entry, CellRun)
        for name, run in entry.runs.items()
    }
    for one in found.values():
        for flipped in one.flips:
            if isinstance(one.run.items, StoredItems):
                one.run.items.want(flipped.here.tolist())
    return found


def compared_flips(bundle: RunBundle) -> tuple[Flips, ...]:
    """What flipped in every task run against each reference that has outcomes of the same items."""
    return tuple(found for one in compared(bundle).values() for found in one.flips)


def _compare(record: CellRecord, run: TaskRun, bundle: RunBundle) -> Compared:
    cell = record.cell
    baseline, dense = pair(run, bundle.baselines.get(cell.id)), pair(run, bundle.dense.get(cell.model))
    named: tuple[tuple[Against, Pair | None], ...] = (("baseline", baseline), ("dense model", dense))
    pairs = {against: made for against, made in named if made is not None}
    ids, groups = labels_of(run.items)
    kept = [against for against in pairs if against == "baseline" or not cell.is_dense]
    known = bundle.baselines.get(cell.id)
    again = known is not None and not identity_differences(known.provenance, record.provenance)
    found = tuple(flips(pairs[against], against, ids, again=again and against == "baseline") for against in kept)
    return Compared(run, pairs, found, *count_groups(run, groups, baseline, dense))


def labels_of(items: Items) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The id and the group of each item."""
    if isinstance(items, StoredItems):
        return items.labels()
    return tuple(item.id for item in items), tuple(item.group for item in items)


def clusters_of(bundle: RunBundle, cell: Cell, run: TaskRun) -> np.ndarray:
    """The number of each item's relation where relations stand for others, by what is asked now or by what was accepted of the
    cell or of its dense model; ALONE elsewhere."""
    name, references = run.info.name, (bundle.baselines.get(cell.id), bundle.dense.get(cell.model))
    known = [one.tasks[name] for one in references if one is not None and name in one.tasks]
    if any(has_clusters(run.info, one) for one in known or [run.info]):
        return relation_numbers(run.items)
    return np.full(len(run.outcomes), ALONE)


def pair(run: TaskRun, reference: Reference | None) -> Pair | None:
    """A task run beside the reference, where that has outcomes of the very items of the run; None otherwise.

    A run that was limited, or decided early, holds a part of the items: the reference must know every one of them.
    """
    outcomes = None if reference is None else reference.outcomes.get(run.info.name)
    if outcomes is None or len(run.outcomes) == 0:
        return None
    is_part = run.info.limit is not None or len(run.outcomes) < run.info.n_items
    if len(outcomes) != len(run.outcomes) and not is_part:
        return None
    place = places_of(outcomes.digests)
    places = [place.get(digest) for digest in run.outcomes.digests]
    return None if None in places else Pair(run, outcomes, np.array(places, dtype=np.intp))


def kl_nats(made: Pair) -> np.ndarray | None:
    """KL(reference || run) over each item's options, as the task's metric compares them; None where options do not compete (a
    chance of 0), where one word stands for a vocabulary, or where either run kept no scores or has one that is not finite."""
    was, now = made.reference.option_logliks_nats, made.run.outcomes.option_logliks_nats
    if was is None or now is None or made.run.info.chance == 0:
        return None
    was, n_options = was.take(made.places), np.diff(now.ends, prepend=0)
    if not np.array_equal(was.ends, now.ends) or (n_options < 1).any() or (n_options < 2).all():
        return None
    if not (np.isfinite(was.values).all() and np.isfinite(now.values).all()):
        return None
    return option_kl(was.values, now.values, now.ends)


def flips(made: Pair, against: Against, ids: Sequence[str], *, again: bool = False) -> Flips:
    """The items of a pair that changed sides, as the gate counts them; ``ids`` are those of the run's items. ``again``: the
    same was measured twice."""
    was, now = made.was_right, made.run.outcomes
    flipped = np.flatnonzero(was != (settled(made.reference, made.places, now) if again else now.correct))
    moved = np.abs(now.margins_nats - made.reference.margins_nats[made.places])
    rows = zip((~was[flipped]).tolist(), (-moved[flipped]).tolist(), (ids[i] for i in flipped.tolist()), strict=True)
    order = [k for k, _ in sorted(enumerate(rows), key=lambda row: row[1])]
    return Flips(made, against, flipped[order], int(was[flipped].sum()))


def count_groups(
    run: TaskRun, names: Sequence[str], baseline: Pair | None, dense: Pair | None
) -> tuple[tuple[GroupCounts, ...], np.ndarray]:
    """Right answers per relation, and which of them each item belongs to; ``names`` are the relations of the run's items."""
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    groups = np.array([number[name] for name in names], dtype=np.int32)

    def count(right: np.ndarray) -> list[int]:
        counted: list[int] = np.bincount(groups[right], minlength=len(number)).tolist()
        return counted

    was = [[None] * len(number) if made is None else count(made.was_right) for made in (dense, baseline)]
    n_items = np.bincount(groups, minlength=len(number)).tolist()
    now = count(run.outcomes.correct)
    counts = tuple(GroupCounts(name, n_items[i], was[0][i], was[1][i], now[i]) for name, i in number.items())
    return counts, groups


def option_of(item: Item, answer: Answer) -> str | None:
    """The option that an answer is; None where it is none of them."""
    return None if answer.choice is None else item.options[answer.choice]


def _kept_more(outcomes: Outcomes) -> np.ndarray:
    rows = outcomes.option_logliks_nats
    has_scores = False if rows is None else np.diff(rows.ends, prepend=0) > 0
    return np.full(len(outcomes), outcomes.texts is not None) | has_scores


def _answer(item: Item, outcomes: Outcomes, i: int) -> Answer:
    choice, n_options = int(outcomes.answers[i]), len(item.options)
    scores = None if outcomes.option_logliks_nats is None else outcomes.option_logliks_nats[i]
    return Answer(
        choice=choice if 0 <= choice < n_options else None,
        text=None if outcomes.texts is None else outcomes.texts[i],
        rank=int(outcomes.ranks[i]),
        margin_nats=float(outcomes.margins_nats[i]),
        logliks_nats=scores if scores is not None and len(scores) == n_options else None,
    )
