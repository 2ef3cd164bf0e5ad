"""What each recovery brings back, and whether that was displaced: the numbers behind the word, or why it is not said."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.verdicts import Estimate, NotEstimable
from harness.report import format as fmt
from harness.report.answers import TUNING, Answered, find_answers
from harness.report.bundle import RunBundle
from harness.report.view import UNKNOWN, EstimateView, accuracy_view, anchor
from harness.stats.answer import Answer
from harness.stats.attribution import Attribution, Recall

_CONTROL = "random_prompt"


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
class AnswerView:
    """All recovered cells of the run."""

    title: str
    rows: tuple[AnswerRow, ...]


def view_answer(bundle: RunBundle) -> AnswerView:
    """The answers of a run."""
    return AnswerView("Forgotten or displaced", tuple(_row(one) for one in find_answers(bundle)))


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
    """The answer in words; "displaced" only where both of its conditions hold, for a prompt that was meant to recover."""
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
    back, again, never = one.lost.displaced, one.lost.relearned, one.lost.unrecovered
    return f"{fmt.count(back)} by this, {fmt.count(again)} by LoRA only, {fmt.count(never)} by neither"
