"""Marks of the cases: a task's suite, group and cost select it; nothing selects a cell's own cases but no selection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from harness.execution.matrix import read_matrix

REPOSITORY = Path(__file__).parents[2]


def collect(*arguments: str) -> list[str]:
    """The cases that a selection of the profile ``knowledge`` collects, without their test's name."""
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--harness-profile=knowledge", "--strict-markers"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "suites", *options, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.partition("[")[2].rstrip("]") for line in done.stdout.splitlines() if "[" in line and "::" in line]


def test_marks_select_tasks_of_every_cell_and_never_a_pool() -> None:
    found = collect("-m", "lama and quick and world_knowledge", "-k", "llama_none")
    assert found == [
        f"llama_none_none-{task}"
        for task in ("lama_trex", "lama_trex_objects", "lama_trex_uhn", "lama_google_re", "lama_squad")
    ]
    assert [case for case in collect("-k", "llama_none") if case.endswith("-pooled")] == ["llama_none_none-pooled"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('group = "World Knowledge"', "the group 'World Knowledge': expected a word"),
        ('cost = "cheap"', "the cost 'cheap': expected 'quick' or 'long'"),
        ('clusters = "yes"', "`clusters` 'yes': expected true or false"),
    ],
)
def test_a_wrong_group_or_cost_is_refused(line: str, sentence: str, tmp_path: Path) -> None:
    text = (REPOSITORY / "suites" / "matrix.toml").read_text()
    path = tmp_path / "matrix.toml"
    path.write_text(
        text.replace('[tasks.facts]\nsuite = "facts"\ngroup = "world_knowledge"', f'[tasks.facts]\nsuite = "facts"\n{line}')
    )
    with pytest.raises(ConfigError, match=sentence):
        read_matrix(path, "embedded")
