"""Early warnings and suspects: what may be worth a look, and is no part of any verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.hints import FALSE_SUSPECTS, Suspect, hints

MOST_ROWS = 200
"""Rows of a table on the page; report.json has every one."""


@dataclass(frozen=True, slots=True)
class WarningRow:
    """One task or pool that grew less sure; ``less_sure`` in points of the right answers' share."""

    case: str
    n_items: str
    less_sure: str
    interval: str
    p: str


@dataclass(frozen=True, slots=True)
class SuspectRow:
    """One task, or one relation of one."""

    case: str
    relation: str
    n_items: str
    n_lost: str
    n_gained: str
    p: str


@dataclass(frozen=True, slots=True)
class SuspectTable:
    """The suspects among the tasks, or among the relations."""

    what: str
    has_relations: bool
    summary: str
    rows: tuple[SuspectRow, ...]
    n_hidden: str


@dataclass(frozen=True, slots=True)
class HintsView:
    """All hints of a run; ``nothing`` says so where there is none."""

    title: str
    warnings: tuple[WarningRow, ...]
    warned: str
    n_hidden: str
    suspects: tuple[SuspectTable, ...]
    nothing: str


def view_hints(bundle: RunBundle) -> HintsView:
    """The hints of a run."""
    found = hints(bundle)
    rows = tuple(
        WarningRow(
            case=f"{one.cell}-{fmt.visible(one.task)}",
            n_items=fmt.count(one.n_items),
            less_sure=fmt.points(one.less_sure.value, 2),
            interval=fmt.points_interval(one.less_sure.low, one.less_sure.high, 2),
            p=fmt.p_value(one.p),
        )
        for one in found.warnings[:MOST_ROWS]
    )
    tables = (
        _table("Tasks", "task", found.tasks, found.n_tasks),
        _table("Relations", "relation", found.relations, found.n_relations),
    )
    suspects = tuple(table for table in tables if table.rows)
    return HintsView(
        title="Hints",
        warnings=rows,
        warned=f"{fmt.count(len(found.warnings))} of {fmt.plural(found.n_margins, 'comparison')}",
        n_hidden=_hidden(len(found.warnings)),
        suspects=suspects,
        nothing="" if rows or suspects else _nothing(found.n_margins, found.n_tasks, found.n_relations),
    )


def _table(what: str, one: str, found: Sequence[Suspect], n_tested: int) -> SuspectTable:
    expected = fmt.percent(FALSE_SUSPECTS, 0)
    return SuspectTable(
        what=what,
        has_relations=one == "relation",
        summary=f"{fmt.count(len(found))} of {fmt.plural(n_tested, one)}; of these, {expected} are expected to be chance",
        rows=tuple(
            SuspectRow(
                case=f"{suspect.cell}-{fmt.visible(suspect.task)}",
                relation=fmt.visible(suspect.relation or "", 80),
                n_items=fmt.count(suspect.n_items),
                n_lost=fmt.count(suspect.n_lost),
                n_gained=fmt.count(suspect.n_gained),
                p=fmt.p_value(suspect.p_adjusted),
            )
            for suspect in found[:MOST_ROWS]
        ),
        n_hidden=_hidden(len(found)),
    )


def _hidden(n: int) -> str:
    return fmt.count(n - MOST_ROWS) if n > MOST_ROWS else ""


def _nothing(n_margins: int, n_tasks: int, n_relations: int) -> str:
    if not n_tasks:
        return "No cell here has other weights than its baseline, on the same items: there is nothing to hint at."
    tested = f"{fmt.plural(n_tasks, 'task')} and {fmt.plural(n_relations, 'relation')}"
    return f"None: {fmt.plural(n_margins, 'comparison')} of margins and {tested} show nothing beyond chance."
