"""The life of a baseline on the command line: propose, look, accept, freeze, tidy; what is said and the exit codes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.baseline import load_baseline, load_release_tag
from harness.cli import main
from harness.core.records import Cell, CellRun
from harness.execution import propose as propose_module
from harness.execution.candidate import Variant
from harness.gate import read_policy
from harness.stats.paired import tango_interval

POLICY = Path(__file__).parents[2] / "suites" / "policy.toml"
CELL = Cell("llama", "4bit-rtn", "none")
OTHER = Cell("llama", "8bit-rtn", "none")


class Console:
    """The command line in a project of its own, whose cells answer as ``answer`` says."""

    def __init__(self, build: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.build, self.capsys = build, capsys
        self.answer: Callable[[Variant | None], CellRun] = lambda variant: build.one(200, 120)

    def measure(self, matrix: Any, plan: Any, tasks: Any, *, options: Any, **_: Any) -> CellRun:
        made = self.answer(options.variant)
        runs = {name: replace(task, cell=plan.cell.id) for name, task in made.runs.items()}
        return CellRun(replace(made.record, cell=plan.cell), runs)

    def __call__(self, line: str, *more: str) -> tuple[int, str]:
        code = main([*line.split(), *more])
        said = self.capsys.readouterr()
        return code, said.out + said.err

    def adopt(self, cell: Cell = CELL) -> None:
        code, _ = self(f"baseline propose {cell.id} --accept --reason", "first")
        assert code == 0

    def answers(self, n_right: int) -> None:
        self.answer = lambda variant: self.build.one(200, n_right)


@pytest.fixture
def console(
    tmp_path: Path, matrix_file: Path, build: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Console:
    made = Console(build, capsys)
    shutil.copy(POLICY, matrix_file.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(propose_module, "measure_cell", made.measure)
    return made


def test_propose_diff_and_accept_say_what_to_do_next(console: Console) -> None:
    code, said = console(f"baseline propose {CELL.id} --reason", "first")
    assert code == 0
    assert f"proposed in baselines/embedded/proposals/{CELL.id}; nothing accepted has changed" in said
    assert f"`harness baseline diff {CELL.id}` shows it, `harness baseline accept {CELL.id}` accepts it" in said
    code, said = console(f"baseline accept {CELL.id}")
    assert (code, said) == (0, f"{CELL.id}: baseline added; review it and commit it\n")
    assert load_baseline(Path("baselines"), "embedded", CELL) is not None


def test_a_first_baseline_is_proposed_and_accepted_in_one_go_and_a_later_one_is_not(console: Console) -> None:
    code, said = console(f"baseline propose {CELL.id} {OTHER.id} --accept --reason", "first")
    assert code == 0
    assert said.count("baseline added") == 2
    code, said = console(f"baseline propose {CELL.id} --accept --reason", "again")
    assert code == 4
    assert "--accept is for the first baseline of a cell" in said
    assert "A/A run" not in said


def test_loosening_is_named_refused_and_accepted_with_a_reason(console: Console) -> None:
    console.adopt()
    console.answers(110)
    code, said = console(f"baseline propose {CELL.id} --reason", "two bits now")
    assert code == 0
    assert "  loosens: the accuracy of facts falls by 5 pt" in said
    assert f'`harness baseline accept {CELL.id} --allow-loosening "why"` accepts it' in said
    code, said = console(f"baseline accept {CELL.id}")
    assert code == 4
    assert said.startswith(f"harness: the proposal for {CELL.id} loosens the gate (the accuracy of facts falls by 5 pt")
    code, said = console(f"baseline accept {CELL.id} --allow-loosening", "smaller is worth it")
    assert code == 0
    assert "baseline updated" in said
    assert "  loosened: the accuracy of facts falls by 5 pt" in said


def test_diff_is_a_table_in_points_and_ends_like_diff(console: Console) -> None:
    console.adopt()
    assert console("baseline diff") == (0, "no proposals in baselines/embedded\n")
    console.answer = lambda variant: console.build.run(
        {"facts": console.build.task("facts", console.build.right(200, 120, lost=12, gained=2))},
        weights="w2",
        engine={"torch": "2"},
    )
    console(f"baseline propose {CELL.id} --reason", "two bits now")
    code, said = console(f"baseline diff {CELL.id}")
    assert code == 1
    rows = [re.split(r"  +", line.strip()) for line in said.splitlines()]
    digest = load_baseline(Path("baselines"), "embedded", CELL).record.digest
    assert rows[0] == [f"{CELL.id}: a proposal (baseline) against the accepted baseline {digest[:12]}: two bits now"]
    assert rows[1] == ["items", "before", "now", "lost", "gained", "95 % interval of the loss", "A/A spread", "A/A flips"]
    low, high = tango_interval(12, 2, 200, 0.95)
    same = ["200", "60.00", "55.00", "12", "2", f"{100 * low:.2f} to {100 * high:.2f}", "0", "0.951"]
    assert rows[2:4] == [["facts", *same], ["pooled", *same]]
    assert rows[4:] == [
        ["differs: torch: 1 -> 2"],
        ["loosens: the accuracy of facts falls by 5 pt"],
        ["loosens: the accuracy of pooled falls by 5 pt"],
    ]


def test_diff_of_the_same_state_still_says_that_no_commit_is_known(console: Console) -> None:
    console.adopt()
    run = console.build.one(200, 120)
    record = replace(run.record, provenance=replace(run.record.provenance, commit="unknown"))
    console.answer = lambda variant: CellRun(record, run.runs)
    console(f"baseline propose {CELL.id} --reason", "again")
    code, said = console(f"baseline diff {CELL.id}")
    assert code == 0
    assert "  nothing differs\n  note: no commit known" in said


def test_diff_of_the_same_state_is_nothing(console: Console) -> None:
    console.adopt()
    console(f"baseline propose {CELL.id} --reason", "again, for the record")
    code, said = console(f"baseline diff {CELL.id}")
    assert code == 0
    assert "nothing differs" in said


def test_diff_shows_a_claim_that_is_given_up_though_no_answer_changed(console: Console) -> None:
    def answers(**info: object) -> None:
        task = console.build.task("facts", console.build.right(200, 120), **info)
        console.answer = lambda variant: console.build.run({"facts": task})

    answers(n_clusters=12)
    console.adopt()
    answers(data_version="2")
    console(f"baseline propose {CELL.id} --reason", "these facts only")
    code, said = console(f"baseline diff {CELL.id}")
    assert code == 1
    for line in (
        "  facts: data version: 1 -> 2\n",
        "  facts: relations that stand for others: 12 -> none\n",
        "  loosens: facts's relations stood for others, and now only for themselves\n",
    ):
        assert line in said
    assert console(f"baseline accept {CELL.id}")[0] == 4


def test_diff_of_a_first_proposal_has_nothing_before(console: Console) -> None:
    console(f"baseline propose {CELL.id} --reason", "first")
    code, said = console("baseline diff")
    assert code == 1
    assert "against no accepted baseline: first" in said
    assert re.search(r"facts +200 +none +60.00 +0 +0.951", said)


def test_diff_says_when_a_proposal_is_stale(console: Console) -> None:
    console(f"baseline propose {CELL.id} --reason", "first")
    shutil.copytree(f"baselines/embedded/proposals/{CELL.id}", "kept")
    console.answers(130)
    shutil.rmtree("baselines/embedded/proposals")
    console.adopt()
    shutil.copytree("kept", f"baselines/embedded/proposals/{CELL.id}")
    code, said = console(f"baseline diff {CELL.id}")
    assert code == 1
    assert "stale: it was made against another baseline" in said
    assert console(f"baseline accept {CELL.id} --allow-loosening why")[0] == 4


def test_show_tells_accuracy_noise_anchor_and_proposals(console: Console) -> None:
    console.adopt()
    console(f"baseline freeze --tag v1 {CELL.id}")
    console(f"baseline propose {CELL.id} --reason", "again")
    code, said = console("baseline show")
    assert code == 0
    assert f"{CELL.id}: first (commit abc, 2025-01-01T00:00:00+00:00)" in said
    assert "facts          120/200 right; 3 A/A runs: spread 0 pt, at most 0.951 pt flip" in said
    assert "4.25 bits a weight, 1,000 bytes" in said
    assert "release anchor: v1" in said
    assert f"there is a proposal: `harness baseline diff {CELL.id}` shows it" in said
    assert f"{OTHER.id}: no baseline" in said
    assert console(f"baseline show {OTHER.id}")[0] == 4


def test_show_goes_on_after_a_damaged_baseline_and_ends_with_its_code(console: Console) -> None:
    console.adopt()
    console.adopt(OTHER)
    Path(f"baselines/embedded/{CELL.id}/facts.parquet").write_bytes(b"")
    code, said = console("baseline show")
    assert code == 11
    assert "git checkout" in said
    assert f"{OTHER.id}: first" in said


def test_drop_discards_a_proposal_also_of_a_cell_that_is_gone(console: Console, matrix_file: Path) -> None:
    console(f"baseline propose {CELL.id} --reason", "first")
    matrix_file.write_text(matrix_file.read_text().replace('"4bit-rtn", "8bit-rtn"', '"8bit-rtn"'))
    assert console(f"baseline drop {CELL.id}") == (0, f"{CELL.id}: proposal discarded\n")
    assert console(f"baseline drop {CELL.id}") == (4, f"{CELL.id}: there was no proposal\n")
    assert not Path("baselines/embedded/proposals").exists()


def test_freeze_takes_every_baseline_or_those_that_are_named(console: Console) -> None:
    assert console("baseline freeze --tag v1")[0] == 4
    console.adopt()
    assert console("baseline freeze --tag v1") == (0, f"{CELL.id}: frozen as v1\n")
    assert console("baseline freeze --tag v1") == (0, f"{CELL.id}: is frozen already as v1\n")
    code, said = console(f"baseline freeze --tag v2 {CELL.id}")
    assert code == 4
    assert "--replace moves it to 'v2'" in said
    assert console(f"baseline freeze --tag v2 --replace {CELL.id}")[0] == 0
    assert load_release_tag(Path("baselines"), "embedded", CELL) == "v2"
    code, said = console("baseline freeze --tag v2 llama_4bit-rtm_none")
    assert code == 4
    assert "did you mean 'llama_4bit-rtn_none'" in said
    assert console(f"baseline freeze --tag v2 {OTHER.id}")[0] == 4


def test_unused_lists_and_removes_only_when_asked(console: Console, matrix_file: Path) -> None:
    console.adopt()
    console.adopt(OTHER)
    assert console("baseline unused") == (0, "nothing is unused in baselines/embedded\n")
    matrix_file.write_text(matrix_file.read_text().replace('"4bit-rtn", "8bit-rtn"', '"8bit-rtn"'))
    code, said = console("baseline unused")
    assert code == 0
    assert f"unused: the baseline of {CELL.id} (baselines/embedded/{CELL.id})" in said
    assert Path(f"baselines/embedded/{CELL.id}").exists()
    code, said = console("baseline unused --remove")
    assert code == 0
    assert "unused: the baseline" in said
    assert "removed: 1" in said
    assert not Path(f"baselines/embedded/{CELL.id}").exists()
    assert Path(f"baselines/embedded/{OTHER.id}").exists()


def test_noise_prints_runs_flips_limits_and_margins_and_proposes_what_it_found(console: Console) -> None:
    console.adopt()
    base = console.build.one(200, 120)
    console.answer = lambda variant: console.build.flipped(base, lost=variant.batch_tokens // 256 if variant else 0)
    code, said = console(f"noise {CELL.id}")
    assert code == 0
    rows = {row[0]: row[1:] for row in (re.split(r"  +", line.strip()) for line in said.splitlines())}
    assert rows["as declared, stored"] == ["60.00, 0 flips"]
    assert rows["batches of 256 tokens, 1 thread"] == ["59.50, 1 flips"]
    assert rows["batches of 512 tokens, 2 threads"] == ["59.00, 2 flips"]
    assert rows["items"] == ["200", "200"]
    assert rows["spread (sigma)"] == ["0.5", "0.5"]
    assert rows["flip rate, at most (f_ref)"] == ["2.18", "2.18"]
    policy, f_ref = read_policy(POLICY), 0.021832
    m1 = [policy.task.m1(200, f_ref) * 0.9, policy.cell.m1(200, f_ref)]
    assert rows["loss that PASS excludes (m1)"] == [f"{100 * value:.3g}" for value in m1]
    assert "loosens: the A/A flip rate of facts grows from 0.951 to 2.18 pt" in said
    assert console(f"baseline accept {CELL.id}")[0] == 4
    code, said = console(f"baseline accept {CELL.id} --allow-loosening", "measured where the gate runs")
    assert "baseline noise updated" in said
    code, said = console(f"noise {CELL.id}")
    assert code == 0
    assert "nothing to accept" in said


def test_a_crash_while_measuring_is_one_line_and_invalid(console: Console) -> None:
    def crash(variant: Variant | None) -> CellRun:
        raise MemoryError("no memory for 3 tensors")

    console.answer = crash
    code, said = console(f"baseline propose {CELL.id} --reason", "first")
    assert code == 11
    assert f"harness: {CELL.id}: measuring crashed (MemoryError: no memory for 3 tensors)" in said
    assert not Path("baselines").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("baseline propose llama_4bit-rtm_none --reason x", "did you mean 'llama_4bit-rtn_none'"),
        (f"baseline propose {CELL.id} --runs 2 --reason x", "--runs expects at least 3"),
        (f"noise {CELL.id}", "no accepted baseline whose noise could be measured"),
        (f"baseline accept {CELL.id}", "there is no proposal"),
        (f"baseline diff {CELL.id}", "there is no proposal"),
        (f"baseline accept {CELL.id} --allow-loosening= ", "--allow-loosening needs a reason"),
    ],
)
def test_what_can_not_be_done_is_one_sentence_with_exit_code_4(console: Console, line: str, words: str) -> None:
    code, said = console(line)
    assert code == 4
    assert words in said
    assert said.startswith("harness: ")


@pytest.mark.parametrize(
    "line", ["baseline propose", "baseline propose x_y_z", "baseline freeze", "baseline accept", "baseline"]
)
def test_a_command_without_what_it_needs_ends_with_usage(console: Console, line: str) -> None:
    with pytest.raises(SystemExit) as raised:
        console(line)
    assert raised.value.code == 4


def test_without_a_known_commit_the_proposal_says_so_and_accepting_warns(console: Console) -> None:
    run = console.build.one(200, 120)
    unknown = CellRun(replace(run.record, provenance=replace(run.record.provenance, commit="unknown")), run.runs)
    console.answer = lambda variant: unknown
    _, said = console(f"baseline propose {CELL.id} --reason", "first")
    assert "  note: no commit known" in said
    code, said = console(f"baseline accept {CELL.id}")
    assert code == 0
    assert said.count("warning: no commit known") == 1
