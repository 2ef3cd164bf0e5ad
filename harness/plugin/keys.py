"""What the plugin's parts keep on pytest's config and on its reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError
from harness.core.serial import as_mapping, from_json
from harness.core.verdicts import Verdict
from harness.execution.matrix import Matrix
from harness.plugin.cases import CASE
from harness.plugin.settings import Settings, read_settings

SETTINGS = pytest.StashKey[Settings]()
MATRICES = pytest.StashKey[dict[Path, Matrix]]()
TROUBLE = pytest.StashKey[ConfigError]()
SESSION = pytest.StashKey[Any]()
VERDICT = pytest.StashKey[Verdict]()
OF_CELL = pytest.StashKey[tuple[Verdict, ...]]()

_WORKER_DIED = "???"
"""When a report of xdist's controller is that of a test under which a worker died."""


def settings_of(config: pytest.Config) -> Settings:
    """The settings, read when they are first needed: other projects' runs have no business with them."""
    if SETTINGS not in config.stash:
        config.stash[SETTINGS] = read_settings(config)
    return config.stash[SETTINGS]


def note_refusal(config: pytest.Config, sentence: str, exit_code: int) -> bool:
    """Leave it to xdist's controller to say why the run ends; False where there is none, and this process must say it."""
    if not hasattr(config, "workeroutput"):
        return False
    config.workeroutput.setdefault("harness_refusal", [sentence, exit_code])
    return True


def attach(report: pytest.TestReport, verdict: Verdict, of_cell: tuple[Verdict, ...], matrix: Path) -> None:
    """Let a test report carry its verdict and all of its cell's, as plain values that travel between xdist's processes."""
    report.__dict__["harness_verdict"] = as_mapping(verdict)
    report.__dict__["harness_cell"] = [as_mapping(one) for one in of_cell]
    report.__dict__["harness_matrix"] = str(matrix)


def matrix_of(report: pytest.TestReport) -> Path:
    """The matrix that a report's case was declared in."""
    return Path(report.__dict__["harness_matrix"])


def verdict_of(report: pytest.TestReport) -> Verdict | None:
    """The verdict that a test report carries, across xdist's processes too."""
    plain = getattr(report, "harness_verdict", None)
    return None if plain is None else _verdict(plain)


def cell_verdicts_of(report: pytest.TestReport) -> tuple[Verdict, ...]:
    """All verdicts on the cell of a report's case, whichever cases were selected or came to run."""
    return tuple(_verdict(plain) for plain in getattr(report, "harness_cell", ()))


def mark_crashed(report: pytest.TestReport) -> None:
    """Note on the report of a case that it failed before there was a verdict."""
    report.__dict__["harness_crashed"] = True


def has_crashed(report: pytest.TestReport) -> bool:
    """Whether a case ended without a verdict: in an error of its own, or with xdist's worker under it."""
    when: str | None = report.when
    is_lost = when == _WORKER_DIED and CASE.search(report.nodeid) is not None
    return is_lost or getattr(report, "harness_crashed", False)


def _verdict(plain: object) -> Verdict:
    return from_json(json.dumps(plain).encode(), Verdict, "a test report")
