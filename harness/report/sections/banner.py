"""The verdict in one sentence, what was counted, and the exit code: all that most readers need."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.core.errors import EXIT_PASS
from harness.core.records import CellFailure
from harness.core.verdicts import POOLED, CellVerdict, Estimate, Status, Verdict
from harness.report import format as fmt
from harness.report.bundle import RunBundle, cell_of
from harness.report.status import (
    IMPROVED,
    INCONCLUSIVE,
    INVALID,
    LEGEND,
    NOT_RUN,
    REGRESSED,
    StatusView,
    cases_of,
    cell_status,
    exit_meaning,
    overall_status,
    view_status,
)
from harness.report.view import anchor


@dataclass(frozen=True, slots=True)
class CountView:
    """How many cells have a status."""

    status: StatusView
    n: str
    noun: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Cases of one cell that a reader must look at, with the gate's sentence about them."""

    status: StatusView
    cell: str
    tasks: str
    reason: str
    note: str
    href: str


@dataclass(frozen=True, slots=True)
class BannerView:
    """The top of the page."""

    title: str
    status: StatusView
    sentence: str
    counts: tuple[CountView, ...]
    findings: tuple[Finding, ...]
    exit_code: int
    exit_meaning: str
    profile: str
    policy: str
    policy_meaning: str
    started: str
    wall: str
    command: str


_POLICIES = {
    "commit": "an inconclusive cell warns",
    "release": "an inconclusive cell fails",
}


_LOOK_AT = (REGRESSED, INVALID, INCONCLUSIVE, IMPROVED)
"""What a reader should act on; tasks that can't regress stand under what was not measured."""


def view_banner(bundle: RunBundle) -> BannerView:
    """The banner of a run."""
    return BannerView(
        title="Verdict",
        status=overall_status(bundle),
        sentence=say_verdict(bundle),
        counts=_counts(bundle),
        findings=_findings(bundle),
        exit_code=bundle.exit_code,
        exit_meaning=exit_meaning(bundle),
        profile=fmt.visible(bundle.profile),
        policy=bundle.policy,
        policy_meaning=_POLICIES[bundle.policy],
        started=fmt.moment(bundle.started_at),
        wall=fmt.duration(bundle.wall_s),
        command=fmt.visible(bundle.command),
    )


def say_verdict(bundle: RunBundle) -> str:
    """The run in one or two sentences; the worst comes first and nothing unfinished is called a pass."""
    n = len(bundle.cells)
    if n == 0:
        return "Nothing was measured, so nothing is known about any cell."
    tally = Counter(cell_status(bundle.verdict_of(cell_of(entry).id)).key for entry in bundle.cells)
    said = []
    if k := tally["regressed"]:
        said.append(f"{k} of {fmt.plural(n, 'cell')} lost knowledge: {_worst_loss(bundle.verdicts)}.")
    if k := tally["invalid"]:
        said.append(f"{k} of {fmt.plural(n, 'cell')} could not be measured or compared.")
    if k := tally["inconclusive"]:
        said.append(f"For {k} of {fmt.plural(n, 'cell')} the items decide neither way.")
    n_good = tally["pass"] + tally["identical"] + tally["improved"]
    if n_good == n:
        said.append(_all_good(tally, n))
    elif n_good:
        said.append(f"{fmt.plural(n_good, 'cell')} {'keeps' if n_good == 1 else 'keep'} what the baseline knew.")
    if k := tally["uninformative"]:
        said.append(f"{fmt.plural(k, 'cell')} could not have lost anything: the baseline only guesses there.")
    if bundle.exit_code != EXIT_PASS and n_good == n:
        said.insert(0, f"The run did not end well ({exit_meaning(bundle)}); of what was judged:")
    if bundle.not_run:
        said.append(f"{_left_out(bundle)} did not run and {'is' if len(bundle.not_run) == 1 else 'are'} not judged.")
    return " ".join(said)


def _all_good(tally: Counter[str], n: int) -> str:
    whole = "The only cell keeps" if n == 1 else f"All {n} cells keep"
    same = ", every answer unchanged" if tally["identical"] == n else ""
    return f"{whole} what the baseline knew{same}."


def _left_out(bundle: RunBundle) -> str:
    n_cells = sum(left.task is None for left in bundle.not_run)
    n_tasks = len(bundle.not_run) - n_cells
    parts = [fmt.plural(n_cells, "declared cell")] if n_cells else []
    parts += [fmt.plural(n_tasks, "declared task")] if n_tasks else []
    return " and ".join(parts)


def _worst_loss(verdicts: tuple[CellVerdict, ...]) -> str:
    """The largest loss of a regressed cell, each cell by its pool where that is red, else by its worst task."""
    red: dict[str, tuple[Verdict, Estimate]] = {}
    for case in (case for cell in verdicts for case in cases_of(cell)):
        if case.status is Status.REGRESSED and case.evidence is not None:
            told = (case, case.evidence.loss)
            red[case.cell] = max(red.get(case.cell, told), told, key=lambda pair: (pair[0].task == POOLED, pair[1].value))
    if not red:
        return "the findings below say how much"
    case, loss = max(red.values(), key=lambda pair: pair[1].value)
    where = case.cell if case.task == POOLED else f"{case.cell} on {fmt.visible(case.task)}"
    value, low, high = (fmt.points(x, signed=False).partition(fmt.NBSP)[0] for x in (loss.value, loss.low, loss.high))
    most = "most of all " if len(red) > 1 else ""
    surely = f"between {low} and {high} with {fmt.percent(loss.level, 0)} confidence"
    return f"{most}{where}, by {value} points of all items ({surely})"


def _counts(bundle: RunBundle) -> tuple[CountView, ...]:
    tally = Counter(cell_status(bundle.verdict_of(cell_of(entry).id)) for entry in bundle.cells)
    tally[NOT_RUN] += sum(left.task is None for left in bundle.not_run)
    return tuple(CountView(s, fmt.count(tally[s]), "cell" if tally[s] == 1 else "cells") for s in LEGEND if tally[s])


def _findings(bundle: RunBundle) -> tuple[Finding, ...]:
    found: list[Finding] = []
    for entry in bundle.cells:
        verdict = bundle.verdict_of(cell_of(entry).id)
        if verdict is not None:
            found += _cell_findings(verdict)
        elif isinstance(entry, CellFailure):
            found.append(Finding(INVALID, entry.cell.id, "", fmt.visible(entry.reason), "", anchor("cell", entry.cell.id)))
    return tuple(sorted(found, key=lambda finding: _LOOK_AT.index(finding.status)))


def _cell_findings(verdict: CellVerdict) -> list[Finding]:
    """Cases of one cell that say the same stand together."""
    same: dict[tuple[StatusView, str, bool], list[str]] = {}
    for case in cases_of(verdict):
        if view_status(case) in _LOOK_AT:
            same.setdefault((view_status(case), case.reason, case.fails), []).append(fmt.visible(case.task))
    cell = verdict.cell.id
    return [
        Finding(status, cell, ", ".join(tasks), fmt.visible(reason), _note(status, fails), anchor("cell", cell))
        for (status, reason, fails), tasks in same.items()
    ]


def _note(status: StatusView, fails: bool) -> str:
    return "warns only, under this policy" if not fails and status is not IMPROVED else ""
