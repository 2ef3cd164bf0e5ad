"""Outcomes as parquet: which contexts were cut is a column only where one was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.baseline.record import digest_outcomes
from harness.core.columns import read_outcomes, write_outcomes
from harness.core.errors import FileFormatError
from harness.core.outcomes import UNPARSED, Outcomes
from harness.core.records import ItemOutcome

WRONG = ItemOutcome(-1, False, 3, 0.0, False, (), text="Rome")


def test_cut_contexts_and_unparsed_answers_are_kept_and_counted(tmp_path: Path) -> None:
    rows = [WRONG, replace(WRONG, answer=UNPARSED, text=""), replace(WRONG, answer=1, correct=True, rank=1, is_cut=True)]
    made = Outcomes.of(("a", "b", "c"), rows)
    write_outcomes(tmp_path / "made.parquet", made)
    found = read_outcomes(tmp_path / "made.parquet")
    assert (found.n_unparsed, found.n_cut) == (1, 1)
    np.testing.assert_array_equal(found.are_cut, [False, False, True])
    both = Outcomes.concatenate([Outcomes.of(("d",), [WRONG]), found])
    np.testing.assert_array_equal(both.are_cut, [False, False, False, True])


def test_choices_of_prompts_and_cut_contexts_stand_side_by_side(tmp_path: Path) -> None:
    made = Outcomes.of(("a", "b"), [WRONG, replace(WRONG, is_cut=True)])
    write_outcomes(tmp_path / "made.parquet", replace(made, choices=((2,), (0, 1))))
    found = read_outcomes(tmp_path / "made.parquet")
    assert (found.choices, found.n_cut) == (((2,), (0, 1)), 1)
    assert found.are_cut is not None
    assert found.are_cut.tolist() == [False, True]


def test_where_every_context_fits_there_is_no_such_column(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "made.parquet", Outcomes.of(("a",), [WRONG]))
    assert "is_cut" not in pq.read_table(tmp_path / "made.parquet").column_names
    assert read_outcomes(tmp_path / "made.parquet").n_cut == 0


def test_another_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.parquet"
    write_outcomes(path, Outcomes.of(("a",), [replace(WRONG, is_cut=True)]))
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([*table.column_names[:-1], "was_cut"]), path)
    with pytest.raises(FileFormatError, match="has columns"):
        read_outcomes(path)


def test_some_of_the_outcomes_are_those_that_were_made_for_them() -> None:
    rows = [
        replace(WRONG, rank=rank, margin_nats=-rank / 4, option_logliks_nats=(-1.0,) * rank, text=f"{rank}", is_cut=rank == 2)
        for rank in (2, 3, 4)
    ]
    made = replace(Outcomes.of(("a", "b", "c"), rows), choices=((0,), (1, 2), (3,)))
    taken = made.take(np.array([2, 0]))
    assert digest_outcomes(taken) == digest_outcomes(
        replace(Outcomes.of(("c", "a"), [rows[2], rows[0]]), choices=((3,), (0,)))
    )
    assert made.take(np.array([1])).are_cut is None
    assert len(made.take(np.array([], dtype=np.int64))) == 0
