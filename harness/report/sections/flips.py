"""The items that changed sides, both ways: what was asked, what is right, what was answered before and now."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.records import TaskRun
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.pairs import Flip, compared_flips
from harness.report.view import anchor

N_INLINE = 50
"""Flips that the page shows per comparison; report.json has all."""

LONGEST_PROMPT = 600
LONGEST_ANSWER = 120
MOST_OPTIONS = 20


@dataclass(frozen=True, slots=True)
class OptionView:
    """One answer that competed, with its log-likelihood before and now."""

    text: str
    marks: str
    reference: str
    candidate: str


@dataclass(frozen=True, slots=True)
class FlipView:
    """One item that changed sides. Its texts are foreign: templates isolate their direction."""

    item: str
    group: str
    prompt: str
    gold: tuple[str, ...]
    answer_reference: str
    answer_candidate: str
    margin_reference: str
    margin_candidate: str
    near_tie: bool
    options: tuple[OptionView, ...]
    n_options_hidden: int


@dataclass(frozen=True, slots=True)
class FlipSide:
    """The flips of one direction: lost or gained."""

    name: str
    summary: str
    shown: tuple[FlipView, ...]
    n_hidden: int


@dataclass(frozen=True, slots=True)
class FlipTable:
    """One task of one cell against one reference."""

    id: str
    cell: str
    task: str
    reference: str
    summary: str
    sides: tuple[FlipSide, ...]


@dataclass(frozen=True, slots=True)
class FlipsView:
    """All comparisons that have flips; ``silent`` are those that have none."""

    title: str
    tables: tuple[FlipTable, ...]
    silent: tuple[str, ...]


def view_flips(bundle: RunBundle) -> FlipsView:
    """The flips of a run: every cell against its baseline, then against its dense model."""
    tables, silent = [], []
    for run, name, found in compared_flips(bundle):
        if found:
            tables.append(_table(run, name, found))
        else:
            silent.append(f"{run.cell}-{fmt.visible(run.info.name)} against its {name}")
    return FlipsView("Flips", tuple(tables), tuple(silent))


def _table(run: TaskRun, name: str, found: tuple[Flip, ...]) -> FlipTable:
    lost = [flip for flip in found if flip.lost]
    gained = [flip for flip in found if not flip.lost]
    room_lost = N_INLINE - min(len(gained), N_INLINE // 2)
    n_lost = min(len(lost), room_lost)
    return FlipTable(
        id=anchor("flips", run.cell, run.info.name, name),
        cell=run.cell,
        task=fmt.visible(run.info.name),
        reference=name,
        summary=f"{fmt.count(len(lost))} lost, {fmt.count(len(gained))} gained of {fmt.plural(len(run.outcomes), 'item')}",
        sides=tuple(
            FlipSide(side, what, tuple(_flip(flip) for flip in flips_of[:room]), max(0, len(flips_of) - room))
            for side, what, flips_of, room in (
                ("lost", f"right in the {name}, wrong now", lost, room_lost),
                ("gained", f"wrong in the {name}, right now", gained, N_INLINE - n_lost),
            )
            if flips_of
        ),
    )


def _flip(flip: Flip) -> FlipView:
    item = flip.item
    options = _options(flip)
    return FlipView(
        item=fmt.visible(item.id, LONGEST_ANSWER),
        group=fmt.visible(item.group, LONGEST_ANSWER),
        prompt=fmt.visible(item.prompt, LONGEST_PROMPT),
        gold=tuple(fmt.visible(item.options[g], LONGEST_ANSWER) for g in item.gold),
        answer_reference=_answer(flip.answer_reference),
        answer_candidate=_answer(flip.answer_candidate),
        margin_reference=fmt.nats(flip.margin_reference_nats),
        margin_candidate=fmt.nats(flip.margin_candidate_nats),
        near_tie=flip.near_tie,
        options=options,
        n_options_hidden=len(flip.logliks_nats) - len(options),
    )


def _answer(text: str | None) -> str:
    return "none of the options" if text is None else fmt.visible(text, LONGEST_ANSWER)


def _options(flip: Flip) -> tuple[OptionView, ...]:
    item = flip.item
    scored = [(text, was, now, i) for i, (text, (was, now)) in enumerate(zip(item.options, flip.logliks_nats, strict=False))]
    scored.sort(key=lambda row: (-(row[2] if row[2] is not None else row[1] or 0.0), row[3]))
    return tuple(
        OptionView(
            text=fmt.visible(text, LONGEST_ANSWER),
            marks="right" if i in item.gold else "",
            reference="not kept" if was is None else fmt.nats(was),
            candidate="not kept" if now is None else fmt.nats(now),
        )
        for text, was, now, i in scored[:MOST_OPTIONS]
    )
