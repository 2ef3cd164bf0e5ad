"""Records to the page: every section's view, in page order. Views are already formatted; templates only place them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.core.verdicts import Estimate, NotEstimable
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.sections import SECTIONS
from harness.report.status import LEGEND, StatusView, overall_status


class SectionView(Protocol):
    """What every section's view has beside its own fields."""

    @property
    def title(self) -> str:
        """The heading, and the word in the contents."""
        ...


@dataclass(frozen=True, slots=True)
class PlacedSection:
    """A section on the page: its name is its anchor and its template's stem; ``package`` holds its template."""

    name: str
    package: str
    title: str
    view: SectionView


@dataclass(frozen=True, slots=True)
class PageView:
    """The whole page."""

    title: str
    profile: str
    status: StatusView
    legend: tuple[StatusView, ...]
    started: str
    sections: tuple[PlacedSection, ...]


@dataclass(frozen=True, slots=True)
class EstimateView:
    """A value with its interval, or "undefined" with the reason in ``note``."""

    text: str
    interval: str
    note: str


UNKNOWN = EstimateView("unknown", "", "")
NOT_COMPARED = EstimateView("not compared", "", "")
CELL_ITSELF = EstimateView("itself", "", "")


def view_page(bundle: RunBundle) -> PageView:
    """The page of a run: each section of the shelf, in the table's order, plugged-in ones after it."""
    names = [*SECTIONS.table, *sorted(name for name in SECTIONS if name not in SECTIONS.table)]
    status = overall_status(bundle)
    return PageView(
        title=f"{status.word} · {bundle.profile} · retention report",
        profile=bundle.profile,
        status=status,
        legend=LEGEND,
        started=fmt.moment(bundle.started_at),
        sections=tuple(_place(name, bundle) for name in names),
    )


def accuracy_view(value: Estimate | NotEstimable | None) -> EstimateView:
    """An accuracy or retention in percent."""
    if value is None:
        return UNKNOWN
    if isinstance(value, NotEstimable):
        return EstimateView("undefined", "", value.reason)
    note = f"{fmt.percent(value.level, 0)} interval, {value.method}"
    return EstimateView(fmt.percent(value.value), fmt.percent_interval(value.low, value.high), note)


def loss_view(value: Estimate | None) -> EstimateView:
    """A loss in points; positive is worse."""
    if value is None:
        return NOT_COMPARED
    note = f"{fmt.percent(value.level, 0)} interval, {value.method}"
    return EstimateView(fmt.points(value.value), fmt.points_interval(value.low, value.high), note)


def anchor(*parts: str) -> str:
    """An id for a link's target; different parts give different ids, whatever characters they hold.

    >>> anchor("cell", "llama_4bit-rtn_none"), anchor("flips", "a b")
    ('cell--llama_4bit-rtn_none', 'flips--a~20b')
    """
    return "--".join(re.sub(r"[^A-Za-z0-9._-]", lambda found: f"~{ord(found.group()):x}", part) for part in parts)


def _place(name: str, bundle: RunBundle) -> PlacedSection:
    build: Callable[[RunBundle], SectionView] = SECTIONS.load(name)
    module = SECTIONS[name].partition(":")[0]
    package = module.partition(".sections.")[0]
    view = build(bundle)
    return PlacedSection(name, package, view.title, view)
