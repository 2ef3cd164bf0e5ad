"""Tiny random models of every architecture, and the embedded real model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.models import MODELS
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.sources import ResolvedModel
from harness.models.tiny import fill, make_tiny, tiny_family

MakeModel = Callable[..., LoadedModel]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Makes the tiny model of an architecture, each once."""
    made: dict[str, LoadedModel] = {}

    def make(architecture: str, **changes: object) -> LoadedModel:
        key = f"{architecture} {sorted(changes.items())}"
        if key not in made:
            folder = make_tiny(tmp_path_factory.mktemp(architecture), architecture, **changes)  # type: ignore[arg-type]
            made[key] = MODELS.load(tiny_family(architecture))().load(folder, device="cpu", dtype="float32")
        return made[key]

    return make


@pytest.fixture(scope="session")
def drawn() -> Callable[[Callable[[], Any]], Any]:
    """Fills the model that a function makes as the tiny models are filled, and leaves the global generator as it was."""

    def draw(make: Callable[[], Any]) -> Any:
        with torch.random.fork_rng(devices=[]):
            module = make()
        fill(module, torch.Generator().manual_seed(0))
        return module.eval().requires_grad_(False)

    return draw


@pytest.fixture(scope="session")
def smollm2(embedded_model: ResolvedModel) -> LoadedModel:
    return Decoder().load(embedded_model.folder, device="cpu", dtype="float32")
