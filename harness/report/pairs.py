"""The same items in two outcomes, matched by content digest: never by position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from harness.core.records import CellRun, Item, Outcomes, TaskRun
from harness.core.verdicts import PairedCounts
from harness.report.bundle import Reference, RunBundle


@dataclass(frozen=True, slots=True)
class Flip:
    """One item whose answer changed sides: ``lost`` (right in the reference, wrong now) or gained.

    Margins are the right answer's lead in nats, negative where it is beaten. An answer is None where the scorer recorded none
    of the item's options. ``logliks_nats`` are (reference, candidate) per option, empty where they were not kept.
    """

    item: Item
    lost: bool
    answer_reference: str | None
    answer_candidate: str | None
    margin_reference_nats: float
    margin_candidate_nats: float
    near_tie: bool
    logliks_nats: tuple[tuple[float | None, float | None], ...]


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Right answers of one relation in each of up to three runs; None where that run has not the same items."""

    group: str
    n_items: int
    n_right_dense: int | None
    n_right_baseline: int | None
    n_right_candidate: int


def same_items(candidate: Outcomes, reference: Outcomes) -> bool:
    """Whether two outcomes are of the same items, in whatever order."""
    return len(candidate) == len(reference) and set(candidate.digests) == set(reference.digests)


def right_in(reference: Outcomes, digests: Iterable[str]) -> np.ndarray:
    """Whether the reference was right on each of the items, in the order asked for."""
    right = dict(zip(reference.digests, reference.correct.tolist(), strict=True))
    return np.array([right[digest] for digest in digests], dtype=np.bool_)


def count_pairs(candidate: Outcomes, reference: Outcomes) -> PairedCounts:
    """Items lost, gained and unchanged from the reference to the candidate; both have the same items."""
    was, now = right_in(reference, candidate.digests), candidate.correct
    n_lost, n_gained = int((was & ~now).sum()), int((~was & now).sum())
    return PairedCounts(n_lost, n_gained, len(candidate) - n_lost - n_gained)


def compared_flips(bundle: RunBundle) -> list[tuple[TaskRun, str, tuple[Flip, ...]]]:
    """Every task run against each reference ("baseline", "dense model") that has outcomes of the same items: what flipped."""
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
    return found


def comparable(run: TaskRun, reference: Reference | None) -> Outcomes | None:
    """The reference's outcomes of a task, where they are of the very items of the run."""
    outcomes = None if reference is None else reference.outcomes.get(run.info.name)
    return outcomes if outcomes is not None and same_items(run.outcomes, outcomes) else None


def flips(run: TaskRun, reference: Outcomes) -> tuple[Flip, ...]:
    """The items that changed sides, lost ones first, each side by how far the candidate's answer moved."""
    place = {digest: i for i, digest in enumerate(reference.digests)}
    found = []
    for here, (item, digest) in enumerate(zip(run.items, run.outcomes.digests, strict=True)):
        there = place[digest]
        if bool(run.outcomes.correct[here]) != bool(reference.correct[there]):
            found.append(_flip(item, run.outcomes, here, reference, there))
    return tuple(sorted(found, key=_order))


def count_groups(run: TaskRun, baseline: Outcomes | None, dense: Outcomes | None) -> tuple[GroupCounts, ...]:
    """Right answers per relation, relations in the order of their first item."""
    digests = run.outcomes.digests
    groups = np.array([item.group for item in run.items], dtype=object)
    columns = [None if o is None else right_in(o, digests) for o in (dense, baseline)]
    found = []
    for group in dict.fromkeys(groups.tolist()):
        inside = groups == group
        was = [None if column is None else int(column[inside].sum()) for column in columns]
        found.append(GroupCounts(group, int(inside.sum()), was[0], was[1], int(run.outcomes.correct[inside].sum())))
    return tuple(found)


def _flip(item: Item, now: Outcomes, here: int, was: Outcomes, there: int) -> Flip:
    scores_was = None if was.option_logliks_nats is None else was.option_logliks_nats[there]
    scores_now = None if now.option_logliks_nats is None else now.option_logliks_nats[here]
    return Flip(
        item=item,
        lost=bool(was.correct[there]),
        answer_reference=_answer(item, int(was.answers[there])),
        answer_candidate=_answer(item, int(now.answers[here])),
        margin_reference_nats=float(was.margins_nats[there]),
        margin_candidate_nats=float(now.margins_nats[here]),
        near_tie=bool(now.near_ties[here]) or bool(was.near_ties[there]),
        logliks_nats=_scores(len(item.options), scores_was, scores_now),
    )


def _scores(
    n_options: int, was: tuple[float, ...] | None, now: tuple[float, ...] | None
) -> tuple[tuple[float | None, float | None], ...]:
    kept = [None if column is None or len(column) != n_options else column for column in (was, now)]
    if kept == [None, None]:
        return ()
    return tuple((kept[0][i] if kept[0] else None, kept[1][i] if kept[1] else None) for i in range(n_options))


def _answer(item: Item, answer: int) -> str | None:
    return item.options[answer] if 0 <= answer < len(item.options) else None


def _order(flip: Flip) -> tuple[bool, float, str]:
    return (not flip.lost, -abs(flip.margin_candidate_nats - flip.margin_reference_nats), flip.item.id)
