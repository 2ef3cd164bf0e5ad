"""Steps, one after the other; and noise, which is a step like any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness.compression import recipe_digest
from harness.compression.calibration import CalibrationText
from harness.compression.gptq import Gptq
from harness.compression.int8_dynamic import Int8Dynamic
from harness.compression.magnitude import Magnitude
from harness.compression.noise import Noise
from harness.compression.steps import Steps
from harness.core.errors import ConfigError, UnknownNameError
from harness.models.loaded import LoadedModel

PRUNE = {"method": "magnitude", "sparsity": 0.4}
ROUND = {"method": "int8_dynamic"}
SOLVE = {"method": "gptq", "bits": 4, "group_size": 16, "n_samples": 2, "sample_tokens": 16}


def test_each_step_works_on_what_the_one_before_it_left(another: Any) -> None:
    model, layers = another()
    by_hand, their_layers = another()
    made = Steps([PRUNE, ROUND]).compress(model, layers, None)
    Magnitude(0.4).compress(by_hand, their_layers, None)
    alone = Int8Dynamic().compress(by_hand, their_layers, None)
    for name, layer in layers.items():
        assert torch.equal(layer.weight, their_layers[name].weight)
    assert made.method == "steps"
    assert (made.effective_bits, made.size_bytes) == (alone.effective_bits, alone.size_bytes)
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers.values())
    assert zeros >= round(0.4 * made.n_weights_compressed)


def test_a_recipe_is_that_of_its_steps_in_their_order(text: CalibrationText) -> None:
    digests = {
        recipe_digest(Steps(steps), text)
        for steps in ([PRUNE, ROUND], [ROUND, PRUNE], [PRUNE], [PRUNE, SOLVE], [{**PRUNE, "sparsity": 0.2}, ROUND])
    }
    assert len(digests) == 5
    assert Steps([PRUNE, SOLVE]).recipe(text)["steps"][1] == Gptq(4, 16, n_samples=2, sample_tokens=16).recipe(text)


def test_what_solves_among_the_steps_makes_all_of_them_re_compressed_and_takes_the_seed(text: CalibrationText) -> None:
    assert (Steps([PRUNE, ROUND]).stability, Steps([PRUNE, ROUND]).needs_text) == ("stable", False)
    solving = Steps([PRUNE, SOLVE], seed=7)
    assert (solving.stability, solving.needs_text) == ("re-compressed", True)
    assert [step.get("seed") for step in solving.recipe(text)["steps"]] == [None, 7]
    drawn = Steps([{"method": "noise", "share": 0.1}, SOLVE], seed=7)  # what is random by intention stays what it was
    assert [step.get("seed") for step in drawn.recipe(text)["steps"]] == [0, 7]


def test_what_was_pruned_stays_so_when_gptq_would_give_it_a_value_again(another: Any, text: CalibrationText) -> None:
    model, layers = another()
    Magnitude(0.5).compress(model, layers, None)
    zeros = {name: layer.weight == 0 for name, layer in layers.items()}
    Gptq(4, 16, n_samples=2, sample_tokens=16).compress(model, layers, text)
    assert not all((layer.weight[zeros[name]] == 0).all() for name, layer in layers.items())
    model, layers = another()
    Steps([{**PRUNE, "sparsity": 0.5}, SOLVE]).compress(model, layers, text)
    assert all((layer.weight[zeros[name]] == 0).all() for name, layer in layers.items())


@pytest.mark.parametrize(("bits", "sparsity"), [(2, 0.1), (4, 0.3)])
def test_of_what_was_rounded_to_zero_no_more_than_the_sparsity_counts_as_pruned(
    another: Any, bits: int, sparsity: float
) -> None:
    """At 2 bits half of the weights are zero before a tenth is pruned; at 4 bits fewer than are pruned are."""
    rounding = {"method": "rtn", "bits": bits, "group_size": 16}
    pruning, noise = {"method": "magnitude", "sparsity": sparsity}, {"method": "noise", "share": 0.1}

    def share_of_zeros(*steps: dict[str, Any]) -> float:
        model, layers = another()
        Steps(steps).compress(model, layers, None)
        return sum(int((one.weight == 0).sum()) for one in layers.values()) / sum(
            one.weight.numel() for one in layers.values()
        )

    assert (share_of_zeros(rounding) > sparsity) == (bits == 2)
    assert share_of_zeros(rounding, pruning, noise) == pytest.approx(sparsity, abs=1e-4)
    assert share_of_zeros(pruning, noise, {**pruning, "sparsity": sparsity / 2}, noise) == pytest.approx(sparsity, abs=1e-4)


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([], "expected a list of tables"),
        ("magnitude", "expected a list of tables"),
        ([{"sparsity": 0.2}], "step 1 has no `method`; known: "),
        ([PRUNE, {**ROUND, "scope": "attention"}], r"step 2 \(int8_dynamic\) has a scope of its own: write it once, beside"),
        ([PRUNE, {"method": "steps", "steps": [ROUND]}], "step 2 is itself a list of steps: write all of them in one list"),
        ([{**PRUNE, "sparsity": 2}], "sparsity = 2 is not possible"),
        ([{**PRUNE, "bits": 4}], r"step '1 \(magnitude\)' of the matrix: unknown field 'bits'.* Known: .*sparsity"),
    ],
)
def test_steps_that_can_not_be_are_refused_when_the_recipe_is_made(steps: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Steps(steps)


def test_an_unknown_method_of_a_step_is_refused_with_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'magnitude'"):
        Steps([{"method": "magnitud", "sparsity": 0.2}])


# ---------------------------------------------------------------------------------------------------- noise


def test_noise_has_the_asked_share_of_each_layers_own_spread(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    made = Noise(0.05).compress(tiny, layers, None)
    for name, layer in layers.items():
        added = layer.weight - before[name]
        assert float(added.std() / before[name].std()) == pytest.approx(0.05, rel=0.05)  # 2048 weights: 1.6 % at one sigma
        assert float(added.mean().abs()) < 0.05 * float(before[name].std()) * 4 / added.numel() ** 0.5
    assert made.effective_bits == 16


def test_noise_is_drawn_by_seed_and_layer_whatever_else_is_compressed(another: Any) -> None:
    drawn = {}
    for label, seed, part in (("all", 0, ""), ("part", 0, "mlp.up_proj"), ("other", 1, "")):
        model, layers = another()
        Noise(0.1, seed).compress(model, {name: layer for name, layer in layers.items() if part in name}, None)
        drawn[label] = layers["model.layers.1.mlp.up_proj"].weight.clone()
    assert torch.equal(drawn["all"], drawn["part"])
    assert not torch.equal(drawn["all"], drawn["other"])


@pytest.mark.parametrize(("share", "seed"), [(-0.1, 0), (float("inf"), 0), ("1", 0), (0.1, -1)])
def test_impossible_noise_is_refused(share: Any, seed: int) -> None:
    with pytest.raises(ConfigError, match=r"noise: (share|seed) = "):
        Noise(share, seed)
