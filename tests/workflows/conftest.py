"""The workflow files, parsed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / ".github" / "workflows"


@pytest.fixture(scope="session")
def workflows() -> dict[str, dict[str, Any]]:
    """Each workflow by its file's name; the key `on`, which YAML 1.1 reads as true, is `on` again."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install pyyaml")
    found = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
    for text in found.values():
        text["on"] = text.pop(True)
    return found


@pytest.fixture(scope="session")
def jobs(workflows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every job of every workflow, by `<file>:<job>`."""
    return {f"{file}:{name}": job for file, text in workflows.items() for name, job in text["jobs"].items()}


@pytest.fixture(scope="session")
def steps(jobs: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Every step of every job, with a name that says where it is."""
    return [(f"{place}:{i}", step) for place, job in jobs.items() for i, step in enumerate(job["steps"])]
