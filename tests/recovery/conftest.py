"""Tiny models of several architectures, a text to train on, artifacts without training, and a loop of our own behind roots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from harness.compression.calibration import CalibrationText
from harness.models import MODELS
from harness.models.loaded import LoadedModel
from harness.models.roots import SoftRoot
from harness.models.tiny import make_tiny, tiny_family
from harness.recovery.artifact import TrainedFor, new_record, write_artifact
from harness.recovery.training import TrainingRecipe

_SENTENCE = "the sea was calm and all of us went out to look at what the night had left upon the sand"
WORDS = _SENTENCE.split(" ")
SHORT = TrainingRecipe(
    steps=4, batch_blocks=2, block_tokens=16, validation_blocks=2, validate_every=2, warmup_steps=1, learning_rate=0.01
)
IDS = (5, 60, 200, 61, 300, 7, 7, 90)

Loader = Callable[..., LoadedModel]
Store = Callable[[dict[str, Tensor]], Path]


@pytest.fixture(scope="session")
def text() -> CalibrationText:
    return CalibrationText("made up", tuple(" ".join(WORDS[(i * k) % len(WORDS)] for i in range(60)) for k in range(1, 14)))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    return {}


@pytest.fixture
def load(folders: dict[tuple[str, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """A fresh tiny model of an architecture; ``window`` changes its sliding window."""

    def loaded(architecture: str = "llama", *, window: int = 0) -> LoadedModel:
        key = (architecture, window)
        if key not in folders:
            changes = {"sliding_window": window} if window else {}
            folders[key] = make_tiny(tmp_path_factory.mktemp(architecture), architecture, **changes)
        family: Any = MODELS.load(tiny_family(architecture))()
        made: LoadedModel = family.load(folders[key], device="cpu", dtype="float32")
        return made

    return loaded


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Writes tensors as an artifact that training could have made."""

    def written(tensors: dict[str, Tensor]) -> Path:
        made = new_record("tiny_4bit-rtn_p", TrainedFor("d", "c", "t", "r", {"n": len(tensors)}, "x"), "w", (), {})
        return write_artifact(tmp_path / "artifacts", made, tensors)

    return written


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def root_of(model: LoadedModel, number: int = 0) -> SoftRoot:
    assert model.soft_roots is not None
    return model.soft_roots.roots[number]


def logprobs(model: LoadedModel, ids: Sequence[int] = IDS, root: SoftRoot | None = None) -> Tensor:
    """The log-probabilities behind a root at each of the tokens, [tokens, vocabulary], through transformers alone."""
    module: Any = model.module
    row = torch.tensor([list(ids)])
    with torch.no_grad():
        if root is None:
            logits = module(input_ids=row, use_cache=False).logits
        elif root.embeddings is not None:
            whole = torch.cat([root.embeddings[None], module.get_input_embeddings()(row)], dim=1)
            logits = module(inputs_embeds=whole, use_cache=False).logits[:, root.n_positions :]
        else:
            positions = root.n_positions + torch.arange(len(ids))[None]
            logits = module(input_ids=row, position_ids=positions, past_key_values=DynamicCache(root.keys_values)).logits
    return logits[0].log_softmax(-1)
