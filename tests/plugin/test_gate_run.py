"""The main job through pytest: add baselines, gate, break something, see it fail in the right way."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from harness.cli import main


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *arguments)


def report_of(suite: pytest.Pytester) -> dict:
    return json.loads((suite.path / "reports" / "latest" / "report.json").read_text())


def test_collecting_lists_every_case_and_loads_no_torch(suite: pytest.Pytester) -> None:
    suite.makeconftest(
        "import sys\ndef pytest_unconfigure():\n    print('TORCH LOADED' if 'torch' in sys.modules else 'no torch')\n"
    )
    result = suite.runpytest_subprocess("suites", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*[[]tiny_none_none-facts[]]", "*[[]tiny_4bit-rtn_none-pooled[]]", "*no torch*"])


def test_without_a_baseline_every_case_is_an_error_that_names_the_one_command(suite: pytest.Pytester) -> None:
    result = run(suite, "suites", "-k", "tiny_8bit")
    assert result.ret == 11
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*harness baseline propose tiny_8bit-rtn_none*"])
    assert not (suite.path / "baselines").exists()


def test_the_commands_that_a_run_names_work_as_pasted(suite: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    """In a profile, with a matrix and baselines, of one's own."""
    (suite.path / "suites").rename(suite.path / "our suites")
    matrix = suite.path / "our suites" / "matrix.toml"
    matrix.write_text(matrix.read_text().replace("embedded", "mine"))
    asked = ("our suites", "--harness-profile=mine", "--harness-baseline-dir=our baselines", "-k", "tiny_8bit")
    first = run(suite, *asked)
    assert first.ret == 11
    assert main(pasted(first.stdout.str(), "propose")) == 0
    assert main(pasted(capsys.readouterr().out, "accept")) == 0
    assert run(suite, *asked).ret == 0


def pasted(text: str, verb: str) -> list[str]:
    """The words of the first command of a kind, as a shell would give them to it."""
    found = re.search(f"`harness (baseline {verb} [^`]*)`", text)
    assert found, text
    return shlex.split(found[1])


def test_an_unchanged_cell_is_identical_and_costs_no_forward_pass(gated: pytest.Pytester) -> None:
    result = run(gated, "suites", "-k", "tiny_4bit")
    assert result.ret == 0
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["PASS * tiny_4bit-rtn_none-pooled*", "report: *index.html"])
    assert "measuring items" not in result.stdout.str()
    cells = {cell["id"]: cell for cell in report_of(gated)["run"]["cells"]}
    assert cells["tiny_4bit-rtn_none"]["verdict"]["pooled"]["identical"]


def test_with_an_empty_store_an_unchanged_cell_takes_its_outcomes_from_the_baseline(
    gated: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "empty"))
    result = run(gated, "suites", "-k", "tiny_4bit")
    assert result.ret == 0
    assert "measuring items" not in result.stdout.str()
    record = json.loads((gated.path / "reports/latest/records/tiny_4bit-rtn_none/cell.json").read_text())
    assert record["origins"] == {"facts": "baseline"}


def test_fresh_measures_again_and_an_aa_replay_is_not_red(gated: pytest.Pytester) -> None:
    result = run(gated, "suites", "-k", "tiny_4bit", "--harness-fresh")
    assert result.ret == 0
    assert "measuring items" in result.stdout.str()
    record = json.loads((gated.path / "reports/latest/records/tiny_4bit-rtn_none/cell.json").read_text())
    assert record["origins"] == {"facts": "measured"}


def test_a_damaged_candidate_fails_with_cell_task_loss_and_how_to_see_the_items(gated: pytest.Pytester, write_matrix) -> None:
    write_matrix(bits=2)
    result = run(gated, "suites", "-k", "tiny_4bit")
    assert result.ret == 1
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*REGRESSED * tiny_4bit-rtn_none-facts *lost*"])
    page = (gated.path / "reports" / "latest" / "index.html").read_text()
    assert "The capital of" in page
    assert "REGRESSED" in (gated.path / "reports" / "latest" / "summary.md").read_text()
    assert "<failure" in (gated.path / "reports" / "latest" / "junit.xml").read_text()


def test_a_decided_cell_costs_no_more_forward_passes_unless_all_are_asked_for(gated: pytest.Pytester, write_matrix) -> None:
    write_matrix(bits=2)

    def fed(*arguments: str) -> tuple[int, str]:
        result = run(gated, "suites", "-k", "tiny_4bit", *arguments)
        assert result.ret == 1
        cells = {cell["id"]: cell for cell in report_of(gated)["run"]["cells"]}
        evidence = cells["tiny_4bit-rtn_none"]["verdict"]["pooled"]["evidence"]
        assert evidence["n_planned"] == 60
        counts = evidence["counts"]
        return counts["n_lost"] + counts["n_gained"] + counts["n_unchanged"], result.stdout.str()

    n_fed, said = fed()
    assert n_fed < 60
    assert f"decided after {n_fed} of 60 items; the rest was not measured" in said
    n_fed, said = fed("--harness-full")
    assert n_fed == 60
    assert "decided after" not in said


def test_a_plain_run_never_writes_baselines(gated: pytest.Pytester, write_matrix) -> None:
    before = {path: path.read_bytes() for path in (gated.path / "baselines").rglob("*") if path.is_file()}
    write_matrix(bits=2)
    run(gated, "suites")
    assert {path: path.read_bytes() for path in (gated.path / "baselines").rglob("*") if path.is_file()} == before


def test_update_needs_a_reason_and_leaves_loosening_to_the_command_line(gated: pytest.Pytester, write_matrix) -> None:
    write_matrix(bits=2)
    refused = run(gated, "suites", "-k", "tiny_4bit", "--harness-baselines=update")
    assert refused.ret == 4
    refused.stderr.fnmatch_lines(["*--harness-reason*"])
    loosens = run(gated, "suites", "-k", "tiny_4bit", "--harness-baselines=update", "--harness-reason=two bits now")
    assert loosens.ret == 4
    loosens.stdout.fnmatch_lines(["*loosens the gate (the accuracy of facts falls*harness baseline diff*--allow-loosening*"])
    path = gated.path / "baselines/embedded/tiny_4bit-rtn_none/baseline.json"
    assert json.loads(path.read_text())["reason"] == "first"
    assert main(["baseline", "accept", "tiny_4bit-rtn_none", "--allow-loosening", "smaller is worth it"]) == 0
    assert json.loads(path.read_text())["reason"] == "two bits now"


def test_an_edited_baseline_is_invalid_and_says_how_to_restore_it(gated: pytest.Pytester) -> None:
    path = gated.path / "baselines/embedded/tiny_4bit-rtn_none/baseline.json"
    path.write_text(path.read_text().replace('"reason": "first"', '"reason": "better"'))
    result = run(gated, "suites", "-k", "tiny_4bit")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*git checkout*"])


def test_an_unknown_cell_name_is_answered_with_the_nearest(gated: pytest.Pytester) -> None:
    result = run(gated, "suites", "-k", "tiny_4bti-rtn_none")
    assert result.ret == 5
    result.stdout.fnmatch_lines(["*did you mean 'tiny_4bit-rtn_none'*"])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('method = "rtn"', 'method = "rtm"', "did you mean 'rtn'"),
        ('tasks = ["facts"]', 'tasks = ["fact"]', "did you mean 'facts'"),
        ('models = ["tiny"]', 'models = ["tiney"]', "did you mean 'tiny'"),
        ("group_size = 32", "grup_size = 32", "grup_size"),
        ("[recoveries.none]", "[recovery.none]", "matrix.toml:*unknown key"),
        ("[compressions.8bit-rtn]", '[compressions."8bit/../rtn"]', "unknown compression"),
    ],
)
def test_a_wrong_matrix_is_one_sentence_with_exit_code_4(suite: pytest.Pytester, old: str, new: str, sentence: str) -> None:
    path = suite.path / "suites" / "matrix.toml"
    path.write_text(path.read_text().replace(old, new))
    result = run(suite, "suites", "-k", "8bit")
    text = result.stdout.str() + result.stderr.str()
    assert result.ret in (4, 11), text
    assert any(part in text for part in [sentence, sentence.rsplit("*", maxsplit=1)[-1]])
    assert "Traceback" not in text


def test_a_cell_stays_on_one_worker_under_xdist(gated: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    result = gated.runpytest_subprocess("suites", "-n", "2", "-v")
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=6)
    assert len(report_of(gated)["run"]["cells"]) == 3
    pairs = {
        (cell, worker) for worker, cell in re.findall(r"\[(gw\d)\].*\[(tiny_\S+)-(?:facts|pooled)\]", result.stdout.str())
    }
    assert len(pairs) == 3, pairs


def test_a_pool_that_regressed_counts_although_its_case_was_not_selected(gated: pytest.Pytester, write_matrix) -> None:
    """A red pool cuts its tasks off, which alone are then INCONCLUSIVE and let the commit through."""
    write_matrix(bits=2)
    policy = gated.path / "suites" / "policy.toml"
    policy.write_text(policy.read_text().replace("m0 = 0.01\nm1_floor = 0.05", "m0 = 0.4\nm1_floor = 0.45"))
    result = run(gated, "suites", "-k", "tiny_4bit and facts and not pooled")
    assert result.ret == 1, result.stdout.str()
    result.stdout.fnmatch_lines(["INCONCLUSIVE *tiny_4bit-rtn_none-facts *", "REGRESSED *tiny_4bit-rtn_none-pooled *"])
    assert report_of(gated)["run"]["exit_code"] == 1


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_stopping_at_the_first_failure_keeps_the_exit_code(gated: pytest.Pytester, write_matrix, workers: tuple) -> None:
    write_matrix(bits=2)
    result = gated.runpytest_subprocess("suites", "-k", "tiny_4bit", "-x", *workers)
    assert result.ret == 1, result.stdout.str()
    said = result.stderr if workers else result.stdout  # progress reaches people from a worker, too
    said.fnmatch_lines(["*[[]gw?[]] tiny_4bit-rtn_none: *" if workers else "*tiny_4bit-rtn_none: *"])


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_case_that_dies_without_a_verdict_is_invalid_and_no_regression(gated: pytest.Pytester, workers: tuple) -> None:
    """A bug of the harness, or a worker that ran out of memory."""
    death = "os._exit(9)" if workers else "raise ZeroDivisionError"
    gated.makeconftest(f"import os, harness.plugin.session as s\ndef judge(*a, **k):\n    {death}\ns.judge = judge\n")
    result = gated.runpytest_subprocess("suites", "-k", "tiny_4bit", *workers)
    assert result.ret == 11, result.stdout.str()


@pytest.mark.parametrize(
    ("path", "old", "new", "sentence"),
    [
        ("matrix.toml", 'suite = "facts"', 'suite = "fact"', "did you mean 'facts'"),
        ("policy.toml", "alpha_commit = 0.05", "alpha_commit = 5", "expected a number between 0 and 1"),
    ],
)
def test_a_wrong_setting_is_one_sentence_from_xdists_workers_too(
    suite: pytest.Pytester, path: str, old: str, new: str, sentence: str
) -> None:
    file = suite.path / "suites" / path
    file.write_text(file.read_text().replace(old, new))
    result = suite.runpytest_subprocess("suites", "-n", "2")
    assert result.ret == 4, result.stdout.str()
    result.stdout.fnmatch_lines([f"*{sentence}*"])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_two_matrices_in_one_run_are_refused(gated: pytest.Pytester) -> None:
    """Their cells may have the same ids, and would take each other's verdicts."""
    shutil.copytree(gated.path / "suites", gated.path / "more")
    result = run(gated, "suites", "more", "--import-mode=importlib")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*one run gates the cells of one matrix, and 2 were collected*"])


def test_with_a_task_left_out_the_pool_says_so(gated: pytest.Pytester) -> None:
    result = run(gated, "suites", "-rs", "-k", "tiny_8bit and pooled")
    assert result.ret == 5  # nothing was judged
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*left out here: facts*"])


def test_a_limited_run_is_judged_on_its_own_items(gated: pytest.Pytester) -> None:
    result = run(gated, "suites", "-k", "tiny_8bit", "--harness-limit", "20")
    assert result.ret == 0, result.stdout.str()
    verdict = report_of(gated)["run"]["cells"][0]["verdict"]["pooled"]
    assert verdict["evidence"]["counts"]["n_unchanged"] == 20
    assert verdict["status"] == "INCONCLUSIVE"  # twenty items without a flip prove little
    result.stdout.fnmatch_lines(["*20 items can hardly prove*"])


def test_release_policy_fails_what_commit_only_warns_about(gated: pytest.Pytester) -> None:
    arguments = ("suites", "-k", "tiny_8bit", "--harness-limit", "3")
    assert run(gated, *arguments).ret == 0
    assert run(gated, *arguments, "--harness-policy=release").ret == 10


def test_the_same_tensors_under_another_config_are_another_model(
    gated: pytest.Pytester, knowing_model: Path, tmp_path: Path, write_matrix
) -> None:
    other = tmp_path / "other"
    shutil.copytree(knowing_model, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_act": "relu", "rms_norm_eps": 0.5}))
    path = gated.path / "suites" / "matrix.toml"
    path.write_text(path.read_text().replace(str(knowing_model), str(other)))
    assert run(gated, "suites", "-k", "tiny_none").ret == 1
    (other / "config.json").write_text("{")
    assert run(gated, "suites", "-k", "tiny_none").ret == 11


def test_a_crash_is_invalid_and_leaves_no_older_result(gated: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(gated, "suites", "-k", "tiny_none").ret == 0
    from harness.scoring.decoder import DecoderScorer

    def out_of_memory(*_: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(DecoderScorer, "score", out_of_memory)
    result = run(gated, "suites", "-k", "tiny_none", "--harness-fresh")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*measuring crashed (RuntimeError: CUDA out of memory)*"])
    assert (gated.path / "reports/latest/records/tiny_none_none/failure.json").exists()


def test_a_run_that_is_stopped_says_what_is_kept(gated: pytest.Pytester) -> None:
    gated.makeconftest(
        "import harness.plugin.session as s\ndef stop(*a, **k):\n    raise KeyboardInterrupt\ns.measure_cell = stop\n"
    )
    result = gated.runpytest_subprocess("suites", "-k", "tiny_4bit")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["harness: stopped; finished rounds are stored*"])
    record = gated.path / "reports/latest/records/tiny_4bit-rtn_none/failure.json"
    assert "measuring did not finish" in record.read_text()


def test_a_report_folder_that_can_not_be_written_is_one_sentence(gated: pytest.Pytester) -> None:
    (gated.path / "taken").write_text("a file")
    result = run(gated, "suites", "-k", "tiny_none", "--harness-report-dir", "taken")
    assert result.ret == 11
    assert "can't be written" in result.stdout.str() + result.stderr.str()


def test_a_pinned_environment_of_another_project_is_not_our_business(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", "/nowhere")
    pytester.makepyfile("def test_x():\n    assert True\n")
    assert pytester.runpytest_inprocess().ret == 0


def test_other_projects_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x():\n    assert True\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == 0
    assert not (pytester.path / "reports").exists()
