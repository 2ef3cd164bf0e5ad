"""`harness store`: what lies there is listed, checked and pruned; what is in use or served is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.cli import main
from harness.core.answer_block import BlockAbout, Circumstances
from harness.core.digest import digest_file, digest_sequence, digest_text
from harness.core.outcomes import Outcomes
from harness.core.records import CompressionRecord, Item, ItemOutcome, TaskInfo
from harness.execution.answers import Ask
from harness.execution.inventory import entries
from harness.execution.store import Store, StoredResult, WeightsManifest
from harness.scoring import Request, Score

ITEMS = (Item("i", "g", "is [Y].", ("a", "b"), (0,)),)
DIGESTS = (ITEMS[0].digest,)
OUTCOMES = Outcomes.of(DIGESTS, [ItemOutcome(0, True, 1, 0.5, False, (-1.5, -2.0))])
INFO = TaskInfo("facts", "p", "log_likelihood", True, "rule", "v1", "spec", digest_sequence(DIGESTS), 1, 0.5, 0.5, {})
THEN = Circumstances("abc", "2026-01-02T03:04:05+00:00", {"torch": "2"}, 1.5)
RESULT, WEIGHTS, SCOPE = (digest_text(name) for name in ("result", "weights", "scope"))
REQUEST = Request("is", " a")
COST = CompressionRecord("rtn", {"method": "rtn"}, "recipe", "stable", 4.25, 8, 8, 16, 0.1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A result, compressed weights and the answers of a model, each under its key."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    made = Store.default()
    made.put_result(RESULT, StoredResult(INFO, ITEMS, OUTCOMES, THEN), "s/1")
    folder = made.weights_folder(WEIGHTS)
    folder.mkdir(parents=True)
    save_file({"w": np.zeros(8, np.float32)}, folder / "weights.safetensors")
    files = {"weights.safetensors": digest_file(folder / "weights.safetensors")}
    made.put_weights(WEIGHTS, WeightsManifest(1, "digest", COST, files))
    about = BlockAbout(SCOPE, "llama_none_none", "s/1", THEN)
    made.answers(SCOPE).answer([(REQUEST,)], lambda: Ask(lambda groups: [[Score(-1.5, True, 1)]]), about)
    return made


def age(store: Store, days: float) -> None:
    for path in store.root.rglob("*"):
        then = path.stat().st_mtime - days * 86_400
        os.utime(path, (then, then))


def kinds(store: Store) -> dict[str, str]:
    return {entry.key: entry.kind for entry in entries(store)}


def test_ls_names_what_lies_there(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert kinds(store) == {RESULT: "result", WEIGHTS: "weights", SCOPE: "answers"}
    assert main(["store", "ls"]) == 0
    told = capsys.readouterr().out
    assert "facts, measured 2026-01-02" in told
    assert "rtn, 4.25 bits a weight" in told
    assert "1 answers of llama_none_none, s/1, last measured 2026-01-02" in told
    assert "3 entries" in told


def test_an_empty_store_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "nowhere"))
    for action in ("ls", "verify", "prune"):
        assert main(["store", action]) == 0
    assert "0 entries" in capsys.readouterr().out


def test_verify_finds_a_changed_byte_and_the_entry_is_not_served(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "verify"]) == 0
    path = store.weights_folder(WEIGHTS) / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert main(["store", "verify"]) == 11
    told = capsys.readouterr().out
    assert f"weights {WEIGHTS[:12]} is broken and will be made again" in told
    assert "3 checked, 1 broken" in told
    assert store.find_weights(WEIGHTS) is None
    assert main(["store", "verify"]) == 0


def test_verify_finds_a_changed_byte_in_answers(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = next((store.root / "answers" / SCOPE).glob("*.parquet"))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert main(["store", "verify"]) == 11
    assert f"answers {SCOPE[:12]} is broken and will be made again" in capsys.readouterr().out
    assert store.answers(SCOPE).blocks == []


def test_prune_to_a_size_removes_what_was_unused_for_longest(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    age(store, 3)
    assert store.find_result(RESULT) is not None
    assert store.answers(SCOPE).blocks
    total = sum(entry.size_bytes for entry in entries(store))
    assert main(["store", "prune", "--max-gb", f"{(total - 1) / 1e9:.12f}"]) == 0
    assert kinds(store) == {RESULT: "result", SCOPE: "answers"}
    assert main(["store", "prune", "--max-gb", "0"]) == 0
    assert kinds(store) == {}
    assert main(["store", "prune", "--max-gb", "-1"]) == 4
    assert "expected 0 or more" in capsys.readouterr().err


def test_prune_removes_what_was_not_used_for_long(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    age(store, 40)
    assert store.find_result(RESULT) is not None  # asked for today
    assert main(["store", "prune", "--days", "30", "--dry-run"]) == 0
    assert len(kinds(store)) == 3
    assert main(["store", "prune", "--days", "30"]) == 0
    assert kinds(store) == {RESULT: "result"}
    assert "2 entries" in capsys.readouterr().out


def test_prune_leaves_what_another_process_works_on(store: Store) -> None:
    age(store, 40)
    code = "import sys; from harness.cli import main; sys.exit(main(['store', 'prune']))"
    with store.lock(SCOPE):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kinds(store) == {SCOPE: "answers"}


def test_days_below_zero_are_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "prune", "--days", "-1"]) == 4
    assert "expected 0 or more" in capsys.readouterr().err
    assert len(kinds(store)) == 3
