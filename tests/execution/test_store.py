"""The run store never serves what is not whole, and a killed run goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.core.answer_block import Circumstances
from harness.core.digest import digest_sequence
from harness.core.errors import StorageError
from harness.core.outcomes import Outcomes
from harness.core.records import Item, ItemOutcome, TaskInfo
from harness.execution.store import Store, StoredResult

ITEMS = tuple(Item(f"i{n}", "g", f"{n} is [Y].", ("a", "b"), (n % 2,)) for n in range(4))
DIGESTS = tuple(item.digest for item in ITEMS)
OUTCOMES = Outcomes.of(DIGESTS, [ItemOutcome(0, n % 2 == 0, 1 + n % 2, 0.5 - n, False, (-1.5, -2.25)) for n in range(4)])
INFO = TaskInfo("t", "p", "log_likelihood", True, "rule", "v1", "spec", digest_sequence(DIGESTS), 4, 0.5, 0.5, {})

THEN = Circumstances("abc", "2026-01-02T03:04:05+00:00", {"torch": "2"}, 1.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def put(store: Store) -> None:
    store.put_result("k", StoredResult(INFO, ITEMS, OUTCOMES, THEN), "s/1")


def test_a_result_comes_back_as_it_was(store: Store) -> None:
    assert store.find_result("k") is None
    put(store)
    found = store.find_result("k")
    assert found is not None
    assert (found.info, found.items, found.circumstances) == (INFO, ITEMS, THEN)
    assert found.outcomes.digests == OUTCOMES.digests
    np.testing.assert_array_equal(found.outcomes.margins_nats, OUTCOMES.margins_nats)


@pytest.mark.parametrize("name", ["outcomes.parquet", "items.parquet", "manifest.json"])
@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:], lambda b: b""])
def test_a_damaged_result_is_said_and_not_served(store: Store, caplog: pytest.LogCaptureFixture, name: str, damage) -> None:
    put(store)
    path = store.result_folder("k") / name
    path.write_bytes(damage(path.read_bytes()))
    assert store.find_result("k") is None
    assert "is made again" in caplog.text


def test_a_missing_file_of_a_result_is_noticed(store: Store) -> None:
    put(store)
    (store.result_folder("k") / "items.parquet").unlink()
    assert store.find_result("k") is None


def test_a_result_put_back_together_from_blocks_equals_the_whole(store: Store) -> None:
    half = [
        Outcomes.of(
            DIGESTS[part], [ItemOutcome(0, n % 2 == 0, 1 + n % 2, 0.5 - n, False, (-1.5, -2.25)) for n in range(4)][part]
        )
        for part in (slice(0, 2), slice(2, 4))
    ]
    whole = Outcomes.concatenate(half)
    assert whole.digests == OUTCOMES.digests
    assert whole.option_logliks_nats == OUTCOMES.option_logliks_nats
    np.testing.assert_array_equal(whole.correct, OUTCOMES.correct)


def test_a_folder_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    blocker = tmp_path / "results"
    blocker.write_text("a file where a folder should be")
    with pytest.raises((StorageError, OSError)):
        put(Store(tmp_path))


def test_the_cache_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "mine"))
    assert Store.default().root == tmp_path / "mine"
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Store.default().root == tmp_path / "retention-harness"
