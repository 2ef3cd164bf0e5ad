"""The scripts inside gate.yml, run as the runner would run them, with a stand-in for pytest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
Workflows = dict[str, dict[str, Any]]

STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > arguments
echo x >> calls
code=$(sed -n "$(wc -l < calls)p" codes)
mkdir -p "reports/$LEG"
echo "summary of call $(wc -l < calls)" > "reports/$LEG/summary.md"
exit "$code"
"""


def script_of(workflows: Workflows, job: str, name: str) -> str:
    found = [step["run"] for step in workflows["gate.yml"]["jobs"][job]["steps"] if step.get("name") == name]
    assert len(found) == 1
    return found[0]


def run_gate(workflows: Workflows, folder: Path, codes: list[int], **more: str) -> subprocess.CompletedProcess[str]:
    """The step that measures, in a folder whose pytest ends with these codes, one a call."""
    tool = folder / ".venv" / "bin" / "pytest"
    tool.parent.mkdir(parents=True)
    tool.write_text(STAND_IN)
    tool.chmod(0o755)
    (folder / "codes").write_text("".join(f"{code}\n" for code in codes))
    (folder / "gate.sh").write_text(script_of(workflows, "gate", "Measure, judge, report"))
    given = {"LEG": "bert", "SELECT": "[bert_", "POLICY": "commit", "FRESH": "", "GITHUB_STEP_SUMMARY": "shown.md", **more}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "gate.sh"]
    return subprocess.run(command, cwd=folder, env={**os.environ, **given}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("codes", "n_calls", "ends"),
    [
        ([0], 1, 0),
        ([1], 1, 1),
        ([10], 1, 10),
        ([4], 1, 4),
        ([11, 0], 2, 0),
        ([11, 1], 2, 1),
        ([11, 11, 0], 2, 11),
    ],
)
def test_only_an_invalid_run_is_tried_again_and_only_once(
    workflows: Workflows, tmp_path: Path, codes: list[int], n_calls: int, ends: int
) -> None:
    done = run_gate(workflows, tmp_path, codes)
    assert done.returncode == ends, done.stderr
    assert (tmp_path / "calls").read_text() == "x\n" * n_calls
    assert (tmp_path / "reports" / "bert" / "exit-code").read_text() == f"{ends}\n"
    assert (tmp_path / "shown.md").read_text() == f"summary of call {n_calls}\n"


def test_the_gate_asks_pytest_for_one_model_on_the_gpu_under_the_policy(workflows: Workflows, tmp_path: Path) -> None:
    run_gate(workflows, tmp_path, [0], POLICY="release")
    wanted = ["suites/", "-k", "[bert_", "--harness-profile=gpu", "--harness-device=cuda", "--harness-policy=release"]
    assert (tmp_path / "arguments").read_text().splitlines() == [*wanted, "--harness-report-dir=reports/bert"]


def test_the_nightly_run_measures_everything_afresh(workflows: Workflows, tmp_path: Path) -> None:
    run_gate(workflows, tmp_path, [0], FRESH="yes")
    assert (tmp_path / "arguments").read_text().splitlines()[-2:] == ["--harness-fresh", "--harness-full"]


def test_a_selection_with_shell_in_it_stays_one_argument(workflows: Workflows, tmp_path: Path) -> None:
    evil = 'llama"; touch owned; echo "$(touch owned)'
    run_gate(workflows, tmp_path, [0], SELECT=evil)
    assert evil in (tmp_path / "arguments").read_text().splitlines()
    assert not (tmp_path / "owned").exists()


# ------------------------------------------------------------------------------------------------ the last job


def run_verdict(workflows: Workflows, folder: Path, codes: dict[str, int | None]) -> subprocess.CompletedProcess[str]:
    """The step that collects, over legs that ended with these codes; None left no result."""
    for name, code in codes.items():
        if code is not None:
            (folder / "results" / f"gate-{name}").mkdir(parents=True)
            (folder / "results" / f"gate-{name}" / "exit-code").write_text(f"{code}\n")
    script = script_of(workflows, "verdict", "One verdict over all models")
    legs = json.dumps([{"name": name, "select": f"[{name}_"} for name in codes])
    given = {**os.environ, "LEGS": legs, "GITHUB_STEP_SUMMARY": "shown.md"}
    return subprocess.run([sys.executable, "-c", script], cwd=folder, env=given, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("codes", "ends"),
    [
        ({"llama": 0, "bert": 0}, 0),
        ({"llama": 0, "bert": 10}, 10),
        ({"llama": 10, "bert": 11}, 11),
        ({"llama": 11, "bert": 1, "opt": 10}, 1),
        ({"llama": 0, "bert": None}, 11),
        ({"llama": 0, "bert": 5}, 11),
    ],
)
def test_a_regression_wins_then_invalid_then_inconclusive_and_no_result_never_passes(
    workflows: Workflows, tmp_path: Path, codes: dict[str, int | None], ends: int
) -> None:
    done = run_verdict(workflows, tmp_path, codes)
    assert done.returncode == ends, done.stderr
    shown = (tmp_path / "shown.md").read_text()
    assert all(f"| {name} | " in shown for name in codes)


@pytest.mark.parametrize("legs", ["", "[]"])
def test_without_a_plan_nothing_passes(workflows: Workflows, tmp_path: Path, legs: str) -> None:
    script = script_of(workflows, "verdict", "One verdict over all models")
    given = {**os.environ, "LEGS": legs, "GITHUB_STEP_SUMMARY": "shown.md"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 11, done.stderr
    assert "INVALID" in (tmp_path / "shown.md").read_text()


def test_the_verdict_is_left_out_for_forks_only(workflows: Workflows) -> None:
    """GitHub counts a skipped job as passed, so a plan that failed must not skip it."""
    condition = workflows["gate.yml"]["jobs"]["verdict"]["if"]
    assert condition == "${{ !cancelled() && (needs.plan.result != 'success' || needs.gate.result != 'skipped') }}"


# ------------------------------------------------------------------------------------------------ the first job


def plan(workflows: Workflows, folder: Path, select: str) -> list[dict[str, str]]:
    script = script_of(workflows, "plan", "One leg for each model of the profile gpu")
    given = {**os.environ, "SELECT": select, "GITHUB_OUTPUT": str(folder / "output")}
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, env=given, check=True)
    name, _, text = (folder / "output").read_text().partition("=")
    assert name == "legs"
    assert text.count("\n") == 1  # one line: a second output can't be smuggled in
    legs: list[dict[str, str]] = json.loads(text)
    return legs


def test_every_model_of_the_gpu_profile_gets_a_leg_of_its_own(workflows: Workflows, tmp_path: Path) -> None:
    from harness.execution.matrix import read_matrix

    cells = read_matrix(REPOSITORY / "suites" / "matrix.toml", "gpu").cells
    legs = plan(workflows, tmp_path, "")
    taken = [[cell for cell in cells if f"test_knowledge[{cell}-facts]".find(leg["select"]) >= 0] for leg in legs]
    assert sorted(cell for group in taken for cell in group) == sorted(cells)  # each once
    assert [leg["name"] for leg in legs] == list(dict.fromkeys(plan.cell.model for plan in cells.values()))


def test_a_selection_by_hand_is_one_leg(workflows: Workflows, tmp_path: Path) -> None:
    assert plan(workflows, tmp_path, "llama and 4bit\nlegs=[]") == [{"name": "selected", "select": "llama and 4bit\nlegs=[]"}]
