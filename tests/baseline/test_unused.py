"""What no declared cell or task needs is listed, and goes when asked; everything else stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.baseline import find_unused, freeze, load_release, load_release_tag, remove_unused
from harness.core.errors import BaselineError
from harness.core.records import Cell
from harness.core.verdicts import POOLED

CELL = Cell("llama", "4bit-rtn", "none")
OTHER = Cell("llama", "8bit-rtn", "none")


@pytest.fixture
def full(desk: Any, build: Any) -> Any:
    """Two cells of two tasks, each accepted, frozen and proposed again."""
    for cell in (CELL, OTHER):
        tasks = {
            "facts": build.task("facts", build.right(200, 120), cell=cell),
            "blank": build.task("blank", build.right(100, 60), cell=cell),
        }
        run = build.run(tasks, cell=cell)
        desk.adopt(run, build.flipped(run, lost=1, gained=1), run, tasks=("facts", "blank"))
        freeze(desk.root, "embedded", [cell], tag="v1", commit="abc", frozen_at="2025-06-01T00:00:00+00:00")
        desk.propose(run, declared_tasks=("facts", "blank"), reason="again")
    return desk


BOTH = {CELL.id: ("facts", "blank"), OTHER.id: ("facts", "blank")}


def test_nothing_is_unused_where_everything_is_declared(full: Any) -> None:
    assert find_unused(full.root, "embedded", BOTH) == []
    files = full.files()
    assert remove_unused(full.root, "embedded", BOTH) == []
    assert full.files() == files


def test_nothing_is_unused_where_nothing_is(desk: Any) -> None:
    assert find_unused(desk.root, "embedded", BOTH) == []


def test_a_cell_that_is_gone_leaves_its_baseline_proposal_and_anchor(full: Any) -> None:
    declared = {CELL.id: BOTH[CELL.id]}
    found = find_unused(full.root, "embedded", declared)
    assert [(one.what, one.cell, one.tasks) for one in found] == [
        ("baseline", OTHER, ()),
        ("proposal", OTHER, ()),
        ("release anchor", OTHER, ()),
    ]
    assert str(found[0]) == f"the baseline of {OTHER.id} ({full.root / 'embedded' / OTHER.id})"
    mine = {name for name in full.files() if CELL.id in name or name == "history.jsonl"}
    assert remove_unused(full.root, "embedded", declared) == found
    assert full.files() == mine
    assert len(full.history()) == 2


def test_a_damaged_baseline_of_a_cell_that_is_gone_goes_too(full: Any) -> None:
    (full.root / "embedded" / OTHER.id / "baseline.json").write_text("{")
    assert len(remove_unused(full.root, "embedded", {CELL.id: BOTH[CELL.id]})) == 3


def test_a_task_that_is_gone_is_taken_out_and_the_rest_stays_sealed(full: Any) -> None:
    declared = {**BOTH, CELL.id: ("facts",)}
    found = find_unused(full.root, "embedded", declared)
    assert [(one.what, one.tasks) for one in found] == [
        (what, ("blank",)) for what in ("baseline", "proposal", "release anchor")
    ]
    before = full.load().record
    remove_unused(full.root, "embedded", declared)
    after, frozen = full.load().record, load_release(full.root, "embedded", CELL)
    assert list(after.tasks) == ["facts"]
    assert frozen is not None
    assert list(frozen.record.tasks) == ["facts"]
    assert load_release_tag(full.root, "embedded", CELL) == "v1"
    assert after.tasks["facts"] == before.tasks["facts"]
    assert after.noise is not None
    assert before.noise is not None
    assert after.noise.flip_rate["facts"] == before.noise.flip_rate["facts"]
    assert after.noise.flip_rate[POOLED] == after.noise.flip_rate["facts"]
    assert full.proposal() is None
    assert full.proposal(OTHER) is not None
    assert [(line["written"], line["record_digest"]) for line in full.history()[2:]] == [("tasks removed", after.digest)]


def test_a_task_is_not_taken_out_of_a_damaged_baseline(full: Any) -> None:
    path: Path = full.home / "facts.parquet"
    path.write_bytes(b"")
    with pytest.raises(BaselineError, match="git checkout"):
        remove_unused(full.root, "embedded", {**BOTH, CELL.id: ("facts",)})


def test_folders_that_are_no_cells_are_left_alone(full: Any) -> None:
    (full.root / "embedded" / "notes").mkdir()
    (full.root / "embedded" / "notes" / "a.txt").write_text("mine")
    remove_unused(full.root, "embedded", {})
    assert full.files() == {"history.jsonl", "notes/a.txt"}
