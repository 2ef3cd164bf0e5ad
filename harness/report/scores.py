"""What every option of a flipped item scored, before and now: the options a reader wants, as paired bars and numbers.

A bar is how far an option lies behind the best one of its own run, so that runs whose scores differ as a whole can still be
compared: the best has a dot at the line and no bar.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.report import format as fmt
from harness.report.pairs import Answer, Flip
from harness.report.plots import decimals

MOST_OPTIONS = 12
"""Options that the page shows of one item: the right ones and both answers, then the best."""

LONGEST_OPTION = 120
LONGEST_TEXT = 2000
"""Characters of a generated answer that the page shows; report.json has the whole."""

BAR_ROOM = 150
"""Length of the longest bar of an item, in drawing units."""


@dataclass(frozen=True, slots=True)
class ScoreView:
    """One option's score in one run. ``bar`` is its bar's length, "" for the best option (a dot) or an unknown score."""

    nats: str
    behind: str
    bar: str
    is_best: bool


@dataclass(frozen=True, slots=True)
class OptionView:
    """One option with its two scores; ``marks`` are "right", "said before", "says now"."""

    text: str
    marks: tuple[str, ...]
    before: ScoreView
    now: ScoreView


@dataclass(frozen=True, slots=True)
class ScoresView:
    """All that opens under a flip: its options' scores (empty where none was kept), and generated answers in full."""

    title: str
    notes: tuple[str, ...]
    options: tuple[OptionView, ...]
    n_hidden: str
    text_before: str
    text_now: str


def view_scores(flip: Flip, reference: str) -> ScoresView | None:
    """What opens under a flip; None where neither scores nor texts were kept. ``reference`` names the other run."""
    texts = [_text(answer) for answer in (flip.reference, flip.candidate)]
    options = _options(flip)
    if not options and texts == ["", ""]:
        return None
    n_hidden = len(flip.item.options) - len(options) if options else 0
    words = (["each option’s score"] if options else []) + (["both answers in full"] if any(texts) else [])
    title = " and ".join(words)
    return ScoresView(
        title=title[0].upper() + title[1:],
        notes=tuple(_notes(flip, reference)) if options else (),
        options=options,
        n_hidden=fmt.count(n_hidden) if n_hidden else "",
        text_before=texts[0],
        text_now=texts[1],
    )


def pick_options(flip: Flip, most: int) -> tuple[int, ...]:
    """At most about ``most`` options of an item, best first by the candidate's scores (or the reference's).

    The right ones and both answers are always among them.
    """
    scores = flip.candidate.logliks_nats or flip.reference.logliks_nats
    places = range(len(flip.item.options))
    ranked = sorted(places, key=lambda i: -scores[i]) if scores else list(places)
    chosen = [choice for choice in (flip.reference.choice, flip.candidate.choice) if choice is not None]
    needed = {*flip.item.gold[:most], *chosen}
    others = [i for i in ranked if i not in needed]
    kept = needed | set(others[: max(0, most - len(needed))])
    return tuple(i for i in ranked if i in kept)


def _options(flip: Flip) -> tuple[OptionView, ...]:
    if flip.reference.logliks_nats is None and flip.candidate.logliks_nats is None:
        return ()
    picked = pick_options(flip, MOST_OPTIONS)
    gaps = [_gaps(answer) for answer in (flip.reference, flip.candidate)]
    shown = [gap[i] for gap in gaps if gap is not None for i in picked]
    reach = max((gap for gap in shown if math.isfinite(gap)), default=0.0)
    return tuple(
        OptionView(
            text=fmt.visible(flip.item.options[i], LONGEST_OPTION),
            marks=tuple(_marks(flip, i)),
            before=_score(flip.reference, gaps[0], i, reach),
            now=_score(flip.candidate, gaps[1], i, reach),
        )
        for i in picked
    )


def _gaps(answer: Answer) -> tuple[float, ...] | None:
    """How far each option lies behind the best of its run, in nats, at least 0."""
    if answer.logliks_nats is None:
        return None
    best = max(answer.logliks_nats)
    return tuple(best - score for score in answer.logliks_nats)


def _score(answer: Answer, gaps: tuple[float, ...] | None, i: int, reach: float) -> ScoreView:
    if answer.logliks_nats is None or gaps is None:
        return ScoreView("not kept", "", "", is_best=False)
    if not math.isfinite(gaps[i]):
        return ScoreView("not finite", "", decimals(BAR_ROOM), is_best=False)
    if gaps[i] == 0:
        return ScoreView(fmt.nats(answer.logliks_nats[i]), "best", "", is_best=True)
    length = max(1.0, BAR_ROOM * gaps[i] / reach)
    return ScoreView(fmt.nats(answer.logliks_nats[i]), fmt.nats(-gaps[i]), decimals(length), is_best=False)


def _marks(flip: Flip, i: int) -> Iterable[str]:
    if i in flip.item.gold:
        yield "right"
    if i == flip.reference.choice:
        yield "said before"
    if i == flip.candidate.choice:
        yield "says now"


def _notes(flip: Flip, reference: str) -> Iterable[str]:
    for name, answer in ((reference, flip.reference), ("candidate", flip.candidate)):
        if answer.logliks_nats is None:
            yield f"The {name}’s scores were not kept."
    ranks = [fmt.count(answer.rank) for answer in (flip.reference, flip.candidate)]
    if ranks[0] != ranks[1]:
        n = fmt.plural(len(flip.item.options), "option")
        yield f"The right answer’s rank: {ranks[0]} before, {ranks[1]} now, of {n}."


def _text(answer: Answer) -> str:
    if answer.text is None:
        return ""
    n_cut = len(answer.text) - LONGEST_TEXT
    more = f" ({fmt.count(n_cut)} more characters are in report.json)" if n_cut > 0 else ""
    return fmt.visible(answer.text, LONGEST_TEXT) + more if answer.text else "(empty)"
