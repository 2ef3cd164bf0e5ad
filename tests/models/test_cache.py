"""The cache: a folder is made whole or not at all, once, and a damaged one is made again, never served."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.errors import ModelError, StorageError
from harness.models import cache
from harness.models.decoder import Decoder
from harness.models.sources import ResolvedModel, resolve

Resolve = Callable[..., ResolvedModel]


@pytest.fixture
def again(tiny_gguf: Path, tmp_path: Path) -> Resolve:
    """Resolves the tiny GGUF file in one cache; ``told`` collects its progress."""

    def run(told: list[str] | None = None, **settings: bool) -> ResolvedModel:
        return resolve(f"gguf:{tiny_gguf}", None, tmp_path / "cache", (told if told is not None else []).append, **settings)

    return run


def _truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])


def _lose_a_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _break_the_manifest(folder: Path) -> None:
    (folder / cache.MANIFEST).write_text("{")


def _age_the_converter(folder: Path) -> None:
    manifest = json.loads((folder / cache.MANIFEST).read_text())
    (folder / cache.MANIFEST).write_text(json.dumps({**manifest, "converter_version": 0}))


@pytest.mark.parametrize("damage", [_truncate, _lose_a_file, _break_the_manifest, _age_the_converter])
def test_a_damaged_folder_is_made_again(again: Resolve, damage: Callable[[Path], None]) -> None:
    first = again()
    damage(first.folder)
    told: list[str] = []
    assert again(told) == first
    assert any("converting" in line for line in told)
    assert Decoder().load(first.folder, device="cpu", dtype="float32").weights_digest == first.weights_digest


def _flip_a_bit(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def test_an_edit_of_the_same_size_is_found_by_verifying(again: Resolve) -> None:
    first = again()
    _flip_a_bit(first.folder)
    told: list[str] = []
    assert again(told, verify=True) == first
    assert any("converting" in line for line in told)


def test_an_edit_of_the_same_size_is_never_loaded_and_made_again_next_time(again: Resolve) -> None:
    first = again()
    _flip_a_bit(first.folder)
    with pytest.raises(ModelError, match="was edited since it was converted: run again"):
        Decoder().load(first.folder, device="cpu", dtype="float32")
    assert again() == first
    Decoder().load(first.folder, device="cpu", dtype="float32")


def test_two_at_once_convert_once(again: Resolve) -> None:
    told: list[str] = []
    threads = [threading.Thread(target=again, args=(told,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("converting" in line for line in told) == 1


def test_what_a_killed_conversion_left_is_cleared_away(again: Resolve, tmp_path: Path, tiny_sha256: str) -> None:
    left = tmp_path / "cache" / "models" / f".{tiny_sha256}.killed" / "folder"
    left.mkdir(parents=True)
    again()
    assert not left.parent.exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    again: Resolve, tmp_path: Path, tiny_sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, folder: Path) -> None:
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.models.gguf.convert", full)
    with pytest.raises(StorageError, match="the disk is full"):
        again()
    assert [p.name for p in (tmp_path / "cache" / "models").iterdir()] == [f"{tiny_sha256}.lock"]
