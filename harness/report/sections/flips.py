"""The items that changed sides, both ways: what was asked, what is right, what was answered before and now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.listing import MOST_ROWS, comparisons, flips_anchor, listed, shares
from harness.report.pairs import Answer, Flip, Flips, option_of
from harness.report.scores import ScoresView, view_scores

MOST_SCORED = 600
"""Listed flips whose options' scores are drawn."""

LONGEST_PROMPT = 600
LONGEST_ANSWER = 120
LONGEST_SAID = 70
"""Characters of a generated answer in the table; the whole of it opens below."""

MOST_GOLD = 3


@dataclass(frozen=True, slots=True)
class SaidView:
    """What one model answered. ``note`` sets a generated text apart from the option that it was read as."""

    text: str
    note: str


@dataclass(frozen=True, slots=True)
class FlipView:
    """One item that changed sides. Its texts are foreign: templates isolate their direction.

    ``id`` is a link's target where the row is the first of its comparison and direction. ``why_no_scores`` is "" where there
    are scores or where nothing is missing.
    """

    id: str
    cell: str
    task: str
    against: str
    side: str
    near_tie: bool
    item: str
    group: str
    prompt: str
    gold: tuple[str, ...]
    n_gold_hidden: str
    before: SaidView
    now: SaidView
    lead_before: str
    lead_now: str
    scores: ScoresView | None
    why_no_scores: str


@dataclass(frozen=True, slots=True)
class FlipCount:
    """What flipped in one task of one cell against one reference; a link is "" where nothing is listed."""

    against: str
    n_lost: str
    n_gained: str
    lost_href: str
    gained_href: str


@dataclass(frozen=True, slots=True)
class CountsRow:
    """One cell's counts, a tuple for each task, empty where it was compared with nothing."""

    cell: str
    counts: tuple[tuple[FlipCount, ...], ...]


@dataclass(frozen=True, slots=True)
class FlipsView:
    """The counts of every comparison, then the flips themselves. ``left_out`` says what the table does not list."""

    title: str
    tasks: tuple[str, ...]
    counts: tuple[CountsRow, ...]
    flips: tuple[FlipView, ...]
    left_out: str


def view_flips(bundle: RunBundle) -> FlipsView:
    """The flips of a run: every cell against its baseline, then every cell against its dense model."""
    compared = comparisons(bundle)
    opening = [found.only(found.open) for found in compared]
    opened = [listed(found, n) for found, n in zip(opening, shares(opening, MOST_SCORED), strict=True)]
    room = zip(compared, shares(compared, MOST_ROWS), opened, strict=True)
    rows = tuple(row for one, share, scored in room for row in _rows(one, share, scored))
    counts = _counts(compared, frozenset(row.id for row in rows))
    n_all = sum(map(len, compared))
    return FlipsView("Flips", tuple(map(fmt.visible, _tasks(compared))), counts, rows, _left_out(rows, n_all))


def _left_out(rows: Sequence[FlipView], n_all: int) -> str:
    said = []
    if len(rows) < n_all:
        said.append(
            f"{fmt.count(len(rows))} of {fmt.count(n_all)} flips are listed, of each comparison those whose lead moved most; "
            "report.json has all."
        )
    if n_bare := sum(row.why_no_scores == IN_JSON for row in rows):
        said.append(f"Of {fmt.count(n_bare)} listed flips the options’ scores and whole answers are only in report.json.")
    return " ".join(said)


IN_JSON = "more in report.json"
NOT_KEPT = "scores not kept"
TEXT_NOT_KEPT = "its words were not kept"
"""Of a generated answer, or the likeliest word of a vocabulary, in a baseline: it holds no text."""


def _rows(found: Flips, share: int, scored: Flips) -> Iterator[FlipView]:
    """The listed flips of one comparison, lost ones first; those in ``scored`` with all that opens under them."""
    shown, seen = listed(found, share), set[bool]()
    for flip, opens, with_scores in zip(shown, shown.open, np.isin(shown.here, scored.here), strict=True):
        row_id = "" if flip.lost in seen else flips_anchor(found.run.cell, found.run.info.name, found.against, flip.lost)
        seen.add(flip.lost)
        scores = view_scores(flip, found.against) if with_scores else None
        yield _row(found, flip, row_id, scores, why_no_scores=NOT_KEPT if not opens else "" if with_scores else IN_JSON)


def _row(found: Flips, flip: Flip, row_id: str, scores: ScoresView | None, *, why_no_scores: str) -> FlipView:
    item = flip.item
    generated = found.run.info.score_class == "generation"
    n_gold_hidden = len(item.gold) - MOST_GOLD
    return FlipView(
        id=row_id,
        cell=found.run.cell,
        task=fmt.visible(found.run.info.name),
        against=found.against,
        side="lost" if flip.lost else "gained",
        near_tie=flip.near_tie,
        item=fmt.visible(item.id, LONGEST_ANSWER),
        group=fmt.visible(item.group, LONGEST_ANSWER),
        prompt=fmt.visible(item.prompt, LONGEST_PROMPT),
        gold=tuple(fmt.visible(item.options[g], LONGEST_ANSWER) for g in item.gold[:MOST_GOLD]),
        n_gold_hidden=fmt.count(n_gold_hidden) if n_gold_hidden > 0 else "",
        before=_said(flip, flip.reference),
        now=_said(flip, flip.candidate),
        lead_before="–" if generated else fmt.nats(flip.reference.margin_nats),
        lead_now="–" if generated else fmt.nats(flip.candidate.margin_nats),
        scores=scores,
        why_no_scores=why_no_scores,
    )


def _said(flip: Flip, answer: Answer) -> SaidView:
    option = option_of(flip.item, answer)
    if answer.text is None:
        shown = "none of the options" if option is None else fmt.visible(option, LONGEST_ANSWER)
        has_words = flip.reference.text is not None or flip.candidate.text is not None
        return SaidView(shown, TEXT_NOT_KEPT if has_words else "")
    shown = fmt.visible(" ".join(answer.text.split()), LONGEST_SAID) if answer.text.strip() else "(empty)"
    if option is None:
        return SaidView(shown, "none of the options")
    return SaidView(shown, "" if answer.text.strip() == option else f"read as {fmt.visible(option, LONGEST_ANSWER)}")


def _tasks(compared: Sequence[Flips]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found.run.info.name for found in compared))


def _counts(compared: Sequence[Flips], ids: frozenset[str]) -> tuple[CountsRow, ...]:
    tasks = _tasks(compared)
    counted: dict[str, dict[str, list[FlipCount]]] = {}
    for found in compared:
        counted.setdefault(found.run.cell, {}).setdefault(found.run.info.name, []).append(_count(found, ids))
    return tuple(CountsRow(cell, tuple(tuple(of_task.get(task, ())) for task in tasks)) for cell, of_task in counted.items())


def _count(found: Flips, ids: frozenset[str]) -> FlipCount:
    anchors = [flips_anchor(found.run.cell, found.run.info.name, found.against, lost) for lost in (True, False)]
    hrefs = [anchor if anchor in ids else "" for anchor in anchors]
    return FlipCount(found.against, fmt.count(found.n_lost), fmt.count(found.n_gained), hrefs[0], hrefs[1])
