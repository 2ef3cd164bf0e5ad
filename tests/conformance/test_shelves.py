"""Every entry of every shelf keeps its contract: it imports, is documented, repeats, and works on a tiny model."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from harness.compression import COMPRESSION, recipe_digest
from harness.compression.calibration import CalibrationText
from harness.core.digest import digest_sequence
from harness.core.records import CompressionRecord
from harness.core.shelf import Shelf
from harness.knowledge import KNOWLEDGE
from harness.models import MODELS
from harness.models.digest import digest_weights
from harness.models.loaded import LoadedModel
from harness.models.tiny import make_tiny, tiny_tokenizer
from harness.recovery import RECOVERY
from harness.report.sections import SECTIONS
from harness.scoring import SCORERS, Request

SHELVES: dict[str, Shelf] = {s.name: s for s in (MODELS, COMPRESSION, RECOVERY, KNOWLEDGE, SCORERS, SECTIONS)}
ENTRIES = [(shelf, name) for shelf, table in SHELVES.items() for name in table]

RECIPES: dict[str, dict[str, Any]] = {
    "none": {},
    "rtn": {"bits": 4, "group_size": 16},
    "gptq": {"bits": 4, "group_size": 16, "n_samples": 4, "sample_tokens": 32},
}
"""The smallest recipe of each compression method for a tiny model; a new method needs a line here."""

WORDS = [
    "the",
    "sea",
    "was",
    "calm",
    "and",
    "all",
    "of",
    "us",
    "went",
    "out",
    "to",
    "look",
    "at",
    "what",
    "the",
    "night",
    "had",
    "left",
    "upon",
    "the",
    "sand",
]
TEXT = CalibrationText("made up", tuple(" ".join(WORDS[(i * k) % len(WORDS)] for i in range(200)) for k in range(1, 9)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(folder: Path) -> LoadedModel:
    loaded: LoadedModel = MODELS.load("decoder")().load(folder, device="cpu", dtype="float32")
    return loaded


@pytest.mark.parametrize(("shelf", "name"), ENTRIES)
def test_an_entry_imports_and_says_what_it_is(shelf: str, name: str) -> None:
    entry = SHELVES[shelf].load(name)
    assert inspect.getdoc(entry)
    module = inspect.getmodule(entry)
    assert module is not None
    assert inspect.getdoc(module)


@pytest.mark.parametrize("name", COMPRESSION)
def test_a_compression_method_keeps_its_contract(name: str, folder: Path) -> None:
    def once() -> tuple[str, CompressionRecord]:
        family = MODELS.load("decoder")()
        loaded = family.load(folder, device="cpu", dtype="float32")
        keys = list(loaded.module.state_dict())
        method = COMPRESSION.load(name)(**RECIPES[name])
        made = method.compress(loaded, family.linear_layers(loaded), TEXT if method.needs_text else None)
        assert list(loaded.module.state_dict()) == keys
        assert made.recipe_digest == recipe_digest(method, TEXT if method.needs_text else None)
        return digest_weights(loaded.module), made

    (first, made), (second, _) = once(), once()
    assert first == second
    assert made.method == name == COMPRESSION.load(name).name
    assert made.stability == COMPRESSION.load(name).stability
    assert made.size_bytes > 0
    assert made.n_weights_compressed <= made.n_weights_total


@pytest.mark.parametrize("name", RECOVERY)
def test_a_recovery_method_gives_back_something_to_score(name: str, model: LoadedModel) -> None:
    method = RECOVERY.load(name)()
    assert method.name == name
    assert isinstance(method.recipe(), dict)
    assert isinstance(method.recover(model, None), LoadedModel)


@pytest.mark.parametrize("family", SCORERS)
def test_a_scorer_scores_every_request_in_order(family: str, model: LoadedModel) -> None:
    scorer = SCORERS.load(family)(model)
    groups = [[Request("", "a b"), Request("a", " b c")], [Request("the", " sea")]]
    scores = scorer.score(groups)
    assert [len(row) for row in scores] == [2, 1]
    assert all(score.loglik_nats < 0 and score.n_tokens > 0 for row in scores for score in row)
    assert scorer.score(groups) == scores
    assert all("/" in identity for identity in scorer.identities.values())


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_a_task_builds_the_same_items_twice_and_asks_once_an_option(name: str) -> None:
    tokenizer = tiny_tokenizer()
    task = KNOWLEDGE.load(name)(limit=12)
    info, items = task.build(tokenizer)
    again, same = KNOWLEDGE.load(name)(limit=12).build(tokenizer)
    assert (info, items) == (again, same)
    assert info.name == name
    assert info.items_digest == digest_sequence(item.digest for item in items)
    assert 1 <= info.n_items == len(items) <= 12  # a vocabulary of 320 tokens writes few answers as one token
    assert 0 <= info.chance <= 1
    for item in items:
        assert len(task.requests(item)) == len(item.options)
    assert any(True for _ in task.probe_sentences())
