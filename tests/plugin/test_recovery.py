"""A recovered cell through pytest and `harness judge`: its recovery is a case beside its pool, judged with its sibling."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main


@pytest.fixture(scope="module")
def with_recovery(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """The prepared project with a recovery that recovers nothing: the method `none` by the name `again`."""
    root = tmp_path_factory.mktemp("recovered")
    shutil.copytree(prepared, root, dirs_exist_ok=True)
    matrix = root / "suites" / "matrix.toml"
    text = matrix.read_text().replace('recoveries = ["none"]', 'recoveries = ["again", "none"]')
    matrix.write_text(text.replace("[tasks.facts]", '[recoveries.again]\nmethod = "none"\n\n[tasks.facts]'))
    return root


@pytest.fixture
def recovered(pytester: pytest.Pytester, with_recovery: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    shutil.copytree(with_recovery, pytester.path, dirs_exist_ok=True)
    monkeypatch.setenv("HARNESS_CACHE", str(pytester.path / "cache"))
    made = run(pytester, "suites", "-k", "4bit-rtn", "--harness-baselines=add-new", "--harness-reason=first")
    assert made.ret == 0, made.stdout.str()
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *arguments)


def verdicts_of(suite: pytest.Pytester) -> dict:
    report = json.loads((suite.path / "reports" / "latest" / "report.json").read_text())
    return {cell["id"]: cell["verdict"] for cell in report["run"]["cells"]}


def two_bits(suite: pytest.Pytester) -> None:
    """The compressed cells at 2 bits, under the same names: both change, with them what recovery is measured over."""
    matrix = suite.path / "suites" / "matrix.toml"
    head, tail = matrix.read_text().split("[compressions.4bit-rtn]")
    matrix.write_text(head + "[compressions.4bit-rtn]" + tail.replace("bits = 8", "bits = 2", 1))


def test_the_recovery_is_a_case_of_its_own_beside_the_pool(
    recovered: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(recovered, "suites", "-k", "4bit-rtn", "-v")
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        ["PASS *tiny_4bit-rtn_again-recovery*not one of 60 items flipped, here or in tiny_4bit-rtn_none*"]
    )
    assert "tiny_4bit-rtn_none-recovery" not in result.stdout.str()
    verdict = verdicts_of(recovered)["tiny_4bit-rtn_again"]["recovery"]
    assert (verdict["status"], verdict["identical"], verdict["gain"]["counts"]) == ("PASS", True, [0, 0, 60, 0, 0])
    latest = recovered.path / "reports" / "latest"
    assert 'name="tiny_4bit-rtn_again-recovery"' in (latest / "junit.xml").read_text()
    assert "won back by recovery" in (latest / "index.html").read_text()
    capsys.readouterr()
    assert main(["judge"]) == 0
    assert "tiny_4bit-rtn_again-recovery  recovery: not one of 60 items" in capsys.readouterr().out


def test_its_sibling_is_measured_along_where_it_was_not_selected(
    recovered: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(recovered, "suites", "-k", "4bit-rtn_again")
    assert result.ret == 0
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["PASS *tiny_4bit-rtn_again-recovery *", "PASS *tiny_4bit-rtn_none-pooled *"])
    assert verdicts_of(recovered)["tiny_4bit-rtn_again"]["recovery"]["identical"]
    capsys.readouterr()
    assert main(["judge"]) == 0  # the same by the other door
    assert "tiny_4bit-rtn_again-recovery  recovery: not one of 60 items" in capsys.readouterr().out


def test_what_was_measured_along_counts_and_no_baseline_of_it_is_written(recovered: pytest.Pytester) -> None:
    shutil.rmtree(recovered.path / "baselines/embedded/tiny_4bit-rtn_none")
    result = run(
        recovered, "suites", "-k", "4bit-rtn_again", "--harness-baselines=add-new", "--harness-reason=only what is selected"
    )
    assert result.ret == 11
    result.stdout.fnmatch_lines(["INVALID *tiny_4bit-rtn_again-rec*", "INVALID *tiny_4bit-rtn_none-pooled *has no baseline*"])
    assert not (recovered.path / "baselines/embedded/tiny_4bit-rtn_none").exists()


def test_a_task_alone_measures_nothing_along(recovered: pytest.Pytester) -> None:
    result = run(recovered, "suites", "-k", "4bit-rtn_again-facts or 4bit-rtn_again-pooled")
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    sentence = "its compressed sibling tiny_4bit-rtn_none was not measured whole in this run: measure both (-k tiny_4bit-rtn)"
    assert list(verdicts_of(recovered)) == ["tiny_4bit-rtn_again"]
    assert sentence in (recovered.path / "reports/latest/report.json").read_text()


def test_the_mark_selects_every_case_of_the_recovered_cells_and_no_other(recovered: pytest.Pytester) -> None:
    result = run(recovered, "suites", "-m", "recovery", "--collect-only", "-q", "--strict-markers")
    found = [line.partition("[")[2].rstrip("]") for line in result.outlines if "::" in line]
    cells = [f"tiny_{compression}_again" for compression in ("none", "8bit-rtn", "4bit-rtn")]
    assert found == [f"{cell}-{case}" for cell in cells for case in ("facts", "pooled", "recovery")]


def test_without_the_siblings_baseline_it_is_invalid_with_the_one_command(recovered: pytest.Pytester) -> None:
    shutil.rmtree(recovered.path / "baselines/embedded/tiny_4bit-rtn_none")
    result = run(recovered, "suites", "-k", "4bit-rtn_again or 4bit-rtn_none")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["INVALID *tiny_4bit-rtn_again-recovery *harness baseline propose tiny_4bit-rtn_none*"])


def test_a_baseline_that_can_not_be_read_is_invalid_in_every_case_of_the_cell(recovered: pytest.Pytester) -> None:
    path = recovered.path / "baselines/embedded/tiny_4bit-rtn_again/baseline.json"
    path.write_text(path.read_text().replace('"reason": "first"', '"reason": "better"'))
    result = run(recovered, "suites", "-k", "4bit-rtn_again or 4bit-rtn_none")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["INVALID *tiny_4bit-rtn_again-recovery *git checkout*"])


def test_an_undeclared_sibling_is_invalid(recovered: pytest.Pytester) -> None:
    matrix = recovered.path / "suites" / "matrix.toml"
    matrix.write_text(matrix.read_text().replace('recoveries = ["again", "none"]', 'recoveries = ["again"]'))
    result = run(recovered, "suites", "-k", "4bit-rtn_again")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["INVALID *tiny_4bit-rtn_again-recovery *the matrix declares no tiny_4bit-rtn_none*"])


def test_the_sibling_is_measured_whole_and_both_doors_agree(
    recovered: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    two_bits(recovered)
    result = run(recovered, "suites", "-k", "4bit-rtn")
    assert result.ret == 1
    records = recovered.path / "reports" / "latest" / "records"
    report = verdicts_of(recovered)
    sibling = report["tiny_4bit-rtn_none"]["pooled"]["evidence"]
    assert sum(sibling["counts"].values()) == sibling["n_planned"]
    assert (records / "tiny_4bit-rtn_none" / "cell.json").exists()
    capsys.readouterr()
    assert main(["judge"]) == 1
    told = capsys.readouterr().out
    found = report["tiny_4bit-rtn_again"]["recovery"]
    assert found["status"] in ("INCONCLUSIVE", "PASS")
    assert found["reason"] in told
    assert found["reason"] in result.stdout.str()


def test_a_recovered_cell_stays_on_the_worker_of_its_sibling(recovered: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    result = recovered.runpytest_subprocess("suites", "-n", "2", "-v", "-k", "4bit-rtn")
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=5)
    assert verdicts_of(recovered)["tiny_4bit-rtn_again"]["recovery"]["status"] == "PASS"


def test_a_task_can_not_take_the_name_of_the_case(recovered: pytest.Pytester) -> None:
    matrix = recovered.path / "suites" / "matrix.toml"
    matrix.write_text(
        matrix.read_text().replace("[tasks.facts]", "[tasks.recovery]").replace('tasks = ["facts"]', 'tasks = ["recovery"]')
    )
    result = run(recovered, "suites")
    assert result.ret == 4
    assert "a task can't be called 'recovery'" in result.stdout.str() + result.stderr.str()
