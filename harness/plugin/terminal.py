"""What the terminal shows: a letter and a word a case, progress while it works, the verdicts at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.core.verdicts import Status, Verdict
from harness.execution.progress import Progress

_MARKUP = {
    Status.PASS: {"green": True},
    Status.IMPROVED: {"green": True, "bold": True},
    Status.REGRESSED: {"red": True, "bold": True},
    Status.INCONCLUSIVE: {"yellow": True},
    Status.UNINFORMATIVE: {"cyan": True},
    Status.INVALID: {"red": True},
}
_LETTERS = {Status.INCONCLUSIVE: "I", Status.IMPROVED: "+"}


def status_of(verdict: Verdict) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """pytest's (category, letter, word) for verdicts that have their own; None leaves it to pytest."""
    letter = _LETTERS.get(verdict.status)
    if letter is None:
        return None
    return verdict.status.value.lower(), letter, (verdict.status.value, _MARKUP[verdict.status])


def make_progress(config: pytest.Config) -> Progress:
    """Progress that reaches the terminal through pytest's capturing; from xdist's workers as lines on the standard error,
    which they share with the controller."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    name = getattr(config, "workerinput", {}).get("workerid")  # a worker has a reporter, too, which nobody sees

    def to_terminal(text: str) -> None:
        if reporter is not None:  # None: `-p no:terminal`
            reporter._tw.write(text, flush=True)

    def from_worker(text: str) -> None:
        sys.stderr.write(f"[{name}] {text}")
        sys.stderr.flush()

    def write(text: str) -> None:
        with nullcontext() if capture is None else capture.global_and_fixture_disabled():
            (to_terminal if name is None else from_worker)(text)

    if name is None and reporter is not None:
        reporter.ensure_newline()
    return Progress(write=write, is_tty=name is None and reporter is not None and bool(reporter.isatty))


def write_summary(
    reporter: pytest.TerminalReporter,
    verdicts: list[Verdict],
    report: Path | None,
    hint: str | None,
    warnings: Sequence[str] = (),
) -> None:
    """The closing section: one line a verdict, then the first early warnings, then where the report is."""
    if hint:
        reporter.section("harness", sep="=")
        reporter.line(hint)
        return
    if not verdicts:
        return
    reporter.section("knowledge retention", sep="=")
    width = max(len(f"{v.cell}-{v.task}") for v in verdicts)
    for verdict in verdicts:
        reporter.write(f"{verdict.status.value:<13}", **_MARKUP[verdict.status])
        reporter.line(f" {f'{verdict.cell}-{verdict.task}':<{width}}  {verdict.reason}")
        if verdict.choice is not None and verdict.choice.warning:
            reporter.write(f"{'early warning':<13}", yellow=True)
            reporter.line(f" {f'{verdict.cell}-{verdict.task}':<{width}}  {verdict.choice.warning}")
    for line in warnings:
        reporter.write(f"{'warning':<13}", yellow=True)
        reporter.line(f" {line}")
    if report is not None:
        reporter.line("")
        reporter.line(f"report: {report}")


Writer = Callable[[str], None]
