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
from harness.plugin.settings import Settings, read_settings

SETTINGS = pytest.StashKey[Settings]()
MATRICES = pytest.StashKey[dict[Path, Matrix]]()
TROUBLE = pytest.StashKey[ConfigError]()
SESSION = pytest.StashKey[Any]()
VERDICT = pytest.StashKey[Verdict]()


def settings_of(config: pytest.Config) -> Settings:
    """The settings, read when they are first needed: other projects' runs have no business with them."""
    if SETTINGS not in config.stash:
        config.stash[SETTINGS] = read_settings(config)
    return config.stash[SETTINGS]


def attach(report: pytest.TestReport, verdict: Verdict, matrix: Path) -> None:
    """Let a test report carry its verdict, as plain values that travel between xdist's processes."""
    report.__dict__["harness_verdict"] = as_mapping(verdict)
    report.__dict__["harness_matrix"] = str(matrix)


def matrix_of(report: pytest.TestReport) -> Path:
    """The matrix that a report's case was declared in."""
    return Path(report.__dict__["harness_matrix"])


def verdict_of(report: pytest.TestReport) -> Verdict | None:
    """The verdict that a test report carries, across xdist's processes too."""
    plain = getattr(report, "harness_verdict", None)
    return None if plain is None else from_json(json.dumps(plain).encode(), Verdict, "a test report")
