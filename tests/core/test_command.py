"""What a message tells people to paste works where they paste it: with the options of the run that said it, quoted."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from harness.cli import _parser
from harness.core.command import Place, accept_command, diff_command, propose_command

CELL = "llama_4bit-rtn_none"
MEASURING = ("propose", "noise", "recover", "measure")
TEXT = (
    f"first {propose_command(CELL, loosens=True)}; see {diff_command(CELL)}, {accept_command(CELL)}, "
    f"`harness baseline drop {CELL}`, "
    f"`harness noise {CELL}`, `harness recover {CELL}`, "
    f"`harness measure {CELL}`, `harness judge`, `harness report --run 'a b'`, "
    f"`harness baseline freeze --tag TAG --replace {CELL}`; not `git checkout -- x`, `harness doctor` or plain harness judge."
)


def commands_in(text: str) -> list[list[str]]:
    return [shlex.split(command)[1:] for command in re.findall(r"`(harness [^`]*)`", text) if command != "harness doctor"]


PLACES = tuple(
    itertools.product(
        ("embedded", "tiny"),
        ("suites/matrix.toml", "other suites/it's.toml"),
        ("baselines", "accepted states", "/somewhere/else"),
        (None, "a mirror"),
        ("auto", "cuda:1"),
    )
)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_every_command_means_the_place_of_the_run_that_names_it(
    place: tuple[str, str, str, str | None, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, matrix, baselines, data, device = place
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    complete = Place(profile, tmp_path / matrix, tmp_path / baselines, Path(data) if data else None, device).complete
    told = complete(TEXT)
    found = commands_in(told)
    assert len(found) == 11
    for words in found:
        asked = vars(_parser().parse_args(words))
        assert (asked["profile"], asked["matrix"].resolve()) == (profile, (tmp_path / matrix).resolve())
        assert asked.get("baseline_dir", tmp_path / baselines).resolve() == (tmp_path / baselines).resolve()
        measures = bool(set(words[:2]) & set(MEASURING))
        assert asked.get("device", "auto") == (device if measures else "auto")
        assert measures is ("data" in asked)
        assert (asked.get("data") or tmp_path).resolve() == (Path(data or tmp_path).resolve() if measures else tmp_path)
    assert complete(told) == told, "a command that is complete stays"


def test_commands_with_everything_by_default_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Place("embedded", Path("suites/matrix.toml"), tmp_path / "baselines").complete(TEXT) == TEXT


def test_from_another_folder_paths_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place("embedded", Path("/project/suites/matrix.toml"), Path("/project/baselines"))
    assert (
        place.complete("`harness judge`")
        == "`harness judge --matrix /project/suites/matrix.toml --baseline-dir /project/baselines`"
    )
