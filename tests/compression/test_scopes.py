"""Scopes: what a compression is held to, and where they mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from harness.compression import recipe_digest
from harness.compression.magnitude import Magnitude
from harness.compression.rtn import Rtn
from harness.compression.scopes import Scoped, layers_of_scope
from harness.core.errors import CompressionError, ConfigError
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.tiny import make_tiny


def test_only_the_layers_of_the_scope_change(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    made = Scoped(Rtn(bits=2, group_size=32), "attention").compress(tiny, layers, None)
    changed = {name for name, layer in layers.items() if not torch.equal(layer.weight, before[name])}
    assert changed == {name for name in layers if "self_attn" in name}
    assert made.n_weights_compressed == sum(before[name].numel() for name in changed)
    assert made.recipe["scope"] == "attention"
    assert made.recipe_digest == recipe_digest(Scoped(Rtn(bits=2, group_size=32), "attention"))


def test_a_scope_is_part_of_the_recipe_but_all_is_what_recipes_without_one_meant() -> None:
    digests = [recipe_digest(Scoped(Rtn(4), scope)) for scope in ("all", "attention", "feed_forward")]
    assert len(set(digests)) == 3
    assert digests[0] == recipe_digest(Rtn(4))


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="magnitude: scope = 'mlp' is not possible: expected one of all, attention, feed_for"
    ):
        Scoped(Magnitude(0.5), "mlp")


@pytest.mark.parametrize("scope", ["attention", "feed_forward"])
def test_a_model_without_attention_has_no_scopes_but_all(scope: str, tmp_path: Path) -> None:
    model = Decoder().load(make_tiny(tmp_path, "mamba"), device="cpu")
    layers = Decoder().linear_layers(model)
    with pytest.raises(CompressionError, match=r"mixer.* is neither attention nor feed-forward; take scope = 'all'"):
        layers_of_scope(layers, scope)
    assert layers_of_scope(layers, "all") == layers


def test_layers_without_any_attention_can_not_be_parted() -> None:
    with pytest.raises(CompressionError, match="the model has no attention"):
        layers_of_scope({"layers.0.up": nn.Linear(2, 2)}, "feed_forward")
