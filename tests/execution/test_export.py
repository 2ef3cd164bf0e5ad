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


def test_rounded_weights_can_be_written_plain_too(candidate, tmp_path: Path) -> None:
    made = candidate(ROUNDED["rtn"])
    assert export(made, tmp_path / "out", "plain").format == "plain"
    torch.testing.assert_close(logits(by_transformers(tmp_path / "out")), logits(made.model().module))


@pytest.mark.parametrize(
    ("recipe", "form", "sentence"),
    [
        ('method = "int8_dynamic"', "auto", "rounds its layers' inputs to 8-bit per token"),
        (PLAIN["magnitude"], "compressed-tensors", "has no packing for .rtn, gptq have one.: take --format plain"),
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
