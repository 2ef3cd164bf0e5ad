"""A release anchor is a copy of what was accepted, under a tag, and moves only when somebody says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.baseline import freeze, load_release, load_release_tag
from harness.baseline import store as store_module
from harness.core.errors import EXIT_USAGE, BaselineError, EvidenceError, StorageError
from harness.core.records import Cell

CELL = Cell("llama", "4bit-rtn", "none")
OTHER = Cell("llama", "8bit-rtn", "none")


def frozen(desk: Any, tag: str = "v1", cells: tuple[Cell, ...] = (CELL,), **said: Any) -> list[Cell]:
    made: list[Cell] = freeze(
        desk.root, "embedded", cells, tag=tag, commit="abc", frozen_at="2025-06-01T00:00:00+00:00", **said
    )
    return made


def anchor(desk: Any) -> Path:
    path: Path = desk.root / "embedded" / "release" / CELL.id
    return path


def test_there_is_no_anchor_before_one_is_frozen(accepted: Any) -> None:
    assert load_release(accepted.root, "embedded", CELL) is None
    assert load_release_tag(accepted.root, "embedded", CELL) is None


def test_an_anchor_is_the_accepted_baseline_and_stays_when_that_moves(accepted: Any, build: Any) -> None:
    before = accepted.load()
    assert frozen(accepted) == [CELL]
    accepted.adopt(build.one(200, 110), why="meant")
    found = load_release(accepted.root, "embedded", CELL)
    assert found is not None
    assert found.record == before.record
    np.testing.assert_array_equal(found.outcomes["facts"].correct, before.outcomes["facts"].correct)
    assert load_release_tag(accepted.root, "embedded", CELL) == "v1"
    assert {path.name for path in anchor(accepted).iterdir()} == {"baseline.json", "facts.parquet", "release.json"}


def test_freezing_the_same_again_changes_nothing(accepted: Any) -> None:
    frozen(accepted)
    before = {path: path.read_bytes() for path in anchor(accepted).iterdir()}
    assert frozen(accepted) == []
    assert {path: path.read_bytes() for path in anchor(accepted).iterdir()} == before


def test_an_anchor_of_another_release_is_not_replaced_by_chance(accepted: Any) -> None:
    frozen(accepted)
    with pytest.raises(
        EvidenceError, match=r"has a release anchor already, its state at 'v1' .*--replace moves it to 'v2'"
    ) as raised:
        frozen(accepted, "v2")
    assert raised.value.exit_code == EXIT_USAGE
    assert load_release_tag(accepted.root, "embedded", CELL) == "v1"
    assert frozen(accepted, "v2", replace=True) == [CELL]
    assert load_release_tag(accepted.root, "embedded", CELL) == "v2"


def test_a_tag_does_not_come_to_mean_another_state(accepted: Any, build: Any) -> None:
    frozen(accepted)
    accepted.adopt(build.one(200, 110), why="meant")
    with pytest.raises(EvidenceError, match="another state of it at 'v1'"):
        frozen(accepted)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"cells": ()}, "no accepted baseline to freeze"),
        ({"tag": " "}, "needs a tag"),
        ({"cells": (CELL, OTHER)}, f"{OTHER.id} has no accepted baseline to freeze"),
    ],
)
def test_nothing_is_frozen_without_cells_tag_or_baselines(accepted: Any, said: dict[str, Any], words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        frozen(accepted, **said)
    assert not anchor(accepted).parent.exists()


def test_an_edited_baseline_is_not_frozen(accepted: Any) -> None:
    path = accepted.home / "baseline.json"
    path.write_text(path.read_text().replace('"n_correct": 120', '"n_correct": 130'))
    with pytest.raises(BaselineError, match="was edited"):
        frozen(accepted)
    assert not anchor(accepted).exists()


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("release.json", lambda p: p.write_text(p.read_text().replace('"v1"', '"v0"')), "was edited"),
        ("release.json", lambda p: p.unlink(), "can't be read"),
        ("baseline.json", lambda p: p.write_text(p.read_text().replace('"first"', '"other"')), "was edited"),
        ("facts.parquet", lambda p: p.write_bytes(b""), "can't be read as parquet"),
    ],
)
def test_a_damaged_anchor_is_refused_with_the_commands_that_help(
    accepted: Any, file: str, damage: Callable[[Path], Any], words: str
) -> None:
    frozen(accepted)
    damage(anchor(accepted) / file)
    for load in (load_release, load_release_tag):
        with pytest.raises(BaselineError) as raised:
            load(accepted.root, "embedded", CELL)
        for expected in (words, f"`git checkout -- {anchor(accepted)}`", f"freeze --tag TAG --replace {CELL.id}`"):
            assert expected in str(raised.value)
    with pytest.raises(EvidenceError, match="can't be read"):
        frozen(accepted)
    assert frozen(accepted, replace=True) == [CELL]


def test_an_anchor_beside_another_baseline_is_refused(accepted: Any, build: Any) -> None:
    frozen(accepted)
    accepted.adopt(build.one(200, 130))
    for name in ("baseline.json", "facts.parquet"):
        (anchor(accepted) / name).write_bytes((accepted.home / name).read_bytes())
    with pytest.raises(BaselineError, match="is not the one that was frozen"):
        load_release(accepted.root, "embedded", CELL)


def test_a_full_disk_leaves_the_old_anchor(accepted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen(accepted)

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_outcomes", full)
        with pytest.raises(StorageError, match="disk is full"):
            frozen(accepted, "v2", replace=True)
    assert load_release_tag(accepted.root, "embedded", CELL) == "v1"
