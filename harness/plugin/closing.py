"""The end of a pytest run: collects verdicts (from xdist's workers too), writes the report, sets the exit code."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from harness.core.errors import HarnessError
from harness.core.run_folder import keep_only
from harness.core.shelf import unknown_name
from harness.core.verdicts import POOLED, RECOVERED, Verdict
from harness.execution.matrix import read_matrix
from harness.plugin.keys import MATRICES, matrix_of, settings_of, verdict_of
from harness.plugin.settings import Settings


class Closing:
    """Lives in the process that owns the terminal: alone, or xdist's controller."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._verdicts: dict[str, Verdict] = {}
        self._has_other_failures = False
        self._n_left_out = 0
        self._started_at = _now()
        self._matrix_path: Path | None = None
        self._report: Path | None = None
        self._trouble: str | None = None

    def pytest_sessionstart(self) -> None:
        self._started_at = _now()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        verdict = verdict_of(report)
        if verdict is not None:
            self._verdicts[report.nodeid] = verdict
            self._matrix_path = matrix_of(report)
        elif report.failed:
            self._has_other_failures = True
        elif report.skipped and "[" in report.nodeid and report.nodeid.endswith((f"-{POOLED}]", f"-{RECOVERED}]")):
            self._n_left_out += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Set the exit code that the verdicts ask for, and write the report of what was measured."""
        code = int(exitstatus)
        if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and self._verdicts and not self._has_other_failures:
            from harness.gate import exit_code

            code = exit_code(self._verdicts.values())
            session.exitstatus = code
        if self._matrix_path is None:
            if code == pytest.ExitCode.OK and self._n_left_out:
                session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
                self._trouble = (
                    "nothing was judged: a pool, or a recovery, was selected alone, and needs every task of its cell."
                )
            return
        from harness.review import Review

        try:
            keep_only(self._settings.report_dir, {verdict.cell for verdict in self._verdicts.values()})
            self._report = Review(
                folder=self._settings.report_dir,
                matrix=read_matrix(self._matrix_path, self._settings.profile),
                mode=self._settings.mode,
                baseline_dir=self._settings.baseline_dir,
            ).write_report(started_at=self._started_at, ended_at=_now(), exit_code=code, command=_command())
        except HarnessError as error:
            self._trouble = f"no report was written: {error}"
            session.exitstatus = error.exit_code

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        from harness.plugin.terminal import write_summary

        hint = self._trouble
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            hint = hint or self._nothing_selected()
        write_summary(terminalreporter, list(self._verdicts.values()), self._report, hint)

    def _nothing_selected(self) -> str | None:
        keyword = self._config.option.keyword
        matrices = self._config.stash[MATRICES]
        if not matrices or not keyword:
            return None
        matrix = next(iter(matrices.values()))
        return f"profile {matrix.profile!r}: {unknown_name('cell', keyword, matrix.cells)}"

    @property
    def _settings(self) -> Settings:
        return settings_of(self._config)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _command() -> str:
    return shlex.join(["pytest", *sys.argv[1:]])
