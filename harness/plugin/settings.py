"""The plugin's options, read once per pytest run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.core.command import DATA_VARIABLE, DEFAULT_BASELINES, DEFAULT_DEVICE, DEFAULT_PROFILE, Place
from harness.core.errors import ConfigError

if TYPE_CHECKING:  # every pytest run loads this module; the gate and SciPy only where a cell is judged
    from harness.baseline import WriteMode
    from harness.gate import Mode

POLICIES = ("commit", "release")
WRITE_MODES = ("check", "add-new", "update")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for. Folders are absolute. ``matrix`` is None where it lies beside the test file."""

    profile: str
    device: str
    data: Path | None
    limit: int | None
    mode: Mode
    report_dir: Path
    baseline_dir: Path
    baselines: WriteMode
    reason: str
    matrix: Path | None
    fresh: bool
    full: bool

    def place(self, matrix: Path) -> Place:
        """What a command that acts on this run's cells must be told."""
        return Place(self.profile, matrix, self.baseline_dir, self.data, self.device)


def add_options(parser: pytest.Parser) -> None:
    """Declare the ``--harness-*`` options."""
    group = parser.getgroup("harness", "knowledge retention gate for compressed language models")
    group.addoption(
        "--harness-profile", default=DEFAULT_PROFILE, metavar="NAME", help="profile of the matrix (default: embedded)"
    )
    group.addoption(
        "--harness-device", default=DEFAULT_DEVICE, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps (default: auto)"
    )
    group.addoption(
        "--harness-data",
        default=os.environ.get(DATA_VARIABLE),
        metavar="DIR",
        help="offline mirror of data sets, laid out like the hub (default: $HARNESS_DATA)",
    )
    group.addoption(
        "--harness-limit",
        type=int,
        metavar="N",
        help="measure only N items of each task, a stable sample, and judge it on these items of the baseline",
    )
    group.addoption(
        "--harness-policy",
        default="commit",
        choices=POLICIES,
        help="what fails: regressions and invalid runs (commit), inconclusive ones too (release)",
    )
    group.addoption("--harness-report-dir", metavar="DIR", help="where the report goes (default: reports/latest)")
    group.addoption("--harness-baseline-dir", metavar="DIR", help="where baselines lie (default: baselines)")
    group.addoption(
        "--harness-baselines",
        default="check",
        choices=WRITE_MODES,
        help="check against the stored baselines (default), add those that are missing, or replace them",
    )
    group.addoption(
        "--harness-reason", default="", metavar="TEXT", help="why baselines are added or replaced; stored with them"
    )
    group.addoption("--harness-matrix", metavar="FILE", help="the matrix (default: matrix.toml beside the test file)")
    group.addoption(
        "--harness-full",
        action="store_true",
        help="measure every item, also of a cell that is decided (nightly runs, trends); baselines are always made so",
    )
    group.addoption(
        "--harness-fresh", action="store_true", help="compress and measure again, even what is stored or unchanged"
    )


def read_settings(config: pytest.Config) -> Settings:
    """The settings of a pytest run. Raises ConfigError for values that can't be."""
    root = _top(config)
    limit = config.getoption("--harness-limit")
    if limit is not None and limit < 1:
        raise ConfigError(f"--harness-limit expects a number of items of at least 1, got {limit}.")
    data = config.getoption("--harness-data")
    if data is not None and not Path(data).is_dir():
        raise ConfigError(f"--harness-data expects a folder, and {data!r} is none.")
    baselines = config.getoption("--harness-baselines")
    if baselines == "update" and not config.getoption("--harness-reason"):
        raise ConfigError("--harness-baselines=update needs --harness-reason='why the baselines move'.")
    matrix = config.getoption("--harness-matrix")
    return Settings(
        profile=config.getoption("--harness-profile"),
        device=config.getoption("--harness-device"),
        data=Path(data).resolve() if data else None,
        limit=limit,
        mode=config.getoption("--harness-policy"),
        report_dir=_folder(root, config.getoption("--harness-report-dir"), "reports/latest"),
        baseline_dir=_folder(root, config.getoption("--harness-baseline-dir"), str(DEFAULT_BASELINES)),
        baselines=baselines,
        reason=config.getoption("--harness-reason"),
        matrix=Path(matrix).resolve() if matrix else None,
        fresh=config.getoption("--harness-fresh"),
        full=config.getoption("--harness-full"),
    )


def _top(config: pytest.Config) -> Path:
    """Where ``baselines`` and ``reports`` lie: pytest's root; without a pytest configuration that root is only a guess from
    where pytest was started, so the nearest folder above it that has baselines comes first."""
    root = config.rootpath
    if config.inipath is not None:
        return root
    return next((folder for folder in (root, *root.parents) if (folder / DEFAULT_BASELINES).is_dir()), root)


def _folder(root: Path, chosen: str | None, default: str) -> Path:
    return Path(chosen).resolve() if chosen else root / default
