"""Wanda and SparseGPT through llm-compressor: the papers' own scores, patterns that hold, and less loss than magnitude."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.compression.calibration import CalibrationText
from harness.compression.magnitude import Magnitude
from harness.compression.sparsegpt import SparseGpt
from harness.compression.wanda import Wanda
from harness.core.errors import CompressionError, ConfigError
from harness.models.digest import digest_weights
from harness.models.loaded import LoadedModel

SMALL = {"n_samples": 12, "sample_tokens": 32}
FIRST = "model.layers.0.self_attn.q_proj"


def sample_ids(model: LoadedModel, text: CalibrationText) -> Tensor:
    sample = text.draw(model.tokenizer, n_samples=12, sample_tokens=32, seed=0, separator_id=1)
    return torch.from_numpy(sample.token_ids)


def test_wanda_prunes_by_the_papers_score_in_every_row(another: Any, text: CalibrationText) -> None:
    model, layers = another()
    seen: list[Tensor] = []
    hook = layers[FIRST].register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, 1)))
    with torch.inference_mode():
        model.module(input_ids=sample_ids(model, text))
    hook.remove()
    before = layers[FIRST].weight.clone()
    Wanda(0.4, **SMALL).compress(model, layers, text)
    score = before.abs() * seen[0].norm(dim=0)
    n_pruned = int(0.4 * 64)
    expected = torch.zeros_like(before, dtype=torch.bool).scatter_(1, score.argsort(dim=1)[:, :n_pruned], True)
    assert torch.equal(layers[FIRST].weight == 0, expected)
    assert torch.equal(layers[FIRST].weight[~expected], before[~expected])


@pytest.mark.parametrize("method", [Wanda, SparseGpt])
def test_two_of_every_four_neighbours_go(
    method: Any, tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText
) -> None:
    made = method(0.5, pattern="2:4", **SMALL).compress(tiny, layers, text)
    for layer in layers.values():
        assert ((layer.weight.unflatten(1, (-1, 4)) == 0).sum(-1) == 2).all()
    assert made.effective_bits == 9


@pytest.mark.parametrize("method", [Wanda, SparseGpt])
def test_only_the_share_asked_for_goes_and_only_in_the_given_layers(
    method: Any, tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText
) -> None:
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    chosen = {name: layer for name, layer in layers.items() if "mlp" in name}
    method(0.5, **SMALL).compress(tiny, chosen, text)
    for name, layer in layers.items():
        if name in chosen:
            assert float((layer.weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
        else:
            assert torch.equal(layer.weight, before[name])


def test_what_solves_loses_less_than_what_only_looks_at_sizes(another: Any, text: CalibrationText) -> None:
    losses = {}
    for method in (Magnitude(0.6), Wanda(0.6, **SMALL), SparseGpt(0.6, **SMALL)):
        model, layers = another()
        dense, _ = another()
        method.compress(model, layers, text)
        ids = sample_ids(model, text)
        with torch.inference_mode():
            losses[method.name] = float((model.module.model(ids)[0] - dense.module.model(ids)[0]).square().mean())
    assert losses["sparsegpt"] < 0.9 * losses["wanda"]
    assert losses["sparsegpt"] < 0.9 * losses["magnitude"]


def test_a_width_that_four_does_not_divide_has_no_2_4_pattern(tiny: LoadedModel, text: CalibrationText) -> None:
    before = digest_weights(tiny.module)
    with pytest.raises(CompressionError, match="needs widths that are multiples of 4, 'odd' has 6 input features"):
        Wanda(0.5, pattern="2:4").compress(tiny, {"odd": nn.Linear(6, 2)}, text)
    assert digest_weights(tiny.module) == before


@pytest.mark.parametrize("method", [Wanda, SparseGpt])
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sparsity": 1.0}, r"sparsity = 1.0 is not possible: expected a share in \[0, 1\)"),
        ({"sparsity": 0.6, "pattern": "2:4"}, "sparsity = 0.6 is not possible with pattern = '2:4': expected 0.5"),
        ({"sparsity": 0.5, "pattern": "4:8"}, "pattern = '4:8' is not possible: expected one of unstructured, 2:4"),
        ({"sparsity": 0.5, "n_samples": 0}, "n_samples = 0"),
    ],
)
def test_impossible_fields_are_refused(method: Any, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        method(**fields)
