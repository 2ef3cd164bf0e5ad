"""A cell too small for its policy is told so before it is measured, on the command line too."""

from __future__ import annotations

from pathlib import Path

from harness.execution.matrix import read_matrix
from harness.review import size_warning

ROOT = Path(__file__).parents[1]


def test_a_limited_cell_is_warned_of_with_the_number_that_would_do() -> None:
    matrix = read_matrix(ROOT / "suites" / "matrix.toml", "embedded")
    plan = matrix.plan("llama_4bit-rtn_none")
    told = size_warning(matrix, plan, ROOT / "baselines", 50)
    assert told is not None
    assert told.startswith("llama_4bit-rtn_none: 50 items can hardly prove")
    assert told.endswith("would do.")
    assert size_warning(matrix, plan, ROOT / "baselines", None) is None


def test_without_a_baseline_nothing_is_known(tmp_path: Path) -> None:
    matrix = read_matrix(ROOT / "suites" / "matrix.toml", "embedded")
    assert size_warning(matrix, matrix.plan("llama_4bit-rtn_none"), tmp_path, 50) is None


def test_a_broken_baseline_is_said_and_stops_nothing(tmp_path: Path) -> None:
    matrix = read_matrix(ROOT / "suites" / "matrix.toml", "embedded")
    broken = tmp_path / "embedded" / "llama_4bit-rtn_none"
    broken.mkdir(parents=True)
    told = size_warning(matrix, matrix.plan("llama_4bit-rtn_none"), tmp_path, 50)
    assert told is not None
    assert "can't be used" in told
