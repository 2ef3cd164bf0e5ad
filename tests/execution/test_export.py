"""An exported cell is a checkpoint that transformers itself loads, and that is the model that was scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import CompressionError, ConfigError
from harness.execution.candidate import Candidate
from harness.execution.export import export
from harness.execution.local import MeasureOptions, make_candidate
from harness.execution.matrix import Matrix, read_matrix
from harness.execution.progress import Progress
from harness.execution.store import Store

torch = pytest.importorskip("torch")

ROUNDED = {
    "rtn": 'method = "rtn"\nbits = 4\ngroup_size = 16',
    "asymmetric": 'method = "rtn"\nbits = 3\ngroup_size = 16\nsymmetric = false',
    "rows": 'method = "rtn"\nbits = 8\ngroup_size = 0\nscope = "attention"',
    "gptq": 'method = "gptq"\nbits = 2\ngroup_size = 16\nn_samples = 4\nsample_tokens = 32\ncalibration = "text.txt"',
}
GPTQ = 'method = "gptq"\nn_samples = 4\nsample_tokens = 32\ncalibration = "text.txt"'
PLAIN = {
    "magnitude": 'method = "magnitude"\nsparsity = 0.3',
    "steps": 'method = "steps"\nsteps = [{method = "magnitude", sparsity = 0.3}, {method = "rtn", bits = 4, group_size = 16}]',
}


@pytest.fixture
def candidate(matrix: Matrix, progress: Progress, tmp_path: Path) -> Callable[[str], Candidate]:
    def make(recipe: str) -> Candidate:
        text = matrix.path.read_text().replace("[compressions.none]", f"[compressions.tried]\n{recipe}\n[compressions.none]")
        (tmp_path / "tried.toml").write_text(text.replace('["none", "4bit-rtn"', '["tried", "none", "4bit-rtn"'))
        found = read_matrix(tmp_path / "tried.toml", "embedded")
        store = Store(tmp_path / "store")
        return make_candidate(
            found, found.plan("tiny_tried_none"), options=MeasureOptions(device="cpu"), store=store, progress=progress
        )

    return make


def logits(module: Any) -> Any:
    with torch.inference_mode():
        return module(torch.arange(1, 60).reshape(1, -1)).logits


def by_transformers(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("name", ROUNDED)
def test_what_is_rounded_is_packed_and_scores_the_same_in_transformers(candidate, name: str, tmp_path: Path) -> None:
    made = candidate(ROUNDED[name])
    written = export(made, tmp_path / "out")
    assert written.format == "compressed-tensors"
    torch.testing.assert_close(logits(by_transformers(written.folder)), logits(made.model().module), rtol=1e-5, atol=1e-5)
    said = json.loads((written.folder / "config.json").read_text())["quantization_config"]
    assert "lm_head" in said["ignore"]
    assert ("model.layers.0.mlp.up_proj" in said["ignore"]) == (name == "rows")


@pytest.mark.parametrize("name", PLAIN)
def test_what_has_no_packing_is_written_plain(candidate, name: str, tmp_path: Path) -> None:
    made = candidate(PLAIN[name])
    written = export(made, tmp_path / "out")
    assert written.format == "plain"
    theirs = by_transformers(written.folder).state_dict()
    assert all(torch.equal(theirs[key], tensor) for key, tensor in made.model().module.state_dict().items())


def test_an_exported_cell_comes_back_as_an_artifact_with_the_same_weights(candidate, tmp_path: Path) -> None:
    first = candidate(ROUNDED["rtn"])
    written = export(first, tmp_path / "out")
    again = candidate(f'method = "artifact"\nfolder = "{written.folder}"')
    before = first.model().module.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.model().module.state_dict().items())
    made, rounded = again.weights().compression, first.weights().compression
    n_layers = 14  # each with its shape, 2 × 64 bits
    assert made.effective_bits == pytest.approx(4 + 32 / 16 + n_layers * 128 / made.n_weights_compressed)  # scales in 32 bits
    assert made.n_weights_compressed == rounded.n_weights_compressed
    assert made.cost is not None
    assert rounded.cost is not None
    assert made.cost.error_mean == pytest.approx(rounded.cost.error_mean)


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
}
"""Of the models that auto-gptq packed in the fixtures."""

AS_GPTQ = {
    "rtn 8": 'method = "rtn"\nbits = 8\ngroup_size = 64',
    "rtn 4": 'method = "rtn"\nbits = 4\ngroup_size = 32',
    "rtn 4 asymmetric": 'method = "rtn"\nbits = 4\ngroup_size = 32\nsymmetric = false',
    "rtn 3 rows": 'method = "rtn"\nbits = 3\ngroup_size = 0',
    "rtn 2 in 32 bits": 'method = "rtn"\nbits = 2\ngroup_size = 16\nscale_dtype = "float32"',
    "gptq 4": f"{GPTQ}\nbits = 4\ngroup_size = 32",
    "gptq 3 in order": f"{GPTQ}\nbits = 3\ngroup_size = 32\nact_order = false",
    "gptq 8 asymmetric": f"{GPTQ}\nbits = 8\ngroup_size = 64\nsymmetric = false",
}
FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures" / "autogptq"


@pytest.fixture
def wide(candidate, tmp_path: Path) -> Callable[[str], Candidate]:
    """A maker of candidates whose model has widths that GPTQ's layout can have."""
    from harness.models.tiny import make_tiny

    make_tiny(tmp_path / "model", **SIZES)
    return candidate


@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("name", AS_GPTQ)
def test_gptqs_own_layout_holds_the_weights_that_were_scored_bit_for_bit(wide, name: str, form: str, tmp_path: Path) -> None:
    from harness.models.artifact import read_artifact

    made = wide(AS_GPTQ[name])
    written = export(made, tmp_path / "out", form)
    found = read_artifact(written.folder)
    weights = made.model().module.state_dict()
    assert (written.format, found.format, len(found.packed_bits)) == (form, "gptq", 7)
    assert all(torch.equal(found.tensors[name], weight) for name, weight in weights.items())
    said = json.loads((written.folder / "config.json").read_text())["quantization_config"]
    recipe = made.weights().compression.recipe
    assert said == json.loads((written.folder / "quantize_config.json").read_text())
    assert (said["bits"], said["sym"]) == (recipe["bits"], recipe["symmetric"])
    assert said["group_size"] == (recipe["group_size"] or -1)
    assert said["desc_act"] is said["static_groups"] is recipe.get("act_order", False)
    again = wide(f'method = "artifact"\nfolder = "{written.folder}"')
    assert all(torch.equal(again.model().module.state_dict()[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize(
    ("folder", "recipe"),
    [
        ("w4g32sym", AS_GPTQ["rtn 4"]),
        ("w4g32actasym", f"{GPTQ}\nbits = 4\ngroup_size = 32\nsymmetric = false"),
        ("w8g64sym", AS_GPTQ["rtn 8"]),
    ],
)
def test_gptqs_own_layout_has_the_tensors_that_auto_gptq_writes(wide, folder: str, recipe: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    if not FIXTURES.is_dir():
        pytest.skip("the checkpoints that auto-gptq wrote are not on this machine")
    (file,) = (FIXTURES / folder).glob("gptq_model-*.safetensors")
    written = load_file(export(wide(recipe), tmp_path / "out", "gptq").folder / "model.safetensors")
    theirs = load_file(file)
    vocabulary = len(written["lm_head.weight"])

    def shape(tensor: Any) -> tuple[int, ...]:
        return tuple(vocabulary if size == len(theirs["lm_head.weight"]) else size for size in tensor.shape)

    assert {name: (one.dtype, shape(one)) for name, one in written.items()} == {
        name: (one.dtype, shape(one)) for name, one in theirs.items()
    }
    said = json.loads((tmp_path / "out" / "quantize_config.json").read_text())
    known = json.loads((FIXTURES / folder / "quantize_config.json").read_text())
    agree = ("quant_method", "bits", "group_size", "sym", "desc_act")
    assert {key: said[key] for key in agree} == {key: known[key] for key in agree}


def test_a_zero_point_of_0_needs_the_second_version_of_gptqs_layout(wide, tmp_path: Path) -> None:
    from harness.compression.grid import fit_grid

    made = wide('method = "rtn"\nbits = 2\ngroup_size = 16\nsymmetric = false')
    weight = made.dense_model().module.model.layers[0].mlp.up_proj.weight
    grid = fit_grid(weight, bits=2, group_size=16, symmetric=False)
    assert (grid.zeros == -2).any()
    with pytest.raises(
        CompressionError, match=r"proj' does not go into the first version .*a zero point is 0.* --format gptq_v2"
    ):
        export(made, tmp_path / "out", "gptq")
    assert not (tmp_path / "out").exists()
    assert export(made, tmp_path / "out", "gptq_v2").format == "gptq_v2"


def test_a_width_that_leaves_a_word_unfilled_has_no_gptq_layout(candidate, tmp_path: Path) -> None:
    with pytest.raises(
        CompressionError, match=r"multiples of 32, and 'model.layers.0.self_attn.k_proj' has 32 inputs and 16 out"
    ):
        export(candidate(ROUNDED["rtn"]), tmp_path / "out", "gptq")


@pytest.mark.parametrize("form", ["auto", "gptq"])
@pytest.mark.parametrize("name", ["rtn 4", "gptq 4"])
def test_what_was_scored_in_16_bits_is_packed_too(wide, name: str, form: str, tmp_path: Path) -> None:
    from harness.models.artifact import read_artifact

    matrix = tmp_path / "matrix.toml"
    matrix.write_text(matrix.read_text().replace('"dir:model"', '"dir:model"\ndtype = "bfloat16"'))
    made = wide(AS_GPTQ[name])
    written = export(made, tmp_path / "out", form)
    found = read_artifact(written.folder).tensors
    weights = made.model().module.state_dict()
    assert all(
        weight.dtype == torch.bfloat16 and torch.equal(found[name].bfloat16(), weight) for name, weight in weights.items()
    )


def test_rounded_weights_can_be_written_plain_too(candidate, tmp_path: Path) -> None:
    made = candidate(ROUNDED["rtn"])
    assert export(made, tmp_path / "out", "plain").format == "plain"
    torch.testing.assert_close(logits(by_transformers(tmp_path / "out")), logits(made.model().module))


@pytest.mark.parametrize(
    ("recipe", "form", "sentence"),
    [
        ('method = "int8_dynamic"', "auto", "rounds its layers' inputs to 8-bit per token"),
        (PLAIN["magnitude"], "compressed-tensors", "has no packing for .rtn, gptq have one.: take --format plain"),
        (
            PLAIN["magnitude"],
            "gptq",
            "magnitude leaves weights that gptq has no packing for .rtn, gptq have one.: take --format",
        ),
        ('method = "none"', "gptq", "none leaves weights that gptq has no packing for"),
        (
            ROUNDED["rows"],
            "gptq",
            "of which all layers are packed, and tiny_tried_none has the layers of scope 'attention': take",
        ),
    ],
)
def test_what_would_not_score_the_same_is_refused(candidate, recipe: str, form: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        export(candidate(recipe), tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_not_written_over(candidate, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already: name a new folder"):
        export(candidate(ROUNDED["rtn"]), tmp_path / "out")


def test_a_weight_off_its_grid_is_not_packed(candidate, tmp_path: Path) -> None:
    made = candidate(ROUNDED["rtn"])
    made.model().module.model.layers[0].mlp.up_proj.weight.data[0, 0] += 0.01
    with pytest.raises(CompressionError, match=r"up_proj' has 1 weights that do not lie on the grid.*--format plain"):
        export(made, tmp_path / "out")
