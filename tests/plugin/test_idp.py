"""A cell that chooses among prompts at the gate: `-k idp` is red where its recovery wins back less, and warns where it chooses
otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from harness.execution.local import MeasureOptions, make_candidate
from harness.execution.matrix import read_matrix
from harness.execution.progress import Progress
from harness.execution.store import Store
from harness.models.loaded import LoadedModel
from harness.recovery.artifact import new_record, write_artifact
from harness.recovery.soft import token_rows

CELL = "tiny_4bit-rtn_idp"
LENGTHS = (24, 60)


def put_prompts(root: Path, made: Sequence[str]) -> None:
    """Store prompts as if they had been trained: "kept" leaves the model what it knows, "ruined" does not."""
    matrix = read_matrix(root / "suites" / "matrix.toml", "embedded")
    options = MeasureOptions(device="cpu", baseline_dir=root / "baselines")
    told = Progress(write=lambda _: None, is_tty=False)
    candidate = make_candidate(matrix, matrix.plan(CELL), options=options, store=Store(root / "cache"), progress=told)
    method = candidate.recovery()
    model: LoadedModel = candidate.dense_model()
    rows = {}
    for number, kind in enumerate(made):
        drawn = torch.randint(3, 300, (LENGTHS[number],), generator=torch.Generator().manual_seed(number))
        tokens = token_rows(model, drawn.tolist())
        rows[f"prompt.{number}"] = torch.zeros_like(tokens) if kind == "kept" else tokens
    write_artifact(candidate.artifacts, new_record(CELL, candidate.trained_for(method), "w", (), {}), rows)


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("suites", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments)


def test_prompts_that_win_back_less_are_red(
    pytester: pytest.Pytester, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(prepared, pytester.path, dirs_exist_ok=True)
    monkeypatch.setenv("HARNESS_CACHE", str(pytester.path / "cache"))
    matrix = pytester.path / "suites" / "matrix.toml"
    text = matrix.read_text().replace('recoveries = ["none"]', 'recoveries = ["idp", "none"]')
    idp = '[recoveries.idp]\nmethod = "idp"\nlengths = [24, 60]\n\n[tasks.facts]'
    matrix.write_text(text.replace("[tasks.facts]", idp))
    put_prompts(pytester.path, ["kept", "kept"])
    first = run(pytester, "-k", "4bit-rtn_idp", "--harness-baselines=add-new", "--harness-reason=first")
    assert first.ret == 0, first.stdout.str()
    put_prompts(pytester.path, ["ruined", "ruined"])
    result = run(pytester, "-k", "idp and 4bit", "--harness-full")
    assert result.ret == 1, result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            f"early warning {CELL}-facts *the choice of prompts moved*",
            f"REGRESSED *{CELL}-recovery *recovery wins back * pt less than before*",
            "PASS *tiny_4bit-rtn_none-pooled *not one of 60 items flipped*",
        ]
    )
    report = json.loads((pytester.path / "reports/latest/report.json").read_text())
    cells = {cell["id"]: cell for cell in report["run"]["cells"]}
    assert cells[CELL]["verdict"]["recovery"]["status"] == "REGRESSED"
    choice = cells[CELL]["verdict"]["tasks"][0]["choice"]
    assert sum(choice["before"]) == sum(choice["now"]) == choice["n_items"] == 60
    assert choice["now"] == cells[CELL]["choices"]["facts"]["counts"]
    assert choice["warning"]
