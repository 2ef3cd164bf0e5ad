"""A floor against the dense cell, through pytest and `harness judge`: the same verdict by both doors, never a silent skip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """The prepared project where a 2-bit cell goes by the name of 4bit-rtn, accepted as it is."""
    root = tmp_path_factory.mktemp("ruined")
    shutil.copytree(prepared, root, dirs_exist_ok=True)
    matrix = root / "suites" / "matrix.toml"
    head, tail = matrix.read_text().split("[compressions.4bit-rtn]")
    matrix.write_text(head + "[compressions.4bit-rtn]" + tail.replace("bits = 8", "bits = 2", 1))
    return root


@pytest.fixture
def floored(pytester: pytest.Pytester, ruined: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    shutil.copytree(ruined, pytester.path, dirs_exist_ok=True)
    monkeypatch.setenv("HARNESS_CACHE", str(pytester.path / "cache"))
    accepts = ("--allow-loosening", "two bits are what we ship")
    assert main(["baseline", "propose", "tiny_4bit-rtn_none", "--reason", "two bits"]) == 0
    assert main(["baseline", "accept", "tiny_4bit-rtn_none", *accepts]) == 0
    set_floor(pytester, "*_4bit-rtn_*", 0.05)
    return pytester


def set_floor(suite: pytest.Pytester, cells: str, max_loss: float) -> None:
    policy = suite.path / "suites" / "policy.toml"
    policy.write_text(f'{policy.read_text()}\n[[dense_floor]]\ncells = "{cells}"\nmax_loss = {max_loss}\n')


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *arguments)


def report_of(suite: pytest.Pytester) -> dict:
    report = json.loads((suite.path / "reports" / "latest" / "report.json").read_text())
    return {cell["id"]: cell["verdict"] for cell in report["run"]["cells"]}


def test_an_accepted_cell_below_the_floor_is_red_everywhere_it_is_shown(
    floored: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(floored, "suites", "-k", "tiny_4bit")
    assert result.ret == 1
    result.assert_outcomes(skipped=1, failed=1)
    sentence = "against tiny_none_none: pooled lost"
    result.stdout.fnmatch_lines([f"*REGRESSED*tiny_4bit-rtn_none-pooled*{sentence}*5 pt margin is proven*max_loss*"])
    pooled = report_of(floored)["tiny_4bit-rtn_none"]["pooled"]
    assert (pooled["status"], pooled["anchor"], pooled["evidence"]["m0"]) == ("REGRESSED", "dense", 0.05)
    latest = floored.path / "reports" / "latest"
    assert sentence in (latest / "junit.xml").read_text()
    assert (
        sentence.replace("_", "\\_") in (latest / "summary.md").read_text() or sentence in (latest / "summary.md").read_text()
    )
    page = (latest / "index.html").read_text()
    assert sentence in page
    assert "against the dense cell" in page
    capsys.readouterr()
    assert main(["judge"]) == 1
    assert sentence in capsys.readouterr().out


@pytest.mark.parametrize("has_dense_baseline", [True, False])
def test_the_dense_cell_of_the_same_run_will_do_whichever_is_measured_first(
    floored: pytest.Pytester, has_dense_baseline: bool
) -> None:
    if not has_dense_baseline:
        shutil.rmtree(floored.path / "baselines/embedded/tiny_none_none")
    cases = [
        f"suites/test_knowledge.py::test_knowledge[tiny_{cell}_none-{task}]"
        for cell in ("4bit-rtn", "none")
        for task in ("facts", "pooled")
    ]
    results = [run(floored, *cases), run(floored, *cases[2:], *cases[:2]), run(floored, *cases, "--harness-fresh")]
    for result in results:
        result.stdout.fnmatch_lines(["*REGRESSED*tiny_4bit-rtn_none-pooled*against tiny_none_none*"])
        assert result.ret == 1


def test_without_any_dense_record_the_cell_is_invalid_and_says_what_to_do(floored: pytest.Pytester) -> None:
    shutil.rmtree(floored.path / "baselines/embedded/tiny_none_none")
    result = run(floored, "suites", "-k", "tiny_4bit")
    assert result.ret == 11
    result.assert_outcomes(skipped=1, errors=1)
    result.stdout.fnmatch_lines(["*against tiny_none_none: the policy sets a floor*harness baseline propose tiny_none_none*"])
    assert report_of(floored)["tiny_4bit-rtn_none"]["pooled"]["status"] == "INVALID"


def test_an_edited_dense_baseline_is_invalid(floored: pytest.Pytester) -> None:
    path = floored.path / "baselines/embedded/tiny_none_none/baseline.json"
    path.write_text(path.read_text().replace('"reason": "first"', '"reason": "better"'))
    result = run(floored, "suites", "-k", "tiny_4bit")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*the baseline of tiny_none_none can't be used*git checkout*"])


def test_a_floor_for_no_cell_at_all_is_a_mistake_and_no_silent_pass(floored: pytest.Pytester) -> None:
    set_floor(floored, "tiny_4bti-rtn_none", 0.1)
    result = run(floored, "suites", "-k", "tiny_8bit")
    assert result.ret == 4
    assert "did you mean 'tiny_4bit-rtn_none'" in result.stdout.str() + result.stderr.str()
    assert main(["judge"]) != 0
