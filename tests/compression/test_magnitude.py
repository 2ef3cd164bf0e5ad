"""Magnitude pruning: torch's own global L1 pruning, with ties broken by place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from harness.compression.draws import random_mask
from harness.compression.last_dense import LastDense
from harness.compression.magnitude import Magnitude
from harness.compression.masks import smallest_masks
from harness.core.errors import CompressionError, ConfigError
from harness.models.loaded import LoadedModel

LAST = "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.9])
def test_it_prunes_what_torch_prunes(another: Any, sparsity: float) -> None:
    model, layers = another()
    theirs, their_layers = another()
    Magnitude(sparsity).compress(model, layers, None)
    chosen = [(layer, "weight") for layer in their_layers.values()]
    prune.global_unstructured(chosen, pruning_method=prune.L1Unstructured, amount=sparsity)
    for name, layer in layers.items():
        assert torch.equal(layer.weight, their_layers[name].weight)
    assert theirs.module is not model.module


@pytest.mark.parametrize(("unit", "theirs"), [("weight", prune.l1_unstructured), ("row", prune.ln_structured)])
def test_the_last_layer_alone_is_pruned_as_torch_prunes_it(another: Any, unit: str, theirs: Any) -> None:
    model, layers = another()
    _, their_layers = another()
    made = LastDense(0.3, unit=unit).compress(model, layers, None)
    theirs(their_layers[LAST], "weight", 0.3, **({"n": 1, "dim": 0} if unit == "row" else {}))
    for name, layer in layers.items():
        assert torch.equal(layer.weight, their_layers[name].weight), name
    assert made.n_weights_compressed == 64 * 96


@pytest.mark.parametrize(("unit", "n_pruned"), [("weight", round(0.3 * 64 * 96)), ("row", round(0.3 * 64) * 96)])
def test_random_pruning_takes_its_share_and_other_weights_with_another_seed(another: Any, unit: str, n_pruned: int) -> None:
    zeros = []
    for seed in (0, 0, 1):
        model, layers = another()
        LastDense(0.3, "random", unit, seed).compress(model, layers, None)
        zeros.append(layers[LAST].weight == 0)
        assert int(zeros[-1].sum()) == n_pruned
    assert torch.equal(zeros[0], zeros[1])
    assert not torch.equal(zeros[0], zeros[2])
    assert unit == "weight" or torch.equal(zeros[0].any(1), zeros[0].all(1))


def test_of_equal_weights_the_first_go_and_exactly_as_many_as_asked() -> None:
    weights = [torch.full((2, 3), -0.5), torch.full((2, 3), 0.5)]
    masks = list(smallest_masks(weights, 8))
    assert masks[0].all()
    assert masks[1].flatten().tolist() == [True, True, False, False, False, False]
    assert not any(mask.any() for mask in smallest_masks(weights, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_threshold_is_the_nth_smallest_size_whatever_the_dtype(dtype: torch.dtype) -> None:
    weights = [torch.randn(31, 17, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (1, 2)]
    for n in (1, 100, 31 * 17 * 2):
        masks = list(smallest_masks(weights, n))
        sizes = torch.cat([w.float().abs().flatten() for w in weights])
        chosen = torch.cat([mask.flatten() for mask in masks])
        assert int(chosen.sum()) == n
        assert sizes[chosen].max() == sizes.sort().values[n - 1]


def test_a_random_mask_is_the_same_everywhere() -> None:
    assert random_mask((8,), 3, "last-dense:0").nonzero().flatten().tolist() == [0, 2, 7]


def test_bits_count_what_is_kept_and_where_it_is(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    assert Magnitude(0.5).compress(tiny, layers, None).effective_bits == pytest.approx(9, abs=1e-4)
    assert LastDense(0.25, unit="row").compress(tiny, layers, None).effective_bits == 12 + 1 / 96


def test_a_dense_model_takes_no_more_than_its_16_bits(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    assert Magnitude(0).compress(tiny, layers, None).effective_bits == 16
    assert all(torch.equal(layer.weight, before[name]) for name, layer in layers.items())


@pytest.mark.parametrize("sparsity", [1, 1.0, -0.1, 30, float("nan"), True, "0.3", None])
@pytest.mark.parametrize("method", [Magnitude, LastDense])
def test_a_sparsity_outside_of_0_to_1_is_refused(method: Any, sparsity: Any) -> None:
    with pytest.raises(ConfigError, match=r"sparsity = .* is not possible: expected a share in \[0, 1\)"):
        method(sparsity)


@pytest.mark.parametrize(("field", "value"), [("criterion", "l2"), ("unit", "column"), ("seed", -1)])
def test_impossible_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"last_dense: {field} = "):
        LastDense(0.5, **{field: value})


def test_broken_weights_are_refused(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    layers[LAST].weight.data[0, 0] = float("nan")
    with pytest.raises(CompressionError, match="1 NaN or infinite"):
        Magnitude(0.5).compress(tiny, layers, None)
    with pytest.raises(CompressionError, match="matches nothing"):
        LastDense(0.5).compress(tiny, {}, None)
