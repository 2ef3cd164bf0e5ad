"""Files are read strictly and written whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.core.columns import SharedItems, StoredItems, read_items, read_outcomes, write_items, write_outcomes
from harness.core.errors import ConfigError, FileFormatError, StorageError
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, Item, record
from harness.core.serial import from_json, read_json, read_toml, to_json, toml_line, write_atomic, write_json
from harness.core.verdicts import Estimate, Status, Verdict

VERDICT = Verdict("llama_none_none", "facts", Status.PASS, True, False, "nothing changed", None)


@record
class Settings:
    alpha: float
    names: tuple[str, ...] = ()


@record
class Nested:
    table: dict[str, Settings]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "v.json", VERDICT)
    assert read_json(tmp_path / "v.json", Verdict) == VERDICT


def test_json_is_reviewable() -> None:
    text = to_json(VERDICT).decode()
    assert text.endswith("\n")
    assert text.splitlines()[1].startswith('  "anchor"')
    assert text.index('"cell"') < text.index('"task"')


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda t: t.replace('"cell"', '"celll"'), "unknown key 'celll'"),
        (lambda t: t.replace('  "cell": "llama_none_none",\n', ""), "'cell' is missing"),
        (lambda t: t.replace("{", '{"extra": 1,', 1), "unknown key 'extra'"),
        (lambda t: t.replace('"PASS"', '"FINE"'), "'status'"),
        (lambda t: t.replace("true", '"true"'), "'identical'"),
        (lambda t: t[:40], "not valid JSON"),
        (lambda t: "[" * 100_000, "not valid JSON"),
        (lambda t: t.replace("true", "NaN"), "NaN is not allowed"),
        (lambda t: t.replace("{", '{"cell": "a",', 1), "appears twice"),
    ],
)
def test_a_changed_record_is_refused_with_its_key(tmp_path: Path, edit, sentence: str) -> None:
    path = tmp_path / "v.json"
    path.write_text(edit(to_json(VERDICT).decode()))
    with pytest.raises(FileFormatError, match=sentence):
        read_json(path, Verdict)


def test_an_infinite_number_is_neither_written_nor_read() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        to_json(Estimate(float("inf"), 0.0, 1.0, 0.95, "x"))
    with pytest.raises(FileFormatError, match="Infinity is not allowed"):
        from_json(b'{"value": Infinity, "low": 0, "high": 1, "level": 0.95, "method": "x"}', Estimate, "f")


def test_another_schema_version_is_refused() -> None:
    with pytest.raises(FileFormatError, match="schema version 99"):
        from_json(b'{"schema_version": 99}', Verdict, "f")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"gone\.json can't be read"):
        read_json(tmp_path / "gone.json", Verdict)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EFBIG, "disk is full"),
        (errno.ENOENT, "can't be written"),
        (errno.ENAMETOOLONG, "can't be written"),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    path = tmp_path / "kept.json"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=sentence):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_the_systems_own_no_space_error_is_recognized(tmp_path: Path) -> None:
    from harness.core.serial import storage_errors

    with (
        pytest.raises(StorageError, match="disk is full"),
        storage_errors(tmp_path),
        Path("/dev/full").open("wb", buffering=0) as f,
    ):
        f.write(b"x")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("alpha = 0.1\nbeta = 2\n", r":2: unknown key 'beta'"),
        ("names = ['a']\n", r":1: key 'alpha' is missing"),
        ("\n\nalpha = 'x'\n", r":3: key 'alpha'"),
        ("alpha = nan\n", "alpha|NaN|JSON"),
        ("alpha = [\n", "not valid TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_file_line_and_key(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=where) as caught:
        read_toml(path, Settings)
    assert "policy.toml" in str(caught.value)


def test_a_key_in_a_nested_table_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("[table.a]\nalpha = 1.0\n\n[table.b]\nalpha = 1.0\nalhpa = 2.0\n")
    with pytest.raises(ConfigError, match=r":6: unknown key 'table.b.alhpa'"):
        read_toml(path, Nested)


def test_array_tables_are_counted() -> None:
    text = "[[grid]]\nx = 1\n[[grid]]\nx = 2\ny = 3\n"
    assert toml_line(text, ["grid", "1", "y"]) == 5


def _outcomes(n: int = 3) -> Outcomes:
    return Outcomes(
        digests=tuple(f"d{i}" for i in range(n)),
        correct=np.arange(n) % 2 == 0,
        answers=np.arange(n, dtype=np.int32),
        ranks=np.arange(1, n + 1, dtype=np.int32),
        margins_nats=np.linspace(-1, 1, n),
        near_ties=np.zeros(n, dtype=bool),
        option_logliks_nats=tuple((-1.0 * i, -2.5) for i in range(n)),
    )


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    before = _outcomes()
    write_outcomes(tmp_path / "o.parquet", before)
    after = read_outcomes(tmp_path / "o.parquet")
    assert after.digests == before.digests
    assert after.option_logliks_nats == before.option_logliks_nats
    for name in ("correct", "answers", "ranks", "margins_nats", "near_ties"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_a_truncated_or_foreign_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    write_outcomes(path, _outcomes())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match="can't be read as parquet"):
        read_outcomes(path)
    write_items(path, (Item("a", "g", "p [Y]", ("x", "y"), (0,)),))
    with pytest.raises(FileFormatError, match="expected"):
        read_outcomes(path)


def test_a_duplicated_item_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    write_outcomes(path, _outcomes())
    table = pq.read_table(path)
    pq.write_table(table.take([0, 1, 1]), path)
    with pytest.raises(FileFormatError, match="twice"):
        read_outcomes(path)


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    items = (Item("capital:FR", "capital", "The capital of France is [Y].", ("Paris", "Łódź", "<script>"), (0,)),)
    write_items(tmp_path / "i.parquet", items)
    assert read_items(tmp_path / "i.parquet") == items


def test_a_cell_can_be_read_back_but_not_with_path_characters() -> None:
    good = to_json(Cell("llama", "none", "none"))
    assert from_json(good, Cell, "f").id == "llama_none_none"
    with pytest.raises((FileFormatError, ConfigError)):
        from_json(good.replace(b"llama", b"../etc"), Cell, "f")


ITEMS = tuple(Item(f"x/{i}", f"group {i % 2}", f"Which is {i}? [Y]", ("this", f"that {i}"), (i % 2,)) for i in range(4))


def _stored(path: Path, items: tuple[Item, ...], shared: SharedItems) -> StoredItems:
    write_items(path, items)
    return StoredItems(path, tuple(item.digest for item in items), shared)


def test_stored_items_are_made_in_the_order_asked_for(tmp_path: Path) -> None:
    stored = _stored(tmp_path / "i.parquet", ITEMS, SharedItems())
    assert stored.take([2, 0, 2]) == [ITEMS[2], ITEMS[0], ITEMS[2]]
    assert (stored[-1], tuple(stored)) == (ITEMS[-1], ITEMS)
    assert stored.labels() == (("x/0", "x/1", "x/2", "x/3"), ("group 0", "group 1", "group 0", "group 1"))


def test_items_that_several_files_hold_are_made_once(tmp_path: Path) -> None:
    shared = SharedItems()
    one = _stored(tmp_path / "one.parquet", ITEMS, shared)
    other = _stored(tmp_path / "other.parquet", ITEMS[::-1], shared)
    assert one[0] is other[3]
    assert shared.made.keys() == {ITEMS[0].digest}, "the others were not looked at"


def test_a_file_is_read_once_for_all_that_will_be_looked_at_and_never_for_what_another_told(tmp_path: Path) -> None:
    shared = SharedItems()
    one = _stored(tmp_path / "one.parquet", ITEMS, shared)
    other = _stored(tmp_path / "other.parquet", ITEMS[::-1], shared)
    one.want([1])
    other.want([0])
    assert one[0] == ITEMS[0]
    assert shared.made.keys() == {ITEMS[i].digest for i in (0, 1, 3)}, "the third is wanted by nobody"
    assert one.labels()[0] == ("x/0", "x/1", "x/2", "x/3")
    (tmp_path / "other.parquet").unlink()
    assert other.take([0, 2, 3]) == [ITEMS[3], ITEMS[1], ITEMS[0]]
    assert other.labels() == (("x/3", "x/2", "x/1", "x/0"), ("group 1", "group 0", "group 1", "group 0"))


def test_an_edited_item_is_refused_when_it_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "i.parquet"
    stored = _stored(path, ITEMS, SharedItems())
    table = pq.read_table(path)
    prompts = pa.array(["Which is 0? [Y]", "Which is it? [Y]", *table["prompt"].to_pylist()[2:]])
    pq.write_table(table.set_column(table.schema.get_field_index("prompt"), "prompt", prompts), path)
    assert stored[0] == ITEMS[0]
    with pytest.raises(FileFormatError, match="item 'x/1' is not the one that was asked"):
        stored.take([1])
    pq.write_table(table.take([1, 0, 2, 3]), path)
    with pytest.raises(FileFormatError, match="does not hold the items of the outcomes beside it"):
        stored.take([1])


def test_an_item_without_options_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.parquet"
    stored = _stored(path, ITEMS, SharedItems())
    table = pq.read_table(path)
    options = pa.array([None, *table["options"].to_pylist()[1:]], table["options"].type)
    pq.write_table(table.set_column(table.schema.get_field_index("options"), "options", options), path)
    with pytest.raises(FileFormatError, match="empty rows"):
        stored.take([1, 0])
