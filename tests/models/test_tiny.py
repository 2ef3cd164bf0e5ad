"""Tiny models: the same everywhere, the random ones and those that were trained."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.core.digest import digest_text
from harness.knowledge import KNOWLEDGE
from harness.models import MODELS
from harness.models.digest import digest_tokenizer, digest_weights_folder
from harness.models.loaded import LoadedModel
from harness.models.tiny import make_tiny
from harness.models.tiny_tokenizers import albert_tokenizer, bert_tokenizer, roberta_tokenizer, t5_tokenizer, tiny_tokenizer
from harness.scoring import SCORERS

TRAINED = {"tiny-bert": "encoder", "tiny-t5": "seq2seq"}
FOLDER = Path(__file__).parents[2] / "suites" / "models"


@pytest.mark.parametrize("architecture", ["llama", "roberta"])
def test_the_same_arguments_give_the_same_model(architecture: str, tmp_path: Path) -> None:
    folders = [make_tiny(tmp_path / str(i), architecture, seed=seed) for i, seed in enumerate((0, 0, 1))]
    digests = [digest_weights_folder(folder) for folder in folders]
    assert digests[0] == digests[1] != digests[2]


def test_tokenizers_are_the_same_in_every_process() -> None:
    """The trainers of the tokenizers package for WordPiece and Unigram are not: they go by the order of hash tables."""
    code = f"import runpy; print(runpy.run_path({__file__!r})['tokenizer_digests']())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == tokenizer_digests()


def tokenizer_digests() -> str:
    makers = (bert_tokenizer, roberta_tokenizer, albert_tokenizer, t5_tokenizer, tiny_tokenizer)
    return " ".join(digest_text(make().backend_tokenizer.to_str()) for make in makers)


@pytest.fixture(params=TRAINED)
def trained(request: pytest.FixtureRequest) -> LoadedModel:
    loaded: LoadedModel = MODELS.load(TRAINED[request.param])().load(FOLDER / request.param, device="cpu", dtype="float32")
    return loaded


def test_a_trained_model_is_what_its_readme_says(trained: LoadedModel) -> None:
    text = (trained.folder / "README.md").read_text(encoding="utf-8")
    assert f"weights: `{trained.weights_digest}`" in text
    assert f"tokenizer: `{digest_tokenizer(trained.folder)}`" in text
    assert f"{sum(parameter.numel() for parameter in trained.module.parameters()):,} parameters" in text
    assert "so what it scores says nothing about any language model" in " ".join(text.split())


def test_a_trained_model_is_small_and_can_be_compressed_in_groups_of_64(trained: LoadedModel) -> None:
    assert sum(path.stat().st_size for path in trained.folder.iterdir()) < 1 << 20
    layers = MODELS.load(trained.family)().linear_layers(trained)
    assert all(layer.in_features % 64 == 0 for layer in layers.values())
    assert {parameter.dtype for parameter in trained.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("task", ["facts", "facts_blank"])
def test_a_trained_model_knows_the_facts_as_its_readme_says(task: str, trained: LoadedModel) -> None:
    asked = KNOWLEDGE.load(task)(limit=60)
    _, items = asked.build(trained.tokenizer)
    scores = SCORERS.load(trained.family)(trained).score([asked.requests(item) for item in items])
    right = sum(asked.outcome(item, found).correct for item, found in zip(items, scores, strict=True))
    column = ("facts", "facts_blank").index(task)
    text = (trained.folder / "README.md").read_text(encoding="utf-8")
    told = float(re.findall(r"([\d.]+) % of", re.search(r"^\| none .*$", text, re.MULTILINE)[0])[column])  # type: ignore[index]
    assert told >= 60
    assert right / len(items) == pytest.approx(told / 100, abs=0.15)
