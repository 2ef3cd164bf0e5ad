"""NoRecovery: the compressed model, as it is."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from harness.core.digest import digest_json
from harness.models.loaded import LoadedModel
from harness.recovery import RECOVERY, recipe_digest
from harness.recovery.none import NoRecovery


def test_the_model_itself_is_scored() -> None:
    model = LoadedModel(nn.Linear(2, 2), None, "decoder", Path(), "w", "t", "cpu", "float32", 0)
    assert NoRecovery().recover(model, None) is model


def test_it_is_on_the_shelf_under_its_name() -> None:
    assert RECOVERY.load(NoRecovery.name) is NoRecovery
    assert recipe_digest(NoRecovery()) == digest_json({"method": "none"})
