"""An artifact is what training wrote, for what it was trained for, or it is refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.core.errors import RecoveryError
from harness.recovery.artifact import (
    ArtifactRecord,
    TrainedFor,
    find_artifact,
    new_record,
    read_artifact,
    read_tensors,
    write_artifact,
)

FOR = TrainedFor("dense", "config", "tokenizer", "compression", {"method": "prompt", "n_tokens": 20}, "text")
CELL = "llama_4bit-rtn_prompt20"


def record(**changes: object) -> ArtifactRecord:
    return replace(new_record(CELL, FOR, "weights", (), {"peft": "0"}), **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_artifact(tmp_path, record(), {"prompt": torch.arange(6.0).reshape(2, 3)})


def test_it_comes_back_as_it_was_written(folder: Path) -> None:
    assert folder.name == FOR.key
    assert torch.equal(read_tensors(folder)["prompt"], torch.arange(6.0).reshape(2, 3))
    assert find_artifact(folder.parent, CELL, FOR) == (folder, read_artifact(folder))


def test_other_compressed_weights_are_only_a_note(folder: Path) -> None:
    again = write_artifact(folder.parent, record(weights_digest="of another CPU"), {"prompt": torch.zeros(2, 3)})
    assert again == folder
    assert read_artifact(folder).weights_digest == "of another CPU"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("dense_digest", "other", "another base model \\(dense, not other\\)"),
        ("config_digest", "other", "another base model \\(its config.json differs\\)"),
        ("tokenizer_digest", "other", "another tokenizer"),
        ("compression_digest", "other", "another compression recipe"),
        ("recipe", {"method": "prompt", "n_tokens": 10}, "another recipe of the recovery \\(n_tokens = 20, not 10\\)"),
        ("text_digest", "other", "another training text"),
    ],
)
def test_one_trained_for_something_else_is_refused_and_says_for_what(
    folder: Path, field: str, value: object, told: str
) -> None:
    with pytest.raises(RecoveryError, match=f"{CELL} was trained for {told}.*`harness recover {CELL}`"):
        find_artifact(folder.parent, CELL, replace(FOR, **{field: value}))


def test_a_cell_without_any_is_told_the_command(tmp_path: Path) -> None:
    with pytest.raises(RecoveryError, match=f"no trained artifact .*`harness recover {CELL}` .*never trains"):
        find_artifact(tmp_path / "none", CELL, FOR)


def test_a_record_edited_by_hand_is_found_out(folder: Path) -> None:
    path = folder / "recipe.json"
    path.write_text(path.read_text().replace('"weights"', '"other"'))
    with pytest.raises(RecoveryError, match=r"recipe.json is not what training wrote"):
        read_artifact(folder)


def test_a_record_that_lost_its_sense_is_found_out(folder: Path) -> None:
    (folder / "recipe.json").write_text("{}")
    with pytest.raises(RecoveryError, match=r"can't be read: .*key"):
        read_artifact(folder)


def test_tensors_edited_by_hand_are_found_out(folder: Path) -> None:
    path = folder / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RecoveryError, match=r"tensors.safetensors is not the file that training wrote"):
        read_tensors(folder)


def test_an_artifact_in_another_ones_place_is_found_out(folder: Path) -> None:
    moved = folder.rename(folder.parent / ("0" * 64))
    with pytest.raises(RecoveryError, match="edited or moved"):
        read_artifact(moved)


def test_another_profile_s_artifact_fits_too(tmp_path: Path) -> None:
    theirs = write_artifact(tmp_path / "one" / "artifacts", record(), {"prompt": torch.zeros(2, 3)})
    own = tmp_path / "two" / "artifacts"
    assert find_artifact(own, CELL, FOR)[0] == theirs
    mine = write_artifact(own, record(), {"prompt": torch.ones(2, 3)})
    assert find_artifact(own, CELL, FOR)[0] == mine
