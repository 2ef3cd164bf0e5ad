"""Answers that were changed between measuring and judging are judged by nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.core.digest import digest_file
from harness.core.errors import FileFormatError
from harness.core.run_folder import read_run, write_cell

Edit = Callable[[pa.Table], pa.Table]


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), values)


def relabelled(table: pa.Table) -> pa.Table:
    digests = table["digest"].to_pylist()
    return with_column(table, "digest", pa.array([*digests[1:], digests[0]]))


@pytest.fixture
def home(tmp_path: Path, build: Any) -> Path:
    write_cell(tmp_path, build.one(500, 300))
    return tmp_path / "records" / "llama_4bit-rtn_none"


def test_what_was_written_is_read_back(home: Path) -> None:
    (run,) = read_run(home.parents[1])
    assert np.count_nonzero(run.runs["facts"].outcomes.correct) == 300


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda table: table.slice(0, 400), id="truncated"),
        pytest.param(lambda table: pa.concat_tables([table, table.slice(0, 1)]), id="duplicated"),
        pytest.param(relabelled, id="re-labelled"),
        pytest.param(lambda table: with_column(table, "correct", pa.array([True] * len(table))), id="re-scored"),
    ],
)
def test_outcomes_that_are_not_the_measured_ones_are_refused(home: Path, edit: Edit) -> None:
    path = home / "facts.outcomes.parquet"
    pq.write_table(edit(pq.read_table(path)), path)
    with pytest.raises(FileFormatError, match=r"facts\.outcomes\.parquet is not what was measured.*measure it again"):
        read_run(home.parents[1])


def flattened(table: pa.Table) -> pa.Table:
    field = table.schema.field("gold")
    return with_column(table, "gold", pa.array([[0]] * len(table), field.type))


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda table: table.slice(0, 400), id="truncated"),
        pytest.param(lambda table: pa.concat_tables([table, table.slice(0, 1)]), id="duplicated"),
        pytest.param(flattened, id="re-labelled"),
        pytest.param(relabelled, id="exchanged"),
    ],
)
def test_items_that_are_not_the_asked_ones_are_refused_though_the_verdict_needs_none(home: Path, edit: Edit) -> None:
    path = home / "facts.items.parquet"
    pq.write_table(edit(pq.read_table(path)), path)
    with pytest.raises(FileFormatError, match=r"facts\.items\.parquet is not what was measured.*measure it again"):
        read_run(home.parents[1])


def test_an_edited_record_is_refused(home: Path) -> None:
    record = home / "cell.json"
    record.write_text(record.read_text().replace('"n_items": 500', '"n_items": 400'))
    with pytest.raises(FileFormatError, match=r"cell\.json is not what was measured"):
        read_run(home.parents[1])


@pytest.mark.parametrize("named", [(), ("cell.json",), ("cell.json", "facts.outcomes.parquet", "../../x")])
def test_digests_that_leave_a_file_out_or_name_another_are_refused(home: Path, named: tuple[str, ...]) -> None:
    outside = home.parents[1] / "x"
    outside.write_bytes(b"")
    files = {name: digest_file(home / name) for name in named}
    (home / "digests.json").write_text(json.dumps({"schema_version": 1, "files": files}))
    with pytest.raises(FileFormatError, match=r"digests\.json does not name the files of this record.*measure it again"):
        read_run(home.parents[1])


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"n_items": 500', '"n_items": -3', "-3 items"),
        ('"limit": null', '"limit": -5', "limit -5"),
        ('"chance": ', '"chance": 9', "no shares of its items"),
    ],
)
def test_a_task_that_can_not_be_is_refused_although_its_digests_were_made_again(
    home: Path, old: str, new: str, word: str
) -> None:
    record = home / "cell.json"
    assert old in record.read_text()
    record.write_text(record.read_text().replace(old, new))
    files = {name: digest_file(home / name) for name in ("cell.json", "facts.outcomes.parquet")}
    (home / "digests.json").write_text(json.dumps({"schema_version": 1, "files": files}))
    with pytest.raises(FileFormatError, match=word):
        read_run(home.parents[1])


@pytest.mark.parametrize("name", ["cell.json", "facts.outcomes.parquet", "digests.json"])
def test_a_record_that_was_cut_off_is_refused(home: Path, name: str) -> None:
    (home / name).unlink()
    with pytest.raises(FileFormatError, match="measure it again"):
        read_run(home.parents[1])


def test_a_folder_that_is_no_cell_is_named(home: Path) -> None:
    (home.parent / "notes").mkdir()
    with pytest.raises(FileFormatError, match=r"notes is no cell's record.*Take it out"):
        read_run(home.parents[1])
