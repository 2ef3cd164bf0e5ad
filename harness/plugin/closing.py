"""The end of a pytest run: collects verdicts (from xdist's workers too), writes the report, sets the exit code."""

from __future__ import annotations

import difflib
import re
import shlex
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import EXIT_INVALID, EXIT_REGRESSED, HarnessError
from harness.core.run_folder import keep_only
from harness.core.verdicts import POOLED, RECOVERED, Verdict
from harness.execution.matrix import read_matrix
from harness.plugin.cases import case_ids
from harness.plugin.keys import MATRICES, cell_verdicts_of, has_crashed, matrix_of, settings_of, verdict_of
from harness.plugin.settings import Settings


class Closing:
    """Lives in the process that owns the terminal: alone, or xdist's controller."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._has_other_failures = False
        self._has_crashes = False
        self._n_left_out = 0
        self._started_at = _now()
        self._matrix_path: Path | None = None
        self._report: Path | None = None
        self._warnings: tuple[str, ...] = ()
        self._trouble: str | None = None
        self._refused_with: int | None = None

    def pytest_sessionstart(self) -> None:
        self._started_at = _now()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if verdict_of(report) is not None:  # what was measured counts, also where its own case was not selected or reached
            self._verdicts |= {(verdict.cell, verdict.task): verdict for verdict in cell_verdicts_of(report)}
            self._matrix_path = matrix_of(report)
        elif has_crashed(report):
            self._has_crashes = True
        elif report.failed:
            self._has_other_failures = True
        elif report.skipped and "[" in report.nodeid and report.nodeid.endswith((f"-{POOLED}]", f"-{RECOVERED}]")):
            self._n_left_out += 1

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Hear from a worker of xdist why it could not go on."""
        refusal = getattr(node, "workeroutput", {}).get("harness_refusal")
        if refusal is not None:
            self._trouble, self._refused_with = refusal

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Set the exit code that the verdicts ask for, and write the report of what was measured."""
        code = int(exitstatus)
        is_ours = (self._verdicts or self._has_crashes) and not self._has_other_failures
        if is_ours and (code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or self._stopped_at_failures()):
            from harness.gate import exit_code

            code = exit_code(self._verdicts.values())
            if self._has_crashes and code != EXIT_REGRESSED:
                code = EXIT_INVALID
            session.exitstatus = code
        if self._refused_with is not None:
            code = session.exitstatus = self._refused_with
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
            self._report, self._warnings = Review(
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
        write_summary(terminalreporter, list(self._verdicts.values()), self._report, hint, self._warnings)
        if exitstatus == pytest.ExitCode.INTERRUPTED and self._config.stash[MATRICES]:
            terminalreporter.line("harness: stopped; finished rounds are stored and will not be measured again.")

    def _stopped_at_failures(self) -> bool:
        """Whether xdist ended the run at its -x or --maxfail, which it tells as if the user had stopped it."""
        return bool(getattr(self._config.pluginmanager.get_plugin("dsession"), "shouldstop", False))

    def _nothing_selected(self) -> str | None:
        keyword = self._config.option.keyword
        matrices = self._config.stash[MATRICES]
        if not matrices or not keyword:
            return None
        matrix = next(iter(matrices.values()))
        cases = [(case.plan.cell.id, case.task) for case in case_ids(matrix)]
        return f"profile {matrix.profile!r}: {nothing_matches(keyword, cases)}"

    @property
    def _settings(self) -> Settings:
        return settings_of(self._config)


def nothing_matches(keyword: str, cases: Iterable[tuple[str, str]]) -> str:
    """The sentence for a ``-k`` that selects none of ``cases`` (cell, task): the word of it that none has, with the nearest.

    >>> cases = [("llama_4bit-rtn_none", "facts"), ("llama_4bit-rtn_none", "pooled")]
    >>> nothing_matches("llama_4bit and factz", cases)
    "unknown cell or task 'factz': did you mean 'facts'? Known: facts, llama_4bit-rtn_none, pooled."
    >>> nothing_matches("facts and pooled", cases)
    "no case matches 'facts and pooled'. Known: facts, llama_4bit-rtn_none, pooled."
    """
    whole = {f"{cell}-{task}": (cell, task) for cell, task in cases}
    names = sorted({name for pair in whole.values() for name in pair})
    words = [word for word in re.findall(r"[^\s()]+", keyword) if word not in ("and", "or", "not")]
    strange = next((word for word in words if not any(word.lower() in f"[{case}]".lower() for case in whole)), None)
    near = difflib.get_close_matches(strange, [*names, *whole], n=1) if strange else []
    hint = f" did you mean {near[0]!r}?" if near else ""
    wrong = f"unknown cell or task {strange!r}:{hint}" if strange else f"no case matches {keyword!r}."
    return f"{wrong} Known: {', '.join(names)}."


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _command() -> str:
    return shlex.join(["pytest", *sys.argv[1:]])
