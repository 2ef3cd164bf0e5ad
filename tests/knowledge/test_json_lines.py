"""JSON lines that people write: what is read, and what is told of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import FileFormatError
from harness.knowledge.json_lines import read_json_lines

GOOD = '{"a": "Où", "n": 1}'


@pytest.mark.parametrize("text", [GOOD, f"{GOOD}\n", f"\ufeff{GOOD}\n", f"\r\n{GOOD}\r\n\r\n", '{"a": "O\\u00f9", "n": 1}'])
def test_an_object_is_read_whatever_stands_around_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_bytes(text.encode())
    [(place, row)] = read_json_lines(file)
    assert row == {"a": "Où", "n": 1}
    assert place == f"{file}:{1 + text.startswith(chr(13))}"


def test_what_looks_like_a_date_stays_a_text(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text('{"a": "1990-01-01"}', encoding="utf-8")
    assert read_json_lines(tmp_path / "some.jsonl")[0][1] == {"a": "1990-01-01"}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (f"{GOOD}\n\n{{bad\n".encode(), r":3 is not JSON \(Expecting property name enclosed in double quotes, column 2\)"),
        (f"{GOOD}\n".encode("latin-1"), r":1 is not UTF-8 text \(byte 0xf9\): save the file as UTF-8"),
        (f"\n{GOOD}\n".encode("utf-16"), r":1 is not UTF-8 text"),
        (b"[1]\n", r":1 is JSON, but list: expected an object"),
        (b"1\n", r":1 is JSON, but int"),
        (b'{"a": NaN}\n', r":1 can't be read as JSON \(NaN is no number that can be kept\)"),
        (b'{"a": 1e999}\n', r":1 can't be read as JSON \(1e999 is no number that can be kept\)"),
        (b"\xef\xbb\xbfa\nb\nx\xff", r":3 is not UTF-8 text \(byte 0xff\)"),
        (b'{"a": 1, "a": 2}\n', r":1 can't be read as JSON \(the key 'a' stands there twice\)"),
        (b'{"a": "\\ud800"}\n', r":1 can't be read as JSON .*surrogates"),
        (b"[" * 100_000, r":1 can't be read as JSON"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(data: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_bytes(data)
    with pytest.raises(FileFormatError, match=r"some\.jsonl" + sentence):
        read_json_lines(tmp_path / "some.jsonl")


def test_a_file_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        FileFormatError, match=r"none\.jsonl can't be read \(No such file or directory\): restore it, or correct"
    ):
        read_json_lines(tmp_path / "none.jsonl")
    with pytest.raises(FileFormatError, match=r"can't be read \(embedded null byte\)"):
        read_json_lines(tmp_path / "a\0b.jsonl")
