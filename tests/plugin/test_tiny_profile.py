"""The profile `tiny`: an encoder and an encoder-decoder, really loaded, compressed, measured and gated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CELLS = {f"{model}_{compression}_none" for model in ("tiny-bert", "tiny-t5") for compression in ("none", "4bit-rtn")}


def gate(report: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["-p", "no:cacheprovider", "--harness-profile=tiny", f"--harness-report-dir={report}"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "suites", *options, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "HARNESS_CACHE": str(report.parent / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def verdicts(report: Path) -> dict[str, str]:
    told = json.loads((report / "report.json").read_text())
    return {cell["id"]: cell["verdict"]["pooled"]["status"] for cell in told["run"]["cells"]}


@pytest.fixture(autouse=True)
def _torch() -> None:
    pytest.importorskip("torch")


def test_every_family_is_measured_anew_and_meets_its_baselines(tmp_path: Path) -> None:
    done = gate(tmp_path / "report", "--harness-fresh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(tmp_path / "report") == dict.fromkeys(CELLS, "PASS")


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-t5"])
def test_two_bits_in_the_place_of_four_are_red(tmp_path: Path, model: str) -> None:
    for name in ("matrix.toml", "policy.toml"):
        shutil.copy(REPOSITORY / "suites" / name, tmp_path)
    shutil.copytree(REPOSITORY / "suites" / "models" / model, tmp_path / "models" / model)
    matrix = tmp_path / "matrix.toml"
    declared = '[compressions.4bit-rtn]\nmethod = "rtn"\nbits = 4\n'
    assert declared in matrix.read_text()
    matrix.write_text(matrix.read_text().replace(declared, declared.replace("4\n", "2\n")))
    done = gate(tmp_path / "report", f"--harness-matrix={matrix}", f"-k={model}_4bit-rtn")
    assert done.returncode == 1, done.stdout + done.stderr
    assert verdicts(tmp_path / "report") == {f"{model}_4bit-rtn_none": "REGRESSED"}
