"""Which prompt was chosen how often, and what choosing is worth: beside each prompt alone, a random and the best choice."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.verdicts import Estimate, NotEstimable
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.choices import Chosen, find_choices
from harness.report.plots import decimals
from harness.report.view import UNKNOWN, EstimateView, accuracy_view, anchor, loss_view
from harness.stats.choices import Worth

BAR_WIDTH = 120

NEARLY_ALWAYS = 0.95
"""From this share of the items on, a prompt is as good as always chosen."""


_BEST = "the best single prompt, which was picked on these very items"

_SAID = {
    (1, 1): "Choosing has more right than a random choice and than the best single prompt.",
    (1, 0): "Choosing has more right than a random choice; that it differs from the best single prompt is not shown.",
    (1, -1): f"Choosing has more right than a random choice, and less than {_BEST}.",
    (0, 1): "Choosing has more right than the best single prompt; that it differs from a random choice is not shown.",
    (0, 0): "That choosing is better than a random choice, or than the best single prompt, is not shown.",
    (0, -1): f"Choosing has less right than {_BEST}; that it differs from a random choice is not shown.",
    (-1, 1): "Choosing has less right than a random choice.",
    (-1, 0): "Choosing has less right than a random choice.",
    (-1, -1): f"Choosing has less right than a random choice, and than {_BEST}.",
}
"""By the signs of what choosing has over a random choice, and over the best single prompt."""

_GOES_ON = "It goes on with a pass that read all prompts, and its controls read one: it may be right where none of them is."
"""Of the mode "continue": then neither the oracle nor the open items bound what it can do."""


@dataclass(frozen=True, slots=True)
class PromptBar:
    """How often one prompt was chosen, drawn and in words; ``before`` is the bar of the baseline, "" without one."""

    prompt: str
    length: str
    before: str
    share: str
    items: str
    words: str


@dataclass(frozen=True, slots=True)
class ChoiceRow:
    """One task of one cell that chooses. Differences are in points of all items, positive where choosing is better."""

    cell: str
    href: str
    task: str
    mode: str
    sentence: str
    warning: str
    bars: tuple[PromptBar, ...]
    several: str
    accuracy: EstimateView
    best: EstimateView
    best_name: str
    over_best: EstimateView
    random: EstimateView
    over_random: EstimateView
    drawn: EstimateView
    oracle: EstimateView
    open_items: str
    open_right: EstimateView
    open_random: str


@dataclass(frozen=True, slots=True)
class ChoicesView:
    """All cells that choose."""

    title: str
    bar_width: int
    rows: tuple[ChoiceRow, ...]


def view_choices(bundle: RunBundle) -> ChoicesView:
    """The choices of a run."""
    return ChoicesView("Prompt choice", BAR_WIDTH, tuple(_row(one) for one in find_choices(bundle)))


def _row(one: Chosen) -> ChoiceRow:
    worth = one.worth
    return ChoiceRow(
        cell=one.cell.id,
        href=anchor("cell", one.cell.id),
        task=fmt.visible(one.task),
        mode="goes on with the pass that chose" if one.mode == "continue" else "",
        sentence=f"{_chose(one)} {_worth(one)}",
        warning=fmt.visible(one.shift.warning) if one.shift else "",
        bars=tuple(_bar(one, number) for number in range(len(one.lengths))),
        several=f"{fmt.count(one.n_several)} behind several, in equal parts" if one.n_several else "",
        accuracy=accuracy_view(worth.accuracy if worth else None),
        best=accuracy_view(worth.best_accuracy if worth else None),
        best_name=prompt_name(one, worth.best) if worth else "",
        over_best=loss_view(worth.over_best) if worth else UNKNOWN,
        random=accuracy_view(worth.random if worth else None),
        over_random=loss_view(worth.over_random) if worth else UNKNOWN,
        drawn=accuracy_view(one.drawn),
        oracle=accuracy_view(worth.oracle if worth else None),
        open_items=f"{fmt.count(worth.n_open)} of {fmt.count(one.n_items)}" if worth else "unknown",
        open_right=accuracy_view(worth.open_right if worth else None),
        open_random=_open_random(worth),
    )


def prompt_name(one: Chosen, number: int) -> str:
    """A prompt's name on the page."""
    return f"prompt {number} ({fmt.plural(one.lengths[number], 'token')})"


def _chose(one: Chosen) -> str:
    """Which prompts were chosen, in words; that it was always the same is said first and plainly."""
    top = max(range(len(one.counts)), key=lambda number: one.counts[number])
    name, items = prompt_name(one, top), fmt.plural(one.n_items, "item")
    if one.always is not None:
        alone = "its answers are that prompt's alone, and " if one.mode == "exact" else ""
        return f"It chose {name} for every one of {items}: {alone}nothing was chosen."
    share = one.counts[top] / one.n_items
    unused = [number for number, count in enumerate(one.counts) if count == 0]
    never = f", never {' or '.join(prompt_name(one, number) for number in unused)}" if unused else ""
    nearly = "nearly always, " if share >= NEARLY_ALWAYS else ""
    return f"It chose {name} {nearly}for {fmt.percent(share)} of {items}{never}."


def _worth(one: Chosen) -> str:
    """What choosing is worth, in words: no more than the intervals say."""
    if one.worth is None:
        return f"What choosing is worth is not known: {one.missing}."
    if one.mode == "continue":
        return f"{_SAID[_sign(one.worth.over_random), _sign(one.worth.over_best)]} {_GOES_ON}"
    if not one.worth.n_open:
        return "Every prompt answers every item alike, so no choice could change anything."
    return _SAID[_sign(one.worth.over_random), _sign(one.worth.over_best)]


def _sign(difference: Estimate) -> int:
    """1 or -1 where the interval lies on that side of 0, else 0."""
    return int(difference.low > 0) - int(difference.high < 0)


def _bar(one: Chosen, number: int) -> PromptBar:
    share = one.counts[number] / one.n_items
    before = one.before[number] if one.before else None
    was = f", {fmt.percent(before)} in the baseline" if before is not None else ""
    return PromptBar(
        prompt=prompt_name(one, number),
        length=decimals(share * BAR_WIDTH),
        before="" if before is None else decimals(before * BAR_WIDTH),
        share=fmt.percent(share),
        items=f"{one.counts[number]:,.1f}".removesuffix(".0"),
        words=f"{prompt_name(one, number)}: {fmt.percent(share)}{was}",
    )


def _open_random(worth: Worth | None) -> str:
    if worth is None:
        return "unknown"
    return "undefined" if isinstance(worth.open_random, NotEstimable) else fmt.percent(worth.open_random)
