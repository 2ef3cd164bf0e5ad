"""Tiny models that can be looked at, and a text for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.compression.calibration import CalibrationText
from harness.models import MODELS
from harness.models.loaded import LoadedModel
from harness.models.tiny import make_tiny, tiny_family

Loader = Callable[..., LoadedModel]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def load(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """A fresh tiny model of an architecture."""

    def loaded(architecture: str = "llama", **changes: Any) -> LoadedModel:
        key = f"{architecture} {changes}"
        if key not in made:
            made[key] = make_tiny(tmp_path_factory.mktemp(architecture), architecture, **changes)
        family: Any = MODELS.load(tiny_family(architecture))()
        model: LoadedModel = family.load(made[key], device="cpu", dtype="float32")
        return model

    return loaded


@pytest.fixture(scope="session")
def text() -> CalibrationText:
    words = ["the", "sea", "was", "calm", "and", "all", "of", "us", "went", "out", "to", "look", "at"]
    return CalibrationText("made up", tuple(" ".join(words[(i * k) % 13] for i in range(60)) for k in range(1, 9)))
