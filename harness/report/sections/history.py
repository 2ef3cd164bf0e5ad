"""How the accepted baselines moved over time, cell by cell, and where this run stands beside them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.records import CellRun
from harness.core.verdicts import Estimate
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.dense import accuracy_of
from harness.report.history import Accepted
from harness.report.trend import TrendPoint, TrendView, draw_trend
from harness.report.view import UNKNOWN, EstimateView, accuracy_view
from harness.stats.intervals import wilson

MOST_LOGGED = 200
"""Accepted baselines that the log lists, the newest; all are in history.jsonl."""

LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class TaskTrend:
    """One task of one cell: what each accepted baseline knew, then what this run knows."""

    task: str
    n_accepted: str
    trend: TrendView | None
    first: EstimateView
    last: EstimateView
    now: EstimateView


@dataclass(frozen=True, slots=True)
class CellTrend:
    """One cell's tasks, and when and why its baseline was last accepted."""

    cell: str
    accepted: str
    reason: str
    tasks: tuple[TaskTrend, ...]


@dataclass(frozen=True, slots=True)
class LogRow:
    """One accepted baseline."""

    measured: str
    cell: str
    written: str
    reason: str
    loosened: str
    commit: str
    accuracy: str


@dataclass(frozen=True, slots=True)
class HistoryView:
    """Trends of the run's cells, then the log of all, newest first."""

    title: str
    cells: tuple[CellTrend, ...]
    log: tuple[LogRow, ...]
    n_not_logged: str
    unreadable: tuple[str, ...]


def view_history(bundle: RunBundle) -> HistoryView:
    """The history of a run's baselines."""
    of_cell: dict[str, list[Accepted]] = {}
    for entry in bundle.history.entries:
        of_cell.setdefault(entry.cell, []).append(entry)
    runs = {run.record.cell.id: run for run in bundle.cells if isinstance(run, CellRun)}
    names = [*(name for name in runs if name in of_cell), *(name for name in of_cell if name not in runs)]
    newest = bundle.history.entries[::-1]
    n_not_logged = len(newest) - MOST_LOGGED
    return HistoryView(
        title="History",
        cells=tuple(_cell(name, of_cell[name], runs.get(name)) for name in names),
        log=tuple(_log(entry) for entry in newest[:MOST_LOGGED]),
        n_not_logged=fmt.count(n_not_logged) if n_not_logged > 0 else "",
        unreadable=tuple(fmt.visible(line, LONGEST_REASON) for line in bundle.history.unreadable),
    )


def _cell(name: str, entries: list[Accepted], run: CellRun | None) -> CellTrend:
    tasks = tuple(dict.fromkeys([*(run.runs if run else ()), *(task for entry in entries for task in entry.accuracy)]))
    accepted = [task for task in tasks if any(task in entry.accuracy for entry in entries)]
    last = entries[-1]
    return CellTrend(
        cell=fmt.visible(name),
        accepted=fmt.moment(last.measured_at),
        reason=fmt.visible(last.reason, LONGEST_REASON),
        tasks=tuple(_task(task, entries, run) for task in accepted),
    )


def _task(task: str, entries: list[Accepted], run: CellRun | None) -> TaskTrend:
    known = [_estimate(entry, task) for entry in entries if task in entry.accuracy]
    n_items = [entry.n_items[task] for entry in entries if task in entry.accuracy]
    here = run.runs.get(task) if run else None
    now = accuracy_of(here.outcomes) if here else None
    points = [TrendPoint(one.value, one.low, one.high, i > 0 and n_items[i] == n_items[i - 1]) for i, one in enumerate(known)]
    if now is not None and here is not None:
        points.append(TrendPoint(now.value, now.low, now.high, len(here.outcomes) == n_items[-1]))
    words = ", ".join(fmt.percent(one.value) for one in known) + (f"; this run {fmt.percent(now.value)}" if now else "")
    return TaskTrend(
        task=fmt.visible(task),
        n_accepted=fmt.count(len(known)),
        trend=draw_trend(points, words),
        first=accuracy_view(known[0]),
        last=accuracy_view(known[-1]),
        now=accuracy_view(now) if now else UNKNOWN,
    )


def _estimate(entry: Accepted, task: str) -> Estimate:
    n = entry.n_items[task]
    return wilson(round(entry.accuracy[task] * n), n, 0.95)


def _log(entry: Accepted) -> LogRow:
    return LogRow(
        measured=fmt.moment(entry.measured_at),
        cell=fmt.visible(entry.cell),
        written=fmt.visible(entry.written, 40),
        reason=fmt.visible(entry.reason, LONGEST_REASON),
        loosened=fmt.visible(entry.loosened or "", LONGEST_REASON),
        commit=fmt.visible(entry.commit, 12),
        accuracy=", ".join(f"{fmt.visible(task)} {fmt.percent(share)}" for task, share in sorted(entry.accuracy.items())),
    )
