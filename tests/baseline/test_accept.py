"""Only evidence is accepted, only what was looked at, loosening only with a reason; whole or not at all, one at a time."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.baseline import INFORMATIVE_AS_SHIPPED, Baseline, accept, write_noise_proposal
from harness.baseline import store as store_module
from harness.baseline.proposal import NO_COMMIT, PROPOSAL_FILE, renew_noise
from harness.baseline.record import sealed
from harness.baseline.store import one_writer, write_baseline
from harness.core.errors import EXIT_USAGE, EvidenceError, FileFormatError, StorageError
from harness.core.records import Cell, CellRun
from harness.core.serial import write_json

CELL = Cell("llama", "4bit-rtn", "none")
OTHER = Cell("llama", "8bit-rtn", "none")


def n_right(desk: Any, cell: Cell = CELL) -> int:
    found: int = desk.load(cell).record.tasks["facts"].n_correct
    return found


def sentence(raised: pytest.ExceptionInfo[EvidenceError]) -> str:
    """The refusal: one sentence, exit code 4."""
    text = str(raised.value)
    assert raised.value.exit_code == EXIT_USAGE
    assert text.endswith(".")
    assert not re.search(r"[.!?] [A-Z]", text.replace("`", "")) or "Discard" in text
    return text


def test_an_accepted_proposal_is_the_baseline_and_is_no_proposal_any_more(desk: Any, build: Any) -> None:
    desk.propose(build.one(200, 120))
    done = desk.accept()
    assert (done.written, done.loosened, done.remarks) == ("added", (), ())
    assert n_right(desk) == 120
    assert desk.files() == {f"{CELL.id}/baseline.json", f"{CELL.id}/facts.parquet", "history.jsonl"}


def test_every_acceptance_is_one_line_of_the_history(desk: Any, build: Any) -> None:
    desk.adopt(build.one(200, 120))
    desk.adopt(build.one(200, 125), reason="the new kernel is meant")
    desk.adopt(build.one(200, 110), reason="two bits now", why="smaller is worth it")
    lines = desk.history()
    assert [(line["written"], line["accuracy"]["facts"], line["reason"], line["loosened"]) for line in lines] == [
        ("added", 0.6, "first", None),
        ("updated", 0.625, "the new kernel is meant", None),
        ("updated", 0.55, "two bits now", "smaller is worth it"),
    ]
    assert [line["runs"] for line in lines] == [3, 3, 3]
    assert lines[-1]["record_digest"] == desk.load().record.digest
    assert set(lines[-1]["sigma"]) == set(lines[-1]["flip_rate"]) == {"facts", "pooled"}
    assert set(lines[-1]) == {
        *("cell", "written", "reason", "loosened", "commit", "measured_at", "weights_digest", "record_digest", "accuracy"),
        *("n_items", "runs", "sigma", "flip_rate"),
    }


def test_a_reason_for_loosening_is_not_noted_where_nothing_is_loosened(accepted: Any, build: Any) -> None:
    accepted.adopt(build.one(200, 130), why="just in case")
    assert accepted.history()[-1]["loosened"] is None


def test_accepting_without_a_known_commit_warns_in_one_line(desk: Any, build: Any) -> None:
    run = build.one(200, 120)
    record = replace(run.record, provenance=replace(run.record.provenance, commit="unknown"))
    assert desk.adopt(CellRun(record, run.runs)).remarks == (NO_COMMIT,)


# ------------------------------------------------------------------------------------------------ refusals


def test_what_loosens_is_refused_and_every_loosened_thing_is_named(accepted: Any, build: Any) -> None:
    run = build.one(200, 110)
    accepted.propose(run, build.flipped(run, lost=1), build.flipped(run, gained=1))
    with pytest.raises(EvidenceError) as raised:
        accepted.accept()
    text = sentence(raised)
    for unit in ("facts", "pooled"):
        assert f"the accuracy of {unit} falls by 5 pt" in text
        assert f"the A/A spread of {unit} grows" in text
        assert f"the A/A flip rate of {unit} grows" in text
    assert f"`harness baseline diff {CELL.id}`" in text
    assert f'`harness baseline accept {CELL.id} --allow-loosening "why"`' in text
    assert n_right(accepted) == 120
    assert len(accepted.history()) == 1
    assert accepted.accept("a smaller model is worth it").written == "updated"
    assert n_right(accepted) == 110


def test_loosening_without_saying_why_is_refused(accepted: Any, build: Any) -> None:
    accepted.propose(build.one(200, 110))
    with pytest.raises(EvidenceError, match="--allow-loosening needs a reason"):
        accepted.accept(" ")


def test_without_a_proposal_there_is_nothing_to_accept(accepted: Any) -> None:
    with pytest.raises(EvidenceError) as raised:
        accepted.accept()
    assert f"there is no proposal for {CELL.id}" in sentence(raised)
    assert "`harness baseline propose" in sentence(raised)


def test_a_proposal_made_against_another_baseline_is_stale(desk: Any, build: Any) -> None:
    desk.adopt(build.one(200, 120))
    desk.propose(build.one(200, 130))
    waiting = {path.name: path.read_bytes() for path in desk.proposed.iterdir()}
    desk.accept()
    desk.proposed.mkdir(parents=True)
    desk.adopt(build.one(200, 131))
    desk.proposed.mkdir(parents=True)
    for name, content in waiting.items():
        (desk.proposed / name).write_bytes(content)
    with pytest.raises(EvidenceError) as raised:
        desk.accept()
    text = sentence(raised)
    assert "was made against baseline" in text
    assert f"and baseline {desk.load().record.digest[:12]} is accepted now" in text
    assert "propose it again" in text
    assert n_right(desk) == 131


def test_a_first_proposal_is_stale_once_a_baseline_is_there_and_the_reverse(accepted: Any, build: Any) -> None:
    run = build.one(200, 130)
    accepted.propose(run)
    accepted.home.rename(accepted.home.with_name("gone"))
    with pytest.raises(EvidenceError, match="no baseline is accepted now"):
        accepted.accept()
    accepted.propose(run)
    accepted.home.with_name("gone").rename(accepted.home)
    with pytest.raises(EvidenceError, match="was made against no baseline"):
        accepted.accept()


def test_another_proposal_than_the_one_that_is_meant_is_refused(desk: Any, build: Any) -> None:
    meant = desk.propose(build.one(200, 120))
    desk.propose(build.one(200, 60))
    with pytest.raises(EvidenceError, match=r"another proposal .* was made meanwhile"):
        desk.accept(only=meant.record.digest)


def test_a_task_that_was_declared_since_is_missed(desk: Any, build: Any) -> None:
    desk.propose(build.one(200, 120))
    with pytest.raises(EvidenceError, match="left out blank"):
        desk.accept(tasks=("facts", "blank"))


def reseal(desk: Any, change: Callable[[Baseline], Baseline], **told: Any) -> None:
    """Edit a proposal and work all its digests out again, as somebody would who wants to get it through."""
    proposal = desk.proposal()
    changed = change(proposal.baseline)
    changed = Baseline(sealed(changed.record), changed.outcomes)
    write_baseline(desk.proposed, changed)
    record = replace(proposal.record, record_digest=changed.record.digest, **told)
    write_json(desk.proposed / PROPOSAL_FILE, sealed(record))


def with_noise(made: Baseline, **changes: Any) -> Baseline:
    assert made.record.noise is not None
    return Baseline(replace(made.record, noise=replace(made.record.noise, **changes)), made.outcomes)


def with_info(made: Baseline, **changes: Any) -> Baseline:
    task = made.record.tasks["facts"]
    return Baseline(replace(made.record, tasks={"facts": replace(task, info=replace(task.info, **changes))}), made.outcomes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: with_noise(b, sigma={"facts": 0.5, "pooled": 0.5}), "not what its A/A runs show"),
        (lambda b: with_noise(b, flip_rate={"facts": 0.5, "pooled": 0.5}), "not what its A/A runs show"),
        (lambda b: with_noise(b, sigma={"facts": 0.0}), "not what its A/A runs show"),
        (lambda b: with_noise(b, runs=b.record.noise.runs[:2]), "at least 3 A/A runs to know what it moves by"),
        (lambda b: with_noise(b, runs=(b.record.noise.runs[0],) * 3), "same label"),
        (
            lambda b: with_noise(b, runs=(*b.record.noise.runs[:2], replace(b.record.noise.runs[2], accuracy={}))),
            "tells nothing about facts",
        ),
        (
            lambda b: with_noise(b, runs=(*b.record.noise.runs[:2], replace(b.record.noise.runs[2], n_flips={"facts": 201}))),
            "more flips than items",
        ),
        (
            lambda b: with_noise(b, runs=(*b.record.noise.runs[:2], replace(b.record.noise.runs[2], accuracy={"facts": 1.6}))),
            "outside 0 to 1",
        ),
        (
            lambda b: with_noise(b, runs=(replace(b.record.noise.runs[0], n_flips={"facts": 1}), *b.record.noise.runs[1:])),
            "not what its A/A runs show",
        ),
        (lambda b: with_info(b, limit=200), "a part of its items (200)"),
        (lambda b: with_info(b, n_items=150), "120 right answers to 200 items, the record says 120 to 150"),
        (lambda b: Baseline(replace(b.record, reason=" "), b.outcomes), "needs a reason"),
    ],
)
def test_an_edited_proposal_is_refused_even_with_its_digests_made_again(
    desk: Any, build: Any, change: Callable[[Baseline], Baseline], words: str
) -> None:
    desk.propose(build.one(200, 120))
    reseal(desk, change)
    with pytest.raises(EvidenceError) as raised:
        desk.accept()
    assert words in sentence(raised)
    assert not desk.home.exists()


def test_a_proposal_that_hides_what_it_loosens_is_found_out(accepted: Any, build: Any) -> None:
    accepted.propose(build.one(200, 110))
    reseal(accepted, lambda made: made, loosens=())
    with pytest.raises(EvidenceError, match="the accuracy of facts falls by 5 pt"):
        accepted.accept()


def test_over_a_baseline_that_can_not_be_read_only_with_a_reason(accepted: Any, build: Any) -> None:
    (accepted.home / "facts.parquet").write_bytes(b"")
    accepted.propose(build.one(200, 120, weights="w1"))
    with pytest.raises(EvidenceError, match="the accepted baseline can't be read"):
        accepted.accept()
    assert accepted.accept("the file was damaged and is in no commit").written == "updated"
    assert n_right(accepted) == 120


# ------------------------------------------------------------------------------------------------ several, noise


def both(desk: Any, build: Any) -> dict[Cell, tuple[str, ...]]:
    for cell in (CELL, OTHER):
        desk.propose(build.run({"facts": build.task("facts", build.right(200, 120), cell=cell)}, cell=cell))
    return {CELL: ("facts",), OTHER: ("facts",)}


def test_several_cells_are_accepted_together_or_not_at_all(desk: Any, build: Any) -> None:
    cells = both(desk, build)
    (desk.proposed.with_name(OTHER.id) / "facts.parquet").write_bytes(b"")
    with pytest.raises(EvidenceError, match=OTHER.id):
        accept(desk.root, "embedded", cells, informative=INFORMATIVE_AS_SHIPPED)
    assert not desk.home.exists()
    both(desk, build)
    assert [done.cell for done in accept(desk.root, "embedded", cells, informative=INFORMATIVE_AS_SHIPPED)] == [CELL, OTHER]
    assert [line["cell"] for line in desk.history()] == [CELL.id, OTHER.id]
    assert not desk.proposed.parent.exists()


def propose_noise(desk: Any, build: Any) -> None:
    base = build.one(200, 120, weights="w1")
    repeats = [
        replace(repeat, label=f"again {n}", run=build.flipped(base, lost=n))
        for n, repeat in enumerate(build.repeats(base)[:2], start=1)
    ]
    write_noise_proposal(desk.root, renew_noise(desk.load(), repeats), informative=INFORMATIVE_AS_SHIPPED)


def test_accepted_noise_changes_the_noise_only(accepted: Any, build: Any) -> None:
    before = accepted.load()
    propose_noise(accepted, build)
    with pytest.raises(EvidenceError, match="the A/A flip rate of facts grows"):
        accepted.accept()
    assert accepted.accept("measured on the machine that gates").written == "noise updated"
    after = accepted.load().record
    assert replace(after, noise=None, digest="") == replace(before.record, noise=None, digest="")
    assert [run.label for run in after.noise.runs] == ["as declared", "again 1", "again 2"]
    assert [line["written"] for line in accepted.history()] == ["added", "noise updated"]


def test_a_noise_proposal_that_changes_more_is_refused(accepted: Any, build: Any) -> None:
    propose_noise(accepted, build)
    reseal(accepted, lambda made: with_info(made, chance=0.9))
    with pytest.raises(EvidenceError, match="says that it changes the noise only, and changes more"):
        accepted.accept("why not")


# ------------------------------------------------------------------------------------------------ atomic, one at a time


def test_a_full_disk_leaves_the_old_baseline_and_the_proposal(
    accepted: Any, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted.propose(build.one(200, 130))
    files = accepted.files()

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_json", full)
        with pytest.raises(StorageError, match="disk is full"):
            accepted.accept()
    assert n_right(accepted) == 120
    assert accepted.files() == files
    assert len(accepted.history()) == 1
    assert accepted.accept().written == "updated"


@pytest.mark.parametrize("step", ["swap_in", "append_history", "remove_folder"])
def test_an_acceptance_that_is_killed_is_finished_or_undone_by_the_next(
    accepted: Any, build: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    accepted.propose(build.one(200, 110))
    module = importlib.import_module("harness.baseline.accept")

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed)
        with pytest.raises(KeyboardInterrupt):
            accepted.accept("smaller is worth it")
    assert n_right(accepted) == (120 if step == "swap_in" else 110)
    with pytest.raises(EvidenceError, match="loosens the gate"):
        accepted.accept()
    done = accepted.accept("smaller is worth it")
    assert done.written == ("kept" if step == "remove_folder" else "updated")
    assert n_right(accepted) == 110
    assert [line["loosened"] for line in accepted.history()] == [None, "smaller is worth it"]
    assert accepted.files() == {f"{CELL.id}/baseline.json", f"{CELL.id}/facts.parquet", "history.jsonl"}


def test_a_swap_cut_off_between_its_two_steps_is_undone_by_the_next_writer(accepted: Any, build: Any) -> None:
    accepted.propose(build.one(200, 130))
    accepted.home.rename(accepted.home.with_name(f".{CELL.id}.old"))
    assert accepted.accept().written == "updated"
    assert n_right(accepted) == 130
    accepted.home.rename(accepted.home.with_name(f".{CELL.id}.old"))
    assert accepted.propose(build.one(200, 131)).record.replaces is not None
    assert n_right(accepted) == 130


def test_half_a_history_that_a_killed_acceptance_left_goes_with_the_next(accepted: Any, build: Any) -> None:
    left = accepted.root / "embedded" / ".history.jsonl.x1y2.part"
    left.write_text("half")
    accepted.propose(build.one(200, 130))
    accepted.accept()
    assert not left.exists()
    assert len(accepted.history()) == 2


def test_proposing_the_accepted_state_again_changes_nothing(accepted: Any, build: Any) -> None:
    again = accepted.adopt(build.one(200, 120, weights="w1"))
    assert again.written == "kept"
    assert len(accepted.history()) == 1
    assert not accepted.proposed.parent.exists()


def test_a_damaged_history_is_told_with_its_line(accepted: Any, build: Any) -> None:
    path = accepted.root / "embedded" / "history.jsonl"
    path.write_text(path.read_text() + "{\n")
    accepted.propose(build.one(200, 120, weights="w1"))
    with pytest.raises(FileFormatError, match=r"history.jsonl:2 .*`git checkout"):
        accepted.accept()


def _accept_in_process(desk: Any, results: Any) -> None:
    try:
        results.put(desk.accept().written)
    except EvidenceError as error:
        results.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the two writers are forked")
def test_of_two_that_accept_at_once_one_does_and_the_other_is_told(accepted: Any, build: Any) -> None:
    accepted.propose(build.one(200, 130))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with one_writer(accepted.root):  # both wait for the lock, with the same proposal before them
        writers = [context.Process(target=_accept_in_process, args=(accepted, results)) for _ in range(2)]
        for writer in writers:
            writer.start()
    said = sorted(results.get(timeout=60) for _ in writers)
    for writer in writers:
        writer.join(60)
    assert said[1] == "updated"
    assert said[0].startswith(f"there is no proposal for {CELL.id}")
    assert n_right(accepted) == 130
    assert len(accepted.history()) == 2


def _propose_and_accept(desk: Any, run: CellRun, results: Any) -> None:
    made = desk.propose(run)
    try:
        results.put(desk.accept(only=made.record.digest).written)
    except EvidenceError as error:
        results.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the two writers are forked")
def test_of_two_that_propose_and_accept_at_once_neither_accepts_the_others_state(accepted: Any, build: Any) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    writers = [context.Process(target=_propose_and_accept, args=(accepted, build.one(200, n), results)) for n in (130, 131)]
    for writer in writers:
        writer.start()
    said = [results.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join(60)
    n_accepted = said.count("updated")
    assert n_accepted >= 1
    assert all(words == "updated" or "meanwhile" in words or "no proposal" in words or "loosens" in words for words in said)
    assert len(accepted.history()) == 1 + n_accepted
    assert accepted.history()[-1]["record_digest"] == accepted.load().record.digest


def test_a_writer_that_never_ends_is_told(accepted: Any, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted.propose(build.one(200, 130))
    monkeypatch.setattr(store_module, "LOCK_WAIT_S", 0.05)
    with one_writer(accepted.root), pytest.raises(StorageError, match="another process"):
        accepted.accept()


def test_the_history_is_lines_of_json(accepted: Any) -> None:
    text = (accepted.root / "embedded" / "history.jsonl").read_text()
    assert text.endswith("\n")
    assert json.loads(text)["cell"] == CELL.id
