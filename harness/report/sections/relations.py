"""Bars per relation: right answers of the dense model, the baseline and the candidate, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.records import Cell, CellRun, TaskRun
from harness.core.verdicts import Status
from harness.report import format as fmt
from harness.report.budget import share_out
from harness.report.bundle import RunBundle
from harness.report.pairs import Compared, GroupCounts, compared
from harness.report.plots import decimals
from harness.report.view import anchor

BAR_WIDTH = 200

MOST_ROWS = 2000
"""Relations that the page lists, all tables together; report.json has every one."""


@dataclass(frozen=True, slots=True)
class BarView:
    """One bar: whose, how long in drawing units, and its value in words."""

    who: str
    length: str
    share: str
    counts: str


@dataclass(frozen=True, slots=True)
class RelationRow:
    """One relation; ``change`` is candidate minus baseline in points."""

    name: str
    n_items: str
    bars: tuple[BarView, ...]
    change: str
    direction: str
    words: str


@dataclass(frozen=True, slots=True)
class RelationTable:
    """One task of one cell, the relations that changed most first."""

    cell: str
    task: str
    id: str
    summary: str
    bar_width: int
    columns: tuple[str, ...]
    rows: tuple[RelationRow, ...]
    n_hidden: str
    open: bool


@dataclass(frozen=True, slots=True)
class RelationsView:
    """All tasks that have more than one relation."""

    title: str
    tables: tuple[RelationTable, ...]


@dataclass(frozen=True, slots=True)
class _Counted:
    """One task of one cell with its counted relations, those that fell most first."""

    run: TaskRun
    groups: tuple[GroupCounts, ...]
    columns: tuple[str, ...]
    worth_a_look: bool


def view_relations(bundle: RunBundle) -> RelationsView:
    """The relations of a run."""
    found = [
        _count(bundle, entry.record.cell, compared(bundle)[entry.record.cell.id, name])
        for entry in bundle.cells
        if isinstance(entry, CellRun)
        for name in entry.runs
        if len(compared(bundle)[entry.record.cell.id, name].groups) > 1
    ]
    shares = share_out([len(one.groups) for one in found], MOST_ROWS)
    return RelationsView("Relations", tuple(_table(one, share) for one, share in zip(found, shares, strict=True)))


def _count(bundle: RunBundle, cell: Cell, found: Compared) -> _Counted:
    had = {
        "dense": "dense model" in found.pairs and not cell.is_dense,
        "baseline": "baseline" in found.pairs,
        "candidate": True,
    }
    verdict = bundle.verdict_of(cell.id)
    case = next((case for case in (verdict.tasks if verdict else ()) if case.task == found.run.info.name), None)
    worth = case is not None and case.status in (Status.REGRESSED, Status.INCONCLUSIVE)
    return _Counted(found.run, tuple(sorted(found.groups, key=_order)), tuple(who for who in had if had[who]), worth)


def _table(counted: _Counted, share: int) -> RelationTable:
    run, groups = counted.run, counted.groups
    n_worse = sum(_change(group) < 0 for group in groups)
    n_better = sum(_change(group) > 0 for group in groups)
    summary = f"{len(groups)} relations, {n_worse} with fewer right answers than the baseline, {n_better} with more"
    if "baseline" not in counted.columns:
        summary = f"{len(groups)} relations, no baseline with the same items"
    return RelationTable(
        cell=run.cell,
        task=fmt.visible(run.info.name),
        id=anchor("relations", run.cell, run.info.name),
        summary=summary,
        bar_width=BAR_WIDTH,
        columns=counted.columns,
        rows=tuple(_row(group, counted.columns) for group in groups[:share]),
        n_hidden=fmt.count(len(groups) - share) if share < len(groups) else "",
        open=counted.worth_a_look,
    )


def _change(group: GroupCounts) -> float:
    return 0.0 if group.n_right_baseline is None else (group.n_right_candidate - group.n_right_baseline) / group.n_items


def _order(group: GroupCounts) -> tuple[float, str]:
    return (_change(group), group.group)


def _row(group: GroupCounts, columns: tuple[str, ...]) -> RelationRow:
    counts = (("dense", group.n_right_dense), ("baseline", group.n_right_baseline), ("candidate", group.n_right_candidate))
    bars = tuple(_bar(who, right, group.n_items) for who, right in counts if who in columns and right is not None)
    change = _change(group)
    return RelationRow(
        name=fmt.visible(group.group, 80),
        n_items=fmt.count(group.n_items),
        bars=bars,
        change="not compared" if group.n_right_baseline is None else fmt.points(change),
        direction="worse" if change < 0 else "better" if change > 0 else "same",
        words="; ".join(f"{bar.who} {bar.share}" for bar in bars),
    )


def _bar(who: str, n_right: int, n_items: int) -> BarView:
    share = n_right / n_items
    return BarView(who, decimals(share * BAR_WIDTH), fmt.percent(share), f"{fmt.count(n_right)} of {fmt.count(n_items)}")
