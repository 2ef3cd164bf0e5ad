"""Calibration text: the shipped one is clean, others are read or refused, and drawing depends on the seed alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from harness.compression import calibration
from harness.compression.calibration import SHIPPED, CalibrationText, load_text, shipped_text
from harness.core.errors import CompressionError, ConfigError, ContaminationError, FileFormatError
from harness.core.probes import ProbeIndex
from harness.knowledge import KNOWLEDGE


def characters(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
    assert not add_special_tokens
    return {"input_ids": [ord(character) for character in text]}


LETTERS = CalibrationText("letters", tuple(chr(97 + i) * 5 for i in range(20)))


def test_the_shipped_text_is_the_committed_one_and_large_enough() -> None:
    text = shipped_text()
    assert len(text.documents) >= 300
    assert 300_000 <= SHIPPED.stat().st_size <= 1_000_000
    assert len(set(text.documents)) == len(text.documents)


@pytest.mark.parametrize("suite", ["facts"])
def test_the_shipped_text_holds_none_of_the_probes_sentences(suite: str) -> None:
    probes = list(KNOWLEDGE.load(suite)(limit=None).probe_sentences())
    assert len(probes) >= 1000
    shipped_text().refuse_probes(ProbeIndex.of(probes))


def test_an_edited_shipped_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = tmp_path / "calibration.jsonl"
    edited.write_text('{"text": "something else"}\n')
    monkeypatch.setattr(calibration, "SHIPPED", edited)
    with pytest.raises(FileFormatError, match="is not the text that was shipped"):
        shipped_text()


def test_text_with_a_probe_s_words_is_refused() -> None:
    index = ProbeIndex.of(["The capital of France is Paris."])
    CalibrationText("t", ("Paris is lovely.",)).refuse_probes(index)
    with pytest.raises(ContaminationError, match=r"calibration text t: document 2 holds .*'capital of france is paris'"):
        CalibrationText("t", ("Paris is lovely.", "whose capital of France is Paris, we know")).refuse_probes(index)


def test_documents_that_hold_a_probe_can_be_left_out() -> None:
    index = ProbeIndex.of(["The capital of France is Paris."])
    text = CalibrationText("t", ("the capital of France is old", "Paris is lovely.", "whose capital of France is Paris"))
    with pytest.raises(ContaminationError, match="documents 1, 3 hold some"):
        text.refuse_probes(index, "training")
    text.without([1, 3]).refuse_probes(index, "training")
    assert text.without([]).digest == text.digest != text.without([1, 3]).digest
    with pytest.raises(ConfigError, match="has 3 documents: document 4"):
        text.without([4])
    with pytest.raises(ConfigError, match="all of its 3 documents"):
        text.without([1, 2, 3])


def test_drawing_is_the_same_for_a_seed_and_another_for_another() -> None:
    def draw(seed: int) -> list[list[int]]:
        return LETTERS.draw(characters, n_samples=3, sample_tokens=8, seed=seed, separator_id=0).token_ids.tolist()

    assert draw(5) == draw(5) != draw(6)
    assert draw(5) == [
        [0, 113, 113, 113, 113, 113, 0, 105],
        [105, 105, 105, 105, 0, 97, 97, 97],
        [97, 97, 0, 101, 101, 101, 101, 101],
    ], "the order that a seed gives must not change: recipes and stored weights depend on it"


def test_drawn_blocks_are_whole_documents_in_a_row_each_after_the_separator() -> None:
    sample = LETTERS.draw(characters, n_samples=4, sample_tokens=30, seed=1, separator_id=0)
    assert sample.token_ids.shape == (4, 30)
    rows = sample.token_ids.reshape(-1, 6).tolist()
    assert all(row[0] == 0 and len(set(row[1:])) == 1 for row in rows)
    assert len({row[1] for row in rows}) == 20
    other = LETTERS.draw(characters, n_samples=4, sample_tokens=30, seed=2, separator_id=0)
    assert sample.digest != other.digest


def test_too_little_text_is_refused() -> None:
    with pytest.raises(CompressionError, match=r"letters has 120 tokens, the recipe wants 11 samples of 11 = 121"):
        LETTERS.draw(characters, n_samples=11, sample_tokens=11, seed=1, separator_id=0)


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".jsonl", ".jsonl.gz"])
def test_the_kind_of_file_does_not_matter(tmp_path: Path, suffix: str) -> None:
    documents = ("One line,\nand another.", "Zwölf Boxkämpfer.\u2028Still the same document.")
    lines = "\n".join(json.dumps({"text": document, "id": 1}, ensure_ascii=False) for document in documents)
    plain = ("\n \n\n".join(documents) if "txt" in suffix else lines).encode()
    path = tmp_path / f"words{suffix}"
    path.write_bytes(gzip.compress(plain, mtime=0) if suffix.endswith(".gz") else plain)
    text = load_text(path)
    assert text.documents == documents
    assert text.digest == CalibrationText("any name", documents).digest


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2: expected an object with a string"),
        ("a.jsonl", b'{"text": "x"}\n["x"]\n', "line 2: expected an object with a string"),
        ("a.jsonl", b'{"text": "x"\n', "line 1: not valid JSON"),
        ("a.txt", b"\xff\xfe\x00", "can't be read as UTF-8"),
        ("a.txt.gz", b"not gzip", "can't be read as UTF-8"),
        ("a.txt.gz", gzip.compress(b"hello" * 100, mtime=0)[:-9], "can't be read as UTF-8"),
        ("a.txt", b" \n\n ", "holds no text"),
        ("a.txt", b"", "holds no text"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=sentence):
        load_text(tmp_path / name)


def test_another_kind_of_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown kind: expected \.txt or \.jsonl"):
        load_text(tmp_path / "text.parquet")
    with pytest.raises(FileFormatError, match="can't be read"):
        load_text(tmp_path / "none.txt")
