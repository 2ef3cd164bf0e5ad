"""``harness selftest`` on the command line: what it says, what it ends with, and that it needs no model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.baseline import NoiseRun
from harness.baseline.record import make_baseline
from harness.baseline.store import write_baseline
from harness.cli import main
from harness.commands import selftesting as command
from harness.core.records import Cell, CellFailure
from harness.core.run_folder import write_cell
from harness.gate.promises import exact_promise

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "suites" / "policy.toml"
CELL = Cell("llama", "4bit-rtn", "none")


Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(
    tmp_path: Path, matrix_file: Path, build: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ask:
    """The command in a project whose first cell has a baseline: 300 of 500 right, never a flip."""
    shutil.copy(POLICY, matrix_file.parent)
    noise = [NoiseRun(f"run {i}", None, 1, None, {"facts": 0.6}, {"facts": 0}) for i in range(3)]
    home = tmp_path / "baselines" / "embedded" / CELL.id
    home.mkdir(parents=True)
    write_baseline(home, make_baseline(build.one(500, 300, weights="w1"), "first", noise))
    monkeypatch.chdir(tmp_path)

    def run(*more: str) -> tuple[int, str]:
        code = main(["selftest", "--commits", "2000", *more])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_it_tells_a_newcomer_how_often_the_gate_errs_and_keeps_its_word(ask: Ask) -> None:
    code, said = ask("--json", "found.json")
    assert code == 0, said
    assert "The gate on 1 cell of profile 'embedded'" in said
    assert "not tested: llama_8bit-rtn_none: it has no baseline" in said
    assert "kept      a commit on which nothing changed is red: <= 5.00 %; found 0 %, at 99.9 % confidence <= 0.3 %" in said
    assert "item files that are cut in the middle are refused: 2 tried" in said
    assert "\nevery promise is kept\nall numbers: found.json\n" in said
    found = json.loads(Path("found.json").read_text())
    assert [one["loss"] for one in found["commits"]] == [0.0, 0.005, 0.005, 0.01, 0.02, 0.05]
    assert found["cells"][0]["losses"][0]["red"] == 0.0
    assert {one["unit"] for one in found["cells"][0]["units"]} == {"facts", "pooled"}
    assert all(one["shown"] == "kept" for one in found["promises"])


def test_a_missed_promise_ends_with_1(ask: Ask) -> None:
    code, said = ask("--flips", "0.4")
    assert code == 1
    assert "MISSED" in said
    assert "unchanged, PASS: >= 80.00 %" in said
    assert "promises are broken or not shown" in said


def test_too_few_commits_show_nothing_and_that_is_no_pass(ask: Ask) -> None:
    code, said = ask("--commits", "20")
    assert code == 1
    assert "NOT SHOWN a commit on which nothing changed is red" in said


def test_a_policy_of_another_file_is_tested_where_it_is_named(ask: Ask) -> None:
    Path("strict.toml").write_text(POLICY.read_text().replace("alpha_commit = 0.05 ", "alpha_commit = 0.001"))
    code, said = ask("--policy-file", "strict.toml")
    assert code == 1
    assert "nothing changed is red: <= 0.10 %" in said
    assert "NOT SHOWN" in said


def test_both_anchors_are_tested_where_one_is_frozen(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "freeze", "--tag", "v1"]) == 0
    capsys.readouterr()
    code, said = ask()
    assert code == 0, said
    assert "last+release" in said
    assert "item files that are cut in the middle are refused: 3 tried" in said


def test_losses_are_injected_into_a_run_where_one_is_named(ask: Ask, build: Any) -> None:
    run = build.one(500, 300, lost=40, weights="w2")
    write_cell(Path("run"), run)
    code, said = ask("--run", "run")
    assert code == 1  # this run has lost 8 points since its baseline: it is red with nothing lost on top
    assert "the records of run" in said
    assert "MISSED    a commit on which nothing changed is red" in said
    write_cell(Path("run"), CellFailure(CELL, "embedded", "out of memory"))
    code, said = ask("--run", "run")
    assert code == 11
    assert "out of memory" in said
    assert ask("--run", "nowhere")[0] == 11


def test_what_can_not_be_asked_for_is_said(ask: Ask) -> None:
    for words, sentence in (
        (("--commits", "0"), "--commits expects a number of at least 1"),
        (("--seed", "-1"), "--seed expects a number of at least 0"),
        (("--flips", "1.5"), "--flips expects a share"),
        (("--profile", "embeded"), "did you mean 'embedded'"),
    ):
        code, said = ask(*words)
        assert code == 4
        assert sentence in said


def test_without_any_baseline_there_is_nothing_to_test(ask: Ask) -> None:
    shutil.rmtree("baselines")
    code, said = ask()
    assert code == 11
    assert "`harness baseline propose CELL` makes baselines" in said


def test_a_damaged_baseline_is_told_and_not_skipped(ask: Ask) -> None:
    Path(f"baselines/embedded/{CELL.id}/facts.parquet").write_bytes(b"")
    code, said = ask()
    assert code == 11
    assert "git checkout" in said


def test_a_file_that_is_read_although_it_was_cut_is_found_out(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "read_cell", lambda home: None)
    code, said = ask()
    assert code == 1
    assert "BROKEN    item files that are cut in the middle are refused: 2 tried, 1 problems" in said
    assert "facts.outcomes.parquet was read although half of it is missing" in said


def test_an_exact_chance_beyond_its_promise_is_named(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "harness.gate.selftest.unit_promises", lambda cell, one, policy: [exact_promise(f"{cell} red", 0.01, 0.02)]
    )
    code, said = ask()
    assert code == 1
    assert f"MISSED    {CELL.id} red: <= 1.00 %; found 2.00 %" in said
    assert "MISSED    0 of 2 exact chances" in said


def test_it_loads_no_model_code() -> None:
    program = (
        "import sys; from harness.cli import _parser; import harness.commands.selftesting; "
        "sys.exit(', '.join(m for m in ('torch', 'transformers', 'lm_eval') if m in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
