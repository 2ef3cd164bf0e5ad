"""The words for what the gate said: eight of them, each with a key for its colour and icon."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import EXIT_INCONCLUSIVE, EXIT_INVALID, EXIT_PASS, EXIT_REGRESSED, EXIT_USAGE
from harness.core.verdicts import CellVerdict, Status, Verdict
from harness.report.bundle import RunBundle, cell_of


@dataclass(frozen=True, slots=True)
class StatusView:
    """A status as shown: ``key`` names its colour and icon, ``word`` is always printed beside them."""

    key: str
    word: str
    meaning: str


PASS = StatusView("pass", "PASS", "any loss is smaller than the margin, proven at the level shown")
IDENTICAL = StatusView("identical", "PASS identical", "nothing changed: same weights, or every answer fell on the same side")
IMPROVED = StatusView("improved", "IMPROVED", "more facts are known than in the baseline, significantly")
REGRESSED = StatusView("regressed", "REGRESSED", "a loss larger than the tolerated one is proven")
INCONCLUSIVE = StatusView("inconclusive", "INCONCLUSIVE", "neither a loss nor its absence could be proven on these items")
UNINFORMATIVE = StatusView(
    "uninformative", "UNINFORMATIVE", "the baseline itself is no better than guessing, so nothing can be lost"
)
INVALID = StatusView("invalid", "INVALID", "not comparable or not measured: neither a pass nor a regression")
NOT_RUN = StatusView("not-run", "not run", "declared, but left out of this run")
UNFINISHED = StatusView("invalid", "NOT FINISHED", "the run ended before everything was judged")

LEGEND = (PASS, IDENTICAL, IMPROVED, REGRESSED, INCONCLUSIVE, UNINFORMATIVE, INVALID, NOT_RUN)

_BY_STATUS = {
    Status.PASS: PASS,
    Status.IMPROVED: IMPROVED,
    Status.REGRESSED: REGRESSED,
    Status.INCONCLUSIVE: INCONCLUSIVE,
    Status.UNINFORMATIVE: UNINFORMATIVE,
    Status.INVALID: INVALID,
}

_WORST_FIRST = (REGRESSED, INVALID, INCONCLUSIVE)

EXIT_MEANINGS = {
    EXIT_PASS: "nothing fails under this policy",
    EXIT_REGRESSED: "a regression is proven",
    2: "interrupted before the end",
    3: "an internal error of pytest",
    EXIT_USAGE: "wrong usage: an option, a name or a setting",
    5: "no test was selected",
    EXIT_INCONCLUSIVE: "inconclusive, and this policy asks for proof",
    EXIT_INVALID: "something could not be measured or compared",
}


def view_status(verdict: Verdict | None) -> StatusView:
    """The status of one verdict; without one it did not run."""
    if verdict is None:
        return NOT_RUN
    return IDENTICAL if verdict.identical and verdict.status is Status.PASS else _BY_STATUS[verdict.status]


def cases_of(verdict: CellVerdict) -> tuple[Verdict, ...]:
    """All verdicts of a cell as a reader wants them: the pool first, then its recovery, then its tasks."""
    return (*(case for case in (verdict.pooled, verdict.recovery) if case is not None), *verdict.tasks)


def cell_status(verdict: CellVerdict | None) -> StatusView:
    """A cell's status, as its verdict says; identical when all its cases are that could tell.

    A failed cell that was not judged is INVALID.
    """
    if verdict is None:
        return INVALID
    status = _BY_STATUS[verdict.status]
    informative = {view_status(case) for case in cases_of(verdict)} - {UNINFORMATIVE}
    return IDENTICAL if status is PASS and informative == {IDENTICAL} else status


def overall_status(bundle: RunBundle) -> StatusView:
    """The run in one word: its worst cell's, but never a pass when the run itself did not end well."""
    seen = [cell_status(bundle.verdict_of(cell_of(entry).id)) for entry in bundle.cells]
    worst = next((bad for bad in _WORST_FIRST if bad in seen), None)
    if worst is not None:
        return worst
    if bundle.exit_code != EXIT_PASS:
        return UNFINISHED
    if not seen:
        return NOT_RUN
    if all(status is UNINFORMATIVE for status in seen):
        return UNINFORMATIVE
    return IDENTICAL if all(status is IDENTICAL for status in seen) else PASS


def exit_meaning(bundle: RunBundle) -> str:
    """What the run's exit code says; pytest ends with 1 for any failed test, not only for a regression."""
    if bundle.exit_code == EXIT_REGRESSED and all(verdict.status is not Status.REGRESSED for verdict in bundle.verdicts):
        return "a failed test, no regression"
    return EXIT_MEANINGS.get(bundle.exit_code, "not one of the gate's own codes")
