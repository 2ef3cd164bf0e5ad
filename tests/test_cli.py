"""The command line ends with the code of what it knows: a bug, or output that nobody reads, is neither a pass nor a
regression."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main


def test_a_bug_does_not_end_with_the_code_of_a_regression(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("of our own")

    monkeypatch.setattr("harness.execution.doctor.examine", broken)
    assert main(["doctor"]) == 11
    said = capsys.readouterr().err
    assert "ZeroDivisionError: of our own" in said
    assert said.rstrip().endswith("this is a bug of the harness, please report the lines above.")


def test_output_that_is_not_read_to_its_end_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def closed(_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("harness.execution.doctor.examine", closed)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert main(["doctor"]) == 141


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("mesure", "argument COMMAND: invalid choice: 'mesure'"),
        ("measure", "the following arguments are required: CELL"),
        ("measure llama_none_none --limit all", "argument --limit: invalid int value: 'all'"),
        ("judge --policy strict", "argument --policy: invalid choice: 'strict'"),
        ("store prune --age 3", "unrecognized arguments: --age 3"),
    ],
)
def test_a_line_that_no_command_takes_ends_with_4_as_pytests_usage_errors_do(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == pytest.ExitCode.USAGE_ERROR == 4
    assert f"harness: {said}" in (told := capsys.readouterr().err)
    assert told.startswith("usage: harness")
    assert told.endswith(" --help` explains.\n")


def test_an_index_of_a_folder_that_is_not_there_is_refused_and_makes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", str(tmp_path / "reprots")]) == 4
    assert "there is no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
