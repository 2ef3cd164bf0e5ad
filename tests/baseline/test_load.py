"""What was accepted is read back as it was, holds no data set text, and is refused when it is not what was accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.baseline import load_baseline
from harness.baseline.record import digest_outcomes, make_baseline
from harness.core.columns import read_outcomes, write_outcomes
from harness.core.digest import digest_text
from harness.core.errors import BaselineError
from harness.core.records import Cell, CellRun
from harness.core.serial import write_json

CELL = Cell("llama", "4bit-rtn", "none")


def test_what_is_accepted_is_read_back(desk: Any, build: Any) -> None:
    run = build.one(200, 120, weights="w1")
    assert desk.adopt(run, reason=" first ").written == "added"
    found = desk.load()
    assert found.record.provenance == run.record.provenance
    assert found.record.tasks["facts"].info == run.runs["facts"].info
    assert found.record.tasks["facts"].n_correct == 120
    assert found.record.reason == "first"
    assert found.record.noise.runs[0].label == "as declared"
    np.testing.assert_array_equal(found.outcomes["facts"].correct, run.runs["facts"].outcomes.correct)
    assert found.outcomes["facts"].option_logliks_nats == run.runs["facts"].outcomes.option_logliks_nats
    assert found.task_run("facts").origin == "baseline"


def test_there_is_none_where_none_was_accepted(desk: Any) -> None:
    assert load_baseline(desk.root, "embedded", CELL) is None


def test_the_record_is_reviewable_and_holds_no_data_set_text(accepted: Any) -> None:
    text = (accepted.home / "baseline.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    for file in accepted.home.iterdir():
        assert b"fact 1 is" not in file.read_bytes()
    assert not {"prompt", "options"} & set(pq.read_schema(accepted.home / "facts.parquet").names)


def test_generated_texts_stay_out_of_a_baseline_since_right_ones_are_the_data_sets_answers(desk: Any, build: Any) -> None:
    run = build.one(200, 120)
    task = run.runs["facts"]
    said = replace(task, outcomes=replace(task.outcomes, texts=("Ouagadougou",) * 200))
    desk.adopt(CellRun(run.record, {"facts": said}))
    found = desk.load()
    assert found.outcomes["facts"].texts is None
    assert found.record.tasks["facts"].n_correct == 120
    for file in desk.root.rglob("*"):
        assert file.is_dir() or b"Ouagadougou" not in file.read_bytes()
    assert pq.read_table(next(desk.root.rglob("facts.parquet")))["text"].null_count == 200


def test_option_log_likelihoods_are_stored_only_where_the_task_keeps_them(desk: Any, build: Any) -> None:
    run = build.one(200, 120)
    task = run.runs["facts"]
    bare = replace(task, outcomes=replace(task.outcomes, option_logliks_nats=None))
    desk.adopt(CellRun(run.record, {"facts": bare}))
    assert desk.load().outcomes["facts"].option_logliks_nats is None


def test_the_outcomes_digest_is_of_content_not_of_bytes(accepted: Any) -> None:
    path = accepted.home / "facts.parquet"
    pq.write_table(pq.read_table(path), path, compression="none")
    assert accepted.load().record.tasks["facts"].n_correct == 120


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
        replace(base, texts=("a",) * 20),
        replace(base, are_cut=np.arange(20) < 3),
        replace(base, are_cut=np.arange(20) < 4),
        replace(base, choices=("a",) * 20),
    ]
    assert len({digest_outcomes(made) for made in [base, *changed]}) == 1 + len(changed)


def test_stored_outcomes_stand_in_only_for_an_identical_measurement(accepted: Any, build: Any) -> None:
    baseline, run = accepted.load(), build.one(200, 120, weights="w1")
    provenance, info, scorer = run.record.provenance, run.runs["facts"].info, run.runs["facts"].scorer
    assert baseline.outcomes_if_identical(provenance, info, scorer) is baseline.outcomes["facts"]
    other = replace(provenance, weights_digest=digest_text("w2"))
    assert baseline.outcomes_if_identical(other, info, scorer) is None
    assert baseline.outcomes_if_identical(provenance, replace(info, items_digest="0"), scorer) is None
    assert baseline.outcomes_if_identical(provenance, replace(info, name="blank"), scorer) is None
    assert baseline.outcomes_if_identical(provenance, info, "plain 2") is None


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
        ("baseline.json", lambda p: edit(p, '"flip_rate"', '"flip_rat"'), "unknown key"),
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
    accepted: Any, file: str, damage: Callable[[Path], None], words: str
) -> None:
    home = accepted.home
    damage(home / file)
    with pytest.raises(BaselineError) as raised:
        accepted.load()
    for expected in (
        words,
        str(home / file),
        f"`git checkout -- {home}`",
        f'`harness baseline propose {CELL.id} --reason "..."`',
        f'then `harness baseline accept {CELL.id} --allow-loosening "why"`',
    ):
        assert expected in str(raised.value)


def test_a_baseline_of_an_older_harness_is_refused_and_told_apart(accepted: Any, build: Any) -> None:
    """Before, only re-compressed cells told their noise, and no run told its flips."""
    write_json(accepted.home / "baseline.json", make_baseline(build.one(200, 120, weights="w1"), "first").record)
    with pytest.raises(BaselineError, match=r"tells no A/A runs.*if an older harness made it.*make it anew"):
        accepted.load()


def test_noise_without_flips_is_refused_as_that_of_an_older_harness(accepted: Any) -> None:
    path = accepted.home / "baseline.json"
    told = json.loads(path.read_text())
    del told["noise"]["flip_rate"]
    path.write_text(json.dumps(told))
    with pytest.raises(BaselineError, match=r"key 'noise.flip_rate' is missing.*if an older harness made it"):
        accepted.load()


def test_a_baseline_that_was_moved_to_another_cell_is_refused(accepted: Any) -> None:
    accepted.home.rename(accepted.home.with_name("llama_3bit-rtn_none"))
    with pytest.raises(BaselineError, match="moved or copied"):
        accepted.load(Cell("llama", "3bit-rtn", "none"))
