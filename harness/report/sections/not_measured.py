"""What this run does not say: what was left out, what could not be asked, and what a pass does not prove."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.records import CellRun, TaskInfo
from harness.core.verdicts import Status
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.status import PASS, cases_of, view_status


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A declared cell or task that did not run."""

    cell: str
    task: str
    reason: str


@dataclass(frozen=True, slots=True)
class Excluded:
    """Facts that a task's protocol can't ask."""

    task: str
    n_asked: str
    n_excluded: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotMeasuredView:
    """The report's own limits."""

    title: str
    left_out: tuple[LeftOut, ...]
    excluded: tuple[Excluded, ...]
    limits: tuple[str, ...]


def view_not_measured(bundle: RunBundle) -> NotMeasuredView:
    """What a run did not measure."""
    left_out = tuple(
        LeftOut(left.cell.id, "every task" if left.task is None else fmt.visible(left.task), fmt.visible(left.reason))
        for left in bundle.not_run
    )
    return NotMeasuredView("Not measured", left_out, _excluded(bundle), tuple(_limits(bundle)))


def _excluded(bundle: RunBundle) -> tuple[Excluded, ...]:
    """Per task and reason once: cells that were asked the same items exclude the same facts."""
    found: dict[Excluded, None] = {}
    for entry in bundle.cells:
        for run in entry.runs.values() if isinstance(entry, CellRun) else ():
            found.update(dict.fromkeys(_reasons(run.info, len(run.outcomes))))
    return tuple(found)


def _reasons(info: TaskInfo, n_asked: int) -> list[Excluded]:
    rows = sorted(info.excluded.items())
    return [Excluded(fmt.visible(info.name), fmt.count(n_asked), fmt.count(n), fmt.visible(why)) for why, n in rows if n]


def _limits(bundle: RunBundle) -> list[str]:
    cases = [case for verdict in bundle.verdicts for case in cases_of(verdict)]
    said = []
    proven = [
        (case.evidence.proven_margin, case)
        for case in cases
        if view_status(case) is PASS and case.evidence is not None and case.evidence.proven_margin is not None
    ]
    if proven:
        margin, case = max(proven, key=lambda pair: pair[0])
        widest = f"{fmt.points(margin, 2, signed=False)} ({case.cell}-{fmt.visible(case.task)})"
        said.append(
            "A pass proves that any loss is smaller than a margin, not that there is none. "
            f"The widest margin behind a pass here is {widest}."
        )
    if any(case.identical for case in cases):
        said.append(
            "An identical pass says that nothing changed on these items; of other items it proves only what its interval says."
        )
    if undecided := [case for case in cases if case.status is Status.INCONCLUSIVE]:
        said.append(
            f"{fmt.plural(len(undecided), 'case')} decided neither way: more items are needed, not the same ones again."
        )
    if guards := sorted(
        {n for e in bundle.cells if isinstance(e, CellRun) for n, run in e.runs.items() if not run.info.pooled}
    ):
        said.append(
            f"The same facts asked another way guard single tasks and are not pooled: {', '.join(map(fmt.visible, guards))}."
        )
    said.append(
        "Only the items listed were asked. Other facts, languages, prompts and longer conversations are not covered, "
        "and neither are speed, memory or safety."
    )
    said.append(
        "Bars per relation, flips, hints and retention of the dense model describe; only the cases of the gate decide."
    )
    return said
