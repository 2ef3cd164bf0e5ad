"""What each recovery brings back, and whether that was displaced: the numbers behind the word, or why it is not said."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.core.records import Cell
from harness.core.verdicts import Estimate, NotEstimable
from harness.report import format as fmt
from harness.report.answers import TUNING, Answered, AnswerPart, find_answers, find_groups
from harness.report.budget import share_out
from harness.report.bundle import RunBundle
from harness.report.view import UNKNOWN, EstimateView, accuracy_view, anchor
from harness.stats.answer import Answer
from harness.stats.attribution import Attribution, LostItems, Recall

_CONTROL = "random_prompt"

MOST_PARTS = 2000
"""Relations and groups that the page lists, all tables together; report.json has every one."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One task of one recovered cell. Gains are in points of all items, positive where recovery helps."""

    cell: str
    href: str
    task: str
    sentence: str
    is_displaced: bool
    gap_closed: EstimateView
    gain: EstimateView
    dense_gain: EstimateView
    beyond: EstimateView
    lost_back: EstimateView
    never_back: EstimateView
    displaced: EstimateView
    lost: str


@dataclass(frozen=True, slots=True)
class PartRow:
    """One relation, or one group of knowledge. Gains are in points of its items."""

    name: str
    n_items: str
    gap_closed: EstimateView
    gain: EstimateView
    dense_gain: EstimateView
    back: str
    lost: str


@dataclass(frozen=True, slots=True)
class PartTable:
    """The relations of one task of a cell, or (``task`` is "") its groups of knowledge; those that lost most items first."""

    cell: str
    task: str
    summary: str
    kind: str
    rows: tuple[PartRow, ...]
    n_hidden: str


@dataclass(frozen=True, slots=True)
class AnswerView:
    """All recovered cells of the run, and what they are made of."""

    title: str
    rows: tuple[AnswerRow, ...]
    parts: tuple[PartTable, ...]


def view_answer(bundle: RunBundle) -> AnswerView:
    """The answers of a run."""
    found = find_answers(bundle)
    parted = [(cell, "", parts) for cell, parts in find_groups(bundle).items()]
    parted += [(one.cell, one.task, one.parts) for one in found if one.parts]
    shares = share_out([len(parts) for _, _, parts in parted], MOST_PARTS)
    tables = tuple(_table(*one, share) for one, share in zip(parted, shares, strict=True))
    return AnswerView("Forgotten or displaced", tuple(_row(one) for one in found), tables)


def _table(cell: Cell, task: str, parts: tuple[AnswerPart, ...], share: int) -> PartTable:
    lost, back = sum(part.n_lost for part in parts), sum(part.n_back for part in parts)
    kind = "relation" if task else "group of knowledge"
    of_all = fmt.plural(len(parts), kind, None if task else "groups of knowledge")
    ordered = sorted(parts, key=lambda part: (-part.n_lost, part.name))
    return PartTable(
        cell=cell.id,
        task=fmt.visible(task),
        summary=f"{of_all}, {fmt.count(back)} of {fmt.plural(lost, 'lost item')} brought back",
        kind=kind.capitalize(),
        rows=tuple(_part(part) for part in ordered[:share]),
        n_hidden=fmt.count(len(parts) - share) if share < len(parts) else "",
    )


def _part(part: AnswerPart) -> PartRow:
    gap = accuracy_view(part.gap_closed)
    return PartRow(
        name=fmt.visible(part.name, 80),
        n_items=fmt.count(part.n_items),
        gap_closed=replace(gap, note="") if gap.text == "undefined" else gap,  # why is said once, above
        gain=_points(part.gain),
        dense_gain=_points(part.dense_gain),
        back=f"{fmt.count(part.n_back)} of {fmt.count(part.n_lost)}",
        lost="" if part.lost is None else _split(part.lost),
    )


def _row(one: Answered) -> AnswerRow:
    made = one.answer
    beyond = NotEstimable("") if made is None else made.beyond
    recall = NotEstimable("") if made is None else made.recall
    return AnswerRow(
        cell=one.cell.id,
        href=anchor("cell", one.cell.id),
        task=fmt.visible(one.task),
        sentence=_sentence(one),
        is_displaced=_says_displaced(one),
        gap_closed=UNKNOWN if made is None else accuracy_view(made.gap_closed),
        gain=_points(None if made is None else made.gain),
        dense_gain=_points(None if isinstance(beyond, NotEstimable) else beyond.dense_gain),
        beyond=_points(None if isinstance(beyond, NotEstimable) else beyond.difference),
        lost_back=accuracy_view(recall.lost) if isinstance(recall, Recall) else UNKNOWN,
        never_back=accuracy_view(recall.never) if isinstance(recall, Recall) else UNKNOWN,
        displaced=_share(made),
        lost=_lost(one),
    )


def _says_displaced(one: Answered) -> bool:
    return one.answer is not None and one.answer.is_displaced and one.method not in (TUNING, _CONTROL)


def _sentence(one: Answered) -> str:
    """The answer in words; "displaced" only where all of its conditions hold, for a prompt that was meant to recover."""
    if one.answer is None:
        return f"Not answered: {one.missing}."
    if one.method == _CONTROL:
        return "A control: nobody trained this prompt, so what it gains is no recovery."
    if one.method == TUNING:
        return "Added weights were trained: what only they bring back was learnt again. Prompts tell what was displaced."
    if not one.answer.is_displaced:
        return f"Not enough evidence that knowledge was displaced: {one.answer.why_not}."
    share = one.answer.attribution.share if isinstance(one.answer.attribution, Attribution) else NotEstimable("")
    how_much = f"an estimated {fmt.percent(share.value, 0)}" if isinstance(share, Estimate) else "a part"
    return f"Of what compression lost, {how_much} was displaced: prompting alone brings it back."


def _points(value: Estimate | None) -> EstimateView:
    if value is None:
        return UNKNOWN
    note = f"{fmt.percent(value.level, 0)} interval, {value.method}"
    return EstimateView(fmt.points(value.value), fmt.points_interval(value.low, value.high), note)


def _share(made: Answer | None) -> EstimateView:
    if made is None:
        return UNKNOWN
    return accuracy_view(made.attribution.share if isinstance(made.attribution, Attribution) else made.attribution)


def _lost(one: Answered) -> str:
    if one.lost is None:
        return "" if one.answer is None or one.method == TUNING else "no LoRA cell beside it"
    return _split(one.lost)


def _split(lost: LostItems) -> str:
    back, again, never = lost.displaced, lost.relearned, lost.unrecovered
    return f"{fmt.count(back)} by this, {fmt.count(again)} by LoRA only, {fmt.count(never)} by neither"
