"""A cell too small for its policy is told so before it is measured, on the command line too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.cli import main
from harness.core.errors import ConfigError
from harness.core.records import Cell, CellFailure
from harness.core.run_folder import read_run, write_cell
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


def test_a_policy_that_can_not_be_read_is_refused_before_an_earlier_record_goes(tmp_path: Path, capsys: Any) -> None:
    matrix, kept = tmp_path / "matrix.toml", CellFailure(Cell.parse("llama_4bit-rtn_none"), "embedded", "kept")
    matrix.write_text((ROOT / "suites" / "matrix.toml").read_text("utf-8"), "utf-8")
    (tmp_path / "policy.toml").write_text("[nonsense]\n", "utf-8")
    write_cell(tmp_path / "run", kept)
    places = ["--matrix", str(matrix), "--baseline-dir", str(ROOT / "baselines"), "--run", str(tmp_path / "run")]
    assert main(["measure", "llama_4bit-rtn_none", *places]) == ConfigError.exit_code
    assert "policy.toml" in capsys.readouterr().err
    assert read_run(tmp_path / "run") == [kept]
