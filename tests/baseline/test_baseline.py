"""A baseline is written only from evidence, whole or not at all, and refused when it is not what was accepted."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.baseline import Baseline, Written, compare_provenance, identity_differences, load_baseline, store_baseline
from harness.baseline import store as store_module
from harness.baseline.record import digest_outcomes
from harness.core.columns import read_outcomes, write_outcomes
from harness.core.digest import digest_text
from harness.core.errors import BaselineError, ConfigError, EvidenceError, StorageError
from harness.core.records import Cell, CellFailure, CellRun
from harness.core.verdicts import POOLED

CELL = Cell("llama", "4bit-rtn", "none")


def store(root: Path, run: CellRun | CellFailure, **changes: Any) -> Written:
    said: dict[str, Any] = {"mode": "add-new", "reason": "first", "declared_tasks": ("facts",), **changes}
    return store_baseline(root, run, **said)


def load(root: Path) -> Baseline:
    found = load_baseline(root, "embedded", CELL)
    assert found is not None
    return found


@pytest.fixture
def home(tmp_path: Path, build: Any) -> Path:
    """A stored baseline of one task."""
    store(tmp_path, build.one(200, 120, weights="w1"))
    return tmp_path / "embedded" / CELL.id


# ------------------------------------------------------------------------------------------------ write and read


def test_what_is_stored_is_read_back(tmp_path: Path, build: Any) -> None:
    run = build.one(200, 120, weights="w1")
    assert store(tmp_path, run, reason=" first ") == "added"
    found = load(tmp_path)
    assert found.record.provenance == run.record.provenance
    assert found.record.tasks["facts"].info == run.runs["facts"].info
    assert found.record.tasks["facts"].n_correct == 120
    assert found.record.reason == "first"
    np.testing.assert_array_equal(found.outcomes["facts"].correct, run.runs["facts"].outcomes.correct)
    assert found.outcomes["facts"].option_logliks_nats == run.runs["facts"].outcomes.option_logliks_nats
    assert found.task_run("facts").origin == "baseline"


def test_there_is_none_where_none_was_accepted(tmp_path: Path) -> None:
    assert load_baseline(tmp_path, "embedded", CELL) is None


def test_the_record_is_reviewable_and_holds_no_data_set_text(home: Path) -> None:
    text = (home / "baseline.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    for file in home.iterdir():
        assert b"fact 1 is" not in file.read_bytes()
    assert not {"prompt", "options"} & set(pq.read_schema(home / "facts.parquet").names)


def test_option_log_likelihoods_are_stored_only_where_the_task_keeps_them(tmp_path: Path, build: Any) -> None:
    run = build.one(200, 120)
    task = run.runs["facts"]
    bare = replace(task, outcomes=replace(task.outcomes, option_logliks_nats=None))
    store(tmp_path, CellRun(run.record, {"facts": bare}))
    assert load(tmp_path).outcomes["facts"].option_logliks_nats is None


def test_the_outcomes_digest_is_of_content_not_of_bytes(home: Path, tmp_path: Path) -> None:
    path = home / "facts.parquet"
    pq.write_table(pq.read_table(path), path, compression="none")
    assert load(tmp_path).record.tasks["facts"].n_correct == 120


def test_outcomes_digests_differ_with_every_column(build: Any) -> None:
    base = build.one(20, 12).runs["facts"].outcomes
    changed = [
        replace(base, correct=~base.correct),
        replace(base, answers=base.answers + 1),
        replace(base, ranks=base.ranks + 1),
        replace(base, margins_nats=base.margins_nats + 1e-9),
        replace(base, near_ties=~base.near_ties),
        replace(base, option_logliks_nats=None),
        replace(base, digests=base.digests[::-1]),
    ]
    assert len({digest_outcomes(made) for made in [base, *changed]}) == 1 + len(changed)


# ------------------------------------------------------------------------------------------------ modes


def test_check_never_writes(tmp_path: Path, build: Any) -> None:
    assert store(tmp_path, build.one(200, 120), mode="check") == "not written"
    assert list(tmp_path.iterdir()) == []


def test_add_new_never_overwrites_and_update_replaces(tmp_path: Path, build: Any) -> None:
    store(tmp_path, build.one(200, 120, weights="w1"))
    assert store(tmp_path, build.one(200, 110), reason="again") == "kept"
    assert load(tmp_path).record.tasks["facts"].n_correct == 120
    assert store(tmp_path, build.one(200, 110), mode="update", reason="the new kernel is meant") == "updated"
    assert load(tmp_path).record.tasks["facts"].n_correct == 110
    lines = [json.loads(line) for line in (tmp_path / "embedded" / "history.jsonl").read_text().splitlines()]
    assert [(line["written"], line["accuracy"]["facts"], line["reason"]) for line in lines] == [
        ("added", 0.6, "first"),
        ("updated", 0.55, "the new kernel is meant"),
    ]
    assert {path.name for path in (tmp_path / "embedded").iterdir()} == {CELL.id, "history.jsonl"}


# ------------------------------------------------------------------------------------------------ evidence


def recompressed(build: Any) -> CellRun:
    run: CellRun = build.run({"facts": build.task("facts", build.right(200, 120))}, stability="re-compressed")
    return run


@pytest.mark.parametrize(
    ("make", "said", "words"),
    [
        (lambda b: b.one(200, 120, origin="baseline"), {}, "no evidence for itself"),
        (lambda b: b.one(200, 120, limit=200), {}, "without --harness-limit"),
        (lambda b: b.one(200, 120, n_items=300), {}, "a part of its items"),
        (lambda b: b.one(200, 120), {"declared_tasks": ("facts", "blank")}, "left out blank"),
        (lambda b: b.run({}), {"declared_tasks": ()}, "every task"),
        (lambda b: b.one(200, 120), {"reason": "  "}, "needs a reason"),
        (lambda b: b.one(2, 1, items=(b.items("facts", 1) * 2)), {}, "one twice"),
        (lambda b: CellFailure(CELL, "embedded", "a score is NaN"), {}, "was not measured (a score is NaN)"),
        (recompressed, {}, "at least 3 re-compressions"),
    ],
)
def test_no_evidence_no_baseline(
    tmp_path: Path, build: Any, make: Callable[[Any], Any], said: dict[str, Any], words: str
) -> None:
    with pytest.raises(EvidenceError) as raised:
        store(tmp_path, make(build), **said)
    assert words in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_recompressions_must_be_different_runs_with_every_task(tmp_path: Path, build: Any) -> None:
    for noise, words in (
        (build.noise((0.5, 0.6)), "2 came"),
        ((build.noise()[0],) * 3, "same label"),
        (build.noise(tasks=("blank",)), "no accuracy on facts"),
        (build.noise((0.5, 0.6, 1.6)), "outside 0 to 1"),
    ):
        with pytest.raises(EvidenceError, match=words):
            store(tmp_path, recompressed(build), noise=noise)


def test_the_spread_of_recompressions_is_their_standard_deviation(tmp_path: Path, build: Any) -> None:
    tasks = {
        "facts": build.task("facts", build.right(300, 180)),
        "blank": build.task("blank", build.right(100, 50), pooled=False),
    }
    run = build.run(tasks, stability="re-compressed")
    store(tmp_path, run, noise=build.noise((0.50, 0.53, 0.51), tasks=("facts", "blank")), declared_tasks=("facts", "blank"))
    noise = load(tmp_path).record.noise
    assert noise is not None
    expected = float(np.std([0.50, 0.53, 0.51], ddof=1))
    assert noise.sigma == pytest.approx({"facts": expected, "blank": expected, POOLED: expected})
    assert [made.label for made in noise.runs] == ["seed 0", "seed 1", "seed 2"]


def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, build: Any) -> None:
    for run in (
        build.run({"facts": build.task("facts", build.right(9, 5))}, profile="../out"),
        build.run({"../facts": build.task("facts", build.right(9, 5))}),
    ):
        with pytest.raises(ConfigError, match="can't name"):
            store(tmp_path, run)


# ------------------------------------------------------------------------------------------------ damage


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def relabel(path: Path) -> None:
    made = read_outcomes(path)
    write_outcomes(path, replace(made, correct=np.roll(made.correct, 1)))


def swap_digests(path: Path) -> None:
    made = read_outcomes(path)
    write_outcomes(path, replace(made, digests=tuple(digest_text(d) for d in made.digests)))


def duplicate(path: Path) -> None:
    made = read_outcomes(path)
    write_outcomes(path, replace(made, digests=(made.digests[1], *made.digests[1:])))


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("baseline.json", lambda p: edit(p, '"n_correct": 120', '"n_correct": 90'), "was edited"),
        ("baseline.json", lambda p: edit(p, '"chance": 0.1', '"chance": 0.9'), "was edited"),
        ("baseline.json", lambda p: edit(p, '"reason"', '"reasn"'), "unknown key"),
        ("baseline.json", lambda p: edit(p, '"schema_version": 1', '"schema_version": 2'), "schema version 2"),
        ("baseline.json", lambda p: edit(p, "0.1,", "NaN,"), "not valid JSON"),
        ("baseline.json", lambda p: p.write_bytes(p.read_bytes()[:-40]), "not valid JSON"),
        ("baseline.json", lambda p: p.write_bytes(b"\xff\xfe"), "not valid JSON"),
        ("baseline.json", lambda p: p.unlink(), "can't be read"),
        ("facts.parquet", lambda p: p.write_bytes(p.read_bytes()[:-100]), "can't be read as parquet"),
        ("facts.parquet", lambda p: p.unlink(), "can't be read as parquet"),
        ("facts.parquet", relabel, "was edited"),
        ("facts.parquet", swap_digests, "was edited"),
        ("facts.parquet", duplicate, "holds an item twice"),
    ],
)
def test_damage_is_refused_with_the_file_and_the_command_that_restores_it(
    tmp_path: Path, home: Path, file: str, damage: Callable[[Path], None], words: str
) -> None:
    damage(home / file)
    with pytest.raises(BaselineError) as raised:
        load(tmp_path)
    for expected in (
        words,
        str(home / file),
        f"`git checkout -- {home}`",
        f'`harness baseline propose {CELL.id} --reason "..." --replace`',
    ):
        assert expected in str(raised.value)


def test_a_baseline_that_was_moved_to_another_cell_is_refused(tmp_path: Path, home: Path) -> None:
    home.rename(home.with_name("llama_3bit-rtn_none"))
    with pytest.raises(BaselineError, match="moved or copied"):
        load_baseline(tmp_path, "embedded", Cell("llama", "3bit-rtn", "none"))


# ------------------------------------------------------------------------------------------------ atomic, one writer


def test_a_full_disk_leaves_the_old_baseline(tmp_path: Path, home: Path, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "write_json", full)
    with pytest.raises(StorageError, match="disk is full"):
        store(tmp_path, build.one(200, 110), mode="update")
    assert load(tmp_path).record.tasks["facts"].n_correct == 120
    assert {path.name for path in home.parent.iterdir()} == {CELL.id, "history.jsonl"}


def test_a_swap_cut_off_between_its_two_steps_is_undone_by_the_next_writer(tmp_path: Path, home: Path, build: Any) -> None:
    home.rename(home.with_name(f".{home.name}.old"))
    assert store(tmp_path, build.one(200, 110)) == "kept"
    assert load(tmp_path).record.tasks["facts"].n_correct == 120


def _write_many(root: Path, run: CellRun, n_right: int) -> None:
    for _ in range(5):
        store(root, run, mode="update", reason=f"writer {n_right}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the two writers are forked")
def test_two_writers_take_turns(tmp_path: Path, build: Any) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, build.one(200, n), n)) for n in (110, 120)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert load(tmp_path).record.tasks["facts"].n_correct in (110, 120)
    assert len((tmp_path / "embedded" / "history.jsonl").read_text().splitlines()) == 10


def test_a_writer_that_never_ends_is_told(tmp_path: Path, home: Path, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_WAIT_S", 0.05)
    with store_module._one_writer(tmp_path), pytest.raises(StorageError, match="another process"):
        store(tmp_path, build.one(200, 110), mode="update")


# ------------------------------------------------------------------------------------------------ what differs


def test_provenance_is_compared_in_words(build: Any) -> None:
    before = build.one(9, 5, weights="w1").record
    now = build.run({}, weights="w2", engine={"torch": "2.9", "threads": "4", "blas": "mkl"}).record
    compression = replace(now.compression, recipe={"bits": 2, "group": 64}, effective_bits=2.25)
    assert compare_provenance(before.provenance, now.provenance, before.compression, compression) == [
        f"weights: {digest_text('w1')[:12]} -> {digest_text('w2')[:12]}",
        "torch: 1 -> 2.9",
        "threads: 2 -> 4",
        "blas: not recorded -> mkl",
        "effective bits: 4.25 -> 2.25",
        "recipe bits: 4 -> 2",
    ]


def test_threads_do_not_make_another_measurement_but_torch_does(build: Any) -> None:
    before = build.one(9, 5, weights="w1").record.provenance
    threads = build.run({}, engine={"threads": "8"}).record.provenance
    torch = build.run({}, engine={"torch": "2"}).record.provenance
    assert identity_differences(before, threads) == []
    assert identity_differences(before, torch) == ["torch"]
    assert identity_differences(replace(before, engine={}), replace(before, engine={})) != []


def test_stored_outcomes_stand_in_only_for_an_identical_measurement(home: Path, tmp_path: Path, build: Any) -> None:
    baseline, run = load(tmp_path), build.one(200, 120, weights="w1")
    provenance, info, scorer = run.record.provenance, run.runs["facts"].info, run.runs["facts"].scorer
    assert baseline.outcomes_if_identical(provenance, info, scorer) is baseline.outcomes["facts"]
    other = replace(provenance, weights_digest=digest_text("w2"))
    assert baseline.outcomes_if_identical(other, info, scorer) is None
    assert baseline.outcomes_if_identical(provenance, replace(info, items_digest="0"), scorer) is None
    assert baseline.outcomes_if_identical(provenance, replace(info, name="blank"), scorer) is None
    assert baseline.outcomes_if_identical(provenance, info, "plain 2") is None
