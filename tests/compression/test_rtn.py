"""Rtn and NoCompression: what they change, what they refuse, what they record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.compression import COMPRESSION, recipe_digest
from harness.compression.cost import quantized_bits
from harness.compression.grid import fit_grid, round_to_nearest
from harness.compression.none import NoCompression
from harness.compression.rtn import Rtn
from harness.core.errors import CompressionError, ConfigError
from harness.models.digest import digest_weights
from harness.models.loaded import LoadedModel

RECIPES: dict[str, dict[str, Any]] = {
    "none": {},
    "rtn": {"bits": 4},
    "gptq": {"bits": 4},
    "auto_gptq": {"bits": 4},
    "awq": {"bits": 4},
    "sparsegpt": {"sparsity": 0.5},
    "wanda": {"sparsity": 0.5},
    "magnitude": {"sparsity": 0.5},
    "last_dense": {"sparsity": 0.5},
    "int8_dynamic": {},
    "noise": {"share": 0.1},
    "artifact": {"folder": str(Path(__file__).parents[2] / "suites" / "models" / "tiny-bert")},
    "steps": {"steps": [{"method": "rtn", "bits": 4}]},
}
N_LINEAR = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
N_REST = 128 * 64 + 5 * 64  # tied embeddings once, norms


def test_only_the_given_layers_change_and_only_their_weights(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.module.state_dict().items()}
    chosen = {name: layer for name, layer in layers.items() if "mlp" in name}
    Rtn(bits=4, group_size=32).compress(tiny, chosen, None)
    after = tiny.module.state_dict()
    assert list(after) == list(before)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {f"{name}.weight" for name in chosen}
    for name in chosen:
        expected = round_to_nearest(before[f"{name}.weight"], bits=4, group_size=32, symmetric=True)
        assert torch.equal(after[f"{name}.weight"], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_rounded_in_32(another: Any, dtype: torch.dtype) -> None:
    model, layers = another(dtype)
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    Rtn(bits=4, group_size=32).compress(model, layers, None)
    for name, layer in layers.items():
        assert layer.weight.dtype == dtype
        expected = round_to_nearest(before[name].float(), bits=4, group_size=32, symmetric=True).to(dtype)
        assert torch.equal(layer.weight, expected)


def test_the_same_recipe_gives_the_same_weights(another: Any) -> None:
    digests = set()
    for _ in range(2):
        model, layers = another()
        Rtn(bits=3, group_size=16).compress(model, layers, None)
        digests.add(digest_weights(model.module))
    assert len(digests) == 1


def test_effective_bits_and_bytes_count_scales_and_zeros(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    record = Rtn(bits=4, group_size=32, symmetric=False).compress(tiny, layers, None)
    assert record.n_weights_compressed == N_LINEAR
    assert record.n_weights_total == N_LINEAR + N_REST
    assert record.effective_bits == 4 + (16 + 4) / 32
    assert record.size_bytes == (N_LINEAR * (4 + 20 / 32) + 16 * N_REST) / 8
    assert record.wall_s > 0
    assert record.recipe_digest == recipe_digest(Rtn(bits=4, group_size=32, symmetric=False))


def test_counted_bits_are_those_of_the_grid_s_own_numbers() -> None:
    for symmetric in (True, False):
        grid = fit_grid(torch.ones(3, 64), bits=3, group_size=16, symmetric=symmetric)
        n_codes, n_groups = grid.codes(torch.ones(3, 64)).numel(), grid.scales.numel()
        counted = quantized_bits(3, 64, bits=3, group_size=16, scale_bits=16, symmetric=symmetric)
        assert counted == 3 * n_codes + 16 * n_groups + (0 if symmetric else 3 * n_groups)


def test_one_group_a_row_when_the_group_size_is_0(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    record = Rtn(bits=8, group_size=0, scale_dtype="float32").compress(tiny, layers, None)
    n_rows = sum(layer.out_features for layer in layers.values())
    assert record.effective_bits == pytest.approx(8 + 32 * n_rows / N_LINEAR)


def test_a_group_size_that_fits_not_is_refused_with_those_that_do(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    before = digest_weights(tiny.module)
    with pytest.raises(CompressionError, match=r"128 does not divide the 64 input features.*16, 32, or 0") as caught:
        Rtn(bits=4, group_size=128).compress(tiny, layers, None)
    assert caught.value.exit_code == 11
    assert digest_weights(tiny.module) == before


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_weights_are_refused(tiny: LoadedModel, layers: dict[str, nn.Linear], broken: float) -> None:
    layers["model.layers.1.mlp.up_proj"].weight.data[3, 4] = broken
    with pytest.raises(CompressionError, match=r"'model\.layers\.1\.mlp\.up_proj' has 1 NaN or infinite"):
        Rtn(bits=4, group_size=32).compress(tiny, layers, None)


def test_no_layers_are_refused(tiny: LoadedModel) -> None:
    with pytest.raises(CompressionError, match="matches nothing"):
        Rtn(bits=4).compress(tiny, {}, None)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"bits": 5}, "bits = 5 is not possible: expected one of 2, 3, 4, 8"),
        ({"bits": "4"}, "bits = '4' is not possible"),
        ({"bits": 4, "group_size": -1}, "group_size = -1 is not possible: expected a whole number of at least 0"),
        ({"bits": 4, "group_size": 64.0}, "group_size = 64.0"),
        ({"bits": 4, "symmetric": 1}, "symmetric = 1 is not possible: expected one of True, False"),
        ({"bits": 4, "scale_dtype": "bf16"}, "scale_dtype = 'bf16' is not possible: expected one of float16, float32"),
    ],
)
def test_impossible_fields_are_refused_when_the_recipe_is_made(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        Rtn(**fields)
    assert caught.value.exit_code == 4


def test_every_field_is_part_of_the_recipe_s_digest() -> None:
    recipes = [Rtn(4), Rtn(3), Rtn(4, 32), Rtn(4, symmetric=False), Rtn(4, scale_dtype="float32"), NoCompression()]
    assert len({recipe_digest(recipe) for recipe in recipes}) == len(recipes)


def test_no_compression_leaves_the_model_and_counts_16_bits_a_weight(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    before = digest_weights(tiny.module)
    record = NoCompression().compress(tiny, layers, None)
    assert digest_weights(tiny.module) == before
    assert (record.effective_bits, record.n_weights_compressed, record.wall_s) == (16.0, 0, 0.0)
    assert record.size_bytes == 2 * (N_LINEAR + N_REST)


def test_recipes_are_asked_for_without_torch() -> None:
    code = (
        "import sys\n"
        "from harness.compression import COMPRESSION\n"
        "from harness.compression.calibration import CalibrationText\n"
        "text = CalibrationText('t', ('a',))\n"
        f"for name in {sorted(COMPRESSION)!r}:\n"
        f"    made = COMPRESSION.load(name)(**{RECIPES!r}[name])\n"
        "    made.recipe(text)\n"
        "assert not {'torch', 'transformers', 'llmcompressor'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
