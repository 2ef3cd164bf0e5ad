"""The same items in two outcomes, matched by content digest: never by position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.core.columns import StoredItems
from harness.core.records import CellRun, Item, Outcomes, TaskRun
from harness.core.verdicts import PairedCounts
from harness.report.bundle import Reference, RunBundle


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


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Right answers of one relation in each of up to three runs; None where that run has not the same items."""

    group: str
    n_items: int
    n_right_dense: int | None
    n_right_baseline: int | None
    n_right_candidate: int


def right_in(reference: Outcomes, digests: Iterable[str]) -> np.ndarray:
    """Whether the reference was right on each of the items, in the order asked for."""
    right = dict(zip(reference.digests, reference.correct.tolist(), strict=True))
    return np.array([right[digest] for digest in digests], dtype=np.bool_)


def count_pairs(candidate: Outcomes, reference: Outcomes) -> PairedCounts:
    """Items lost, gained and unchanged from the reference to the candidate, over the candidate's items."""
    return count_changes(right_in(reference, candidate.digests), candidate.correct)


def count_changes(was: np.ndarray, now: np.ndarray) -> PairedCounts:
    """Items lost, gained and unchanged between two columns of right answers to the same items."""
    n_lost, n_gained = int((was & ~now).sum()), int((~was & now).sum())
    return PairedCounts(n_lost, n_gained, len(now) - n_lost - n_gained)


@lru_cache(maxsize=1)
def compared_flips(bundle: RunBundle) -> tuple[tuple[TaskRun, str, tuple[Flip, ...]], ...]:
    """Every task run against each reference ("baseline", "dense model") that has outcomes of the same items: what flipped.

    Kept for the bundle at hand, which never changes: several parts of its report ask for it, and of a large run it takes
    seconds.
    """
    found = []
    for entry in bundle.cells:
        if not isinstance(entry, CellRun):
            continue
        cell = entry.record.cell
        references = [("baseline", bundle.baselines.get(cell.id))]
        references += [] if cell.is_dense else [("dense model", bundle.dense.get(cell.model))]
        for run in entry.runs.values():
            for name, reference in references:
                outcomes = comparable(run, reference)
                if run.items and outcomes is not None:
                    found.append((run, name, flips(run, outcomes)))
    return tuple(found)


def comparable(run: TaskRun, reference: Reference | None) -> Outcomes | None:
    """The reference's outcomes of a task, where they are of the very items of the run; None otherwise.

    A run that was limited, or decided early, holds a part of the items: the reference must know every one of them.
    """
    outcomes = None if reference is None else reference.outcomes.get(run.info.name)
    if outcomes is None or len(run.outcomes) == 0:
        return None
    is_part = run.info.limit is not None or len(run.outcomes) < run.info.n_items
    if len(outcomes) != len(run.outcomes) and not is_part:
        return None
    return outcomes if set(run.outcomes.digests) <= set(outcomes.digests) else None


def flips(run: TaskRun, reference: Outcomes) -> tuple[Flip, ...]:
    """The items that changed sides, lost ones first, each side by how far the candidate's answer moved.

    Only these items are looked at: the others may stay in their file.
    """
    place = {digest: i for i, digest in enumerate(reference.digests)}
    moved = np.flatnonzero(right_in(reference, run.outcomes.digests) != run.outcomes.correct).tolist()
    found = [_flip(run.items[i], run.outcomes, i, reference, place[run.outcomes.digests[i]]) for i in moved]
    return tuple(sorted(found, key=_order))


def groups_of(run: TaskRun) -> tuple[str, ...]:
    """The relation of each item of a run."""
    return run.items.groups if isinstance(run.items, StoredItems) else tuple(item.group for item in run.items)


def count_groups(run: TaskRun, baseline: Outcomes | None, dense: Outcomes | None) -> tuple[GroupCounts, ...]:
    """Right answers per relation, relations in the order of their first item."""
    digests, names = run.outcomes.digests, groups_of(run)
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    groups = np.array([number[name] for name in names], dtype=np.int64)

    def count(right: np.ndarray | None) -> list[int | None]:
        counted: list[int] = np.bincount(groups if right is None else groups[right], minlength=len(number)).tolist()
        return [None if right is None else n for n in counted]

    was = [count(None if o is None else right_in(o, digests)) for o in (dense, baseline)]
    n_items = np.bincount(groups, minlength=len(number)).tolist()
    now = np.bincount(groups[run.outcomes.correct], minlength=len(number)).tolist()
    return tuple(GroupCounts(name, n_items[i], was[0][i], was[1][i], now[i]) for name, i in number.items())


def option_of(item: Item, answer: Answer) -> str | None:
    """The option that an answer is; None where it is none of them."""
    return None if answer.choice is None else item.options[answer.choice]


def _flip(item: Item, now: Outcomes, here: int, was: Outcomes, there: int) -> Flip:
    return Flip(
        item=item,
        lost=bool(was.correct[there]),
        near_tie=bool(now.near_ties[here]) or bool(was.near_ties[there]),
        reference=_answer(item, was, there),
        candidate=_answer(item, now, here),
    )


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


def _order(flip: Flip) -> tuple[bool, float, str]:
    return (not flip.lost, -abs(flip.candidate.margin_nats - flip.reference.margin_nats), flip.item.id)
