"""An index of many runs: one self-contained page that lists them, newest first, and follows every cell through them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from harness.core.serial import write_atomic
from harness.core.verdicts import Estimate
from harness.report import format as fmt
from harness.report.render import render_index
from harness.report.runs import CellOfRun, PastRun, Unreadable, find_runs
from harness.report.status import INVALID, LEGEND, REGRESSED, UNFINISHED, StatusView
from harness.report.trend import MOST_POINTS, TrendPoint, TrendView, draw_trend
from harness.report.view import UNKNOWN, EstimateView, accuracy_view

PAGE = "index.html"
MOST_RUNS = 500
"""Runs that the page lists, the newest."""
MOST_RED = 6
LONGEST = 120

_BY_WORD = {status.word: status for status in (*LEGEND, UNFINISHED)}


@dataclass(frozen=True, slots=True)
class TallyView:
    """How many cells of a run have a status."""

    status: StatusView
    n: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. ``page`` and ``data`` are relative links, "" where there is no such file; ``began`` orders ``started``."""

    name: str
    page: str
    data: str
    started: str
    began: int
    wall: str
    profile: str
    policy: str
    commit: str
    status: StatusView
    exit_code: str
    tallies: tuple[TallyView, ...]
    red: tuple[str, ...]
    n_red_hidden: str


@dataclass(frozen=True, slots=True)
class CellRow:
    """One cell through the runs of a profile. ``of`` says what ``latest`` is: retention, or the dense cell's accuracy."""

    cell: str
    status: StatusView
    n_runs: str
    of: str
    latest: EstimateView
    trend: TrendView | None


@dataclass(frozen=True, slots=True)
class ProfileView:
    """The cells of one profile, in the order of its newest runs."""

    profile: str
    summary: str
    cells: tuple[CellRow, ...]


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A report.json that is not listed, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexView:
    """The whole index."""

    title: str
    summary: str
    most_points: int
    runs: tuple[RunRow, ...]
    left_out: str
    profiles: tuple[ProfileView, ...]
    unreadable: tuple[UnreadableRow, ...]


def write_index(folder: Path, out: Path) -> Path:
    """Write the index of all runs in or below ``folder`` to the file ``out``; its links are relative to where it lies.

    Raises StorageError. A report.json that can't be read is listed with the reason.
    """
    found = list(find_runs(folder))
    runs = [run for run in found if isinstance(run, PastRun)]
    unreadable = [run for run in found if isinstance(run, Unreadable)]
    write_atomic(out, render_index(view_index(runs, unreadable, out.parent)))
    return out


def view_index(runs: Sequence[PastRun], unreadable: Sequence[Unreadable], at: Path) -> IndexView:
    """The index of runs, for a page that lies in the folder ``at``."""
    newest = sorted(runs, key=lambda run: (-_instant(run), str(run.home)))
    shown = newest[:MOST_RUNS]
    n = len(newest)
    profiles = dict.fromkeys(run.profile for run in newest)
    return IndexView(
        title="Retention runs",
        summary=f"{fmt.plural(n, 'run')} of {fmt.plural(len(profiles), 'profile')}" if n else "No run was found",
        most_points=MOST_POINTS,
        runs=tuple(_run(run, at) for run in shown),
        left_out=f"The newest {fmt.count(MOST_RUNS)} of {fmt.count(n)} runs are listed." if n > MOST_RUNS else "",
        profiles=tuple(_profile(name, [run for run in newest if run.profile == name]) for name in profiles),
        unreadable=tuple(UnreadableRow(_name(one.home, at), fmt.visible(one.reason, 300)) for one in unreadable),
    )


def _instant(run: PastRun) -> float:
    return fmt.parse_moment(run.started_at).timestamp()


def _name(home: Path, at: Path) -> str:
    """A run's folder as a reader of the page in ``at`` would type it."""
    return fmt.visible(os.path.relpath(home, at), LONGEST)


def _link(home: Path, name: str, at: Path) -> str:
    """A relative link that is only ever a path: nothing in a folder's name can become a scheme, a host or a query."""
    if not (home / name).is_file():
        return ""
    return "./" + quote(os.fsencode(os.path.relpath(home / name, at)).replace(os.sep.encode(), b"/"))


def _run(run: PastRun, at: Path) -> RunRow:
    tally = Counter(_status(cell.status) for cell in run.cells)
    red = [cell.id for cell in run.cells if _status(cell.status) == REGRESSED]
    wall_s = (fmt.parse_moment(run.ended_at) - fmt.parse_moment(run.started_at)).total_seconds()
    return RunRow(
        name=_name(run.home, at),
        page=_link(run.home, PAGE, at),
        data=_link(run.home, "report.json", at),
        started=fmt.moment(run.started_at),
        began=round(_instant(run)),
        wall=fmt.duration(max(0.0, wall_s)),
        profile=fmt.visible(run.profile, LONGEST),
        policy=fmt.visible(run.policy, LONGEST),
        commit=", ".join(fmt.visible(commit, 12) for commit in run.commits[:3]) or "unknown",
        status=_status(run.status),
        exit_code=str(run.exit_code)[:12],
        tallies=tuple(TallyView(status, fmt.count(tally[status])) for status in (*LEGEND, UNFINISHED) if tally[status]),
        red=tuple(fmt.visible(name, LONGEST) for name in red[:MOST_RED]),
        n_red_hidden=fmt.count(len(red) - MOST_RED) if len(red) > MOST_RED else "",
    )


def _status(word: str) -> StatusView:
    """The status of a word; a foreign word is shown as it is and counts as invalid."""
    return _BY_WORD.get(word) or StatusView(INVALID.key, fmt.visible(word, 30), "a status that this harness does not know")


def _profile(name: str, newest: Sequence[PastRun]) -> ProfileView:
    oldest = newest[::-1]
    ids = dict.fromkeys(cell.id for run in newest for cell in run.cells)
    by_run = [{cell.id: cell for cell in run.cells} for run in oldest]
    n_part = sum(any(cell.is_part for cell in run.cells) for run in newest)
    first, last = fmt.moment(oldest[0].started_at), fmt.moment(newest[0].started_at)
    span = f"{fmt.plural(len(newest), 'run')}, {first} to {last}" if len(newest) > 1 else f"1 run, {last}"
    left = f"; what {fmt.plural(n_part, 'run')} measured on a part of the items is not drawn" if n_part else ""
    rows = (_cell(cell, [cells.get(cell) for cells in by_run]) for cell in ids)
    return ProfileView(fmt.visible(name, LONGEST), span + left, tuple(rows))


def _cell(name: str, found: Sequence[CellOfRun | None]) -> CellRow:
    """A cell's row; ``found`` is the cell in each run, oldest first."""
    measured = [cell for cell in found if cell is not None]
    is_dense = measured[-1].is_dense
    values = [None if cell is None or cell.is_part else cell.accuracy if is_dense else cell.retention for cell in found]
    known = [value for value in values if value is not None]
    words = ", ".join(fmt.percent(value.value) for value in known[-MOST_POINTS:])
    return CellRow(
        cell=fmt.visible(name, LONGEST),
        status=_status(measured[-1].status),
        n_runs=fmt.count(len(measured)),
        of="accuracy" if is_dense else "kept of dense",
        latest=accuracy_view(known[-1]) if known else UNKNOWN,
        trend=draw_trend(_points(found, values), words),
    )


def _points(found: Sequence[CellOfRun | None], values: Sequence[Estimate | None]) -> list[TrendPoint | None]:
    points: list[TrendPoint | None] = []
    before = ""
    for cell, value in zip(found, values, strict=True):
        asked = cell.items_digest if cell is not None else ""
        joins = asked != "" and asked == before
        points.append(None if value is None else TrendPoint(value.value, value.low, value.high, joins))
        before = asked
    return points
