"""The artifact of a release, in the place of its dense model's weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.compression import recipe_digest
from harness.compression.artifact import Artifact
from harness.compression.scopes import Scoped
from harness.core.errors import CompressionError, ConfigError, ModelError
from harness.models.decoder import Decoder
from harness.models.digest import digest_weights
from harness.models.loaded import LoadedModel
from harness.models.tiny import make_tiny


@pytest.fixture
def packed(tmp_path: Path, save_gptq: Callable[[Path, Path], Path]) -> Path:
    return save_gptq(make_tiny(tmp_path / "dense"), tmp_path / "packed")


@pytest.fixture
def base(packed: Path) -> tuple[LoadedModel, dict[str, nn.Linear]]:
    model = Decoder().load(packed.parent / "dense", device="cpu", dtype="float32")
    return model, Decoder().linear_layers(model)


def test_its_weights_take_the_place_of_the_dense_models(base: Any, packed: Path) -> None:
    model, layers = base
    made = Artifact(str(packed)).compress(model, layers, None)
    for name, weight in load_file(packed.parent / "rounded.safetensors").items():
        assert torch.equal(model.module.state_dict()[name], weight), name
    n_weights = sum(layer.weight.numel() for layer in layers.values())
    n_rows = sum(layer.out_features for layer in layers.values())
    n_inputs = sum(layer.in_features for layer in layers.values())
    n_groups = n_weights // 16
    assert made.n_weights_compressed == n_weights
    assert made.effective_bits == pytest.approx(4 + (n_groups * (16 + 4) + 32 * n_inputs) / n_weights)  # and g_idx
    assert made.size_bytes == (packed / "model.safetensors").stat().st_size
    assert n_rows
    assert made.recipe_digest == recipe_digest(Artifact(str(packed)))


def test_it_is_known_by_its_content_not_by_where_it_lies(packed: Path) -> None:
    before = recipe_digest(Artifact(str(packed)))
    moved = packed.rename(packed.parent / "elsewhere")
    assert recipe_digest(Artifact(str(moved))) == before
    said = json.loads((moved / "config.json").read_text())
    said["quantization_config"]["checkpoint_format"] = "gptq_v2"
    (moved / "config.json").write_text(json.dumps(said))
    assert recipe_digest(Artifact(str(moved))) != before


def test_pickled_weights_are_taken_where_the_recipe_says_so_and_known_by_their_content(base: Any, packed: Path) -> None:
    model, layers = base
    tensors = load_file(packed / "model.safetensors")
    (packed / "model.safetensors").unlink()
    torch.save(tensors, packed / "pytorch_model.bin")
    with pytest.raises(ModelError, match="`pickled = true`"):
        Artifact(str(packed)).compress(model, layers, None)
    before = recipe_digest(Artifact(str(packed), pickled=True))
    made = Artifact(str(packed), pickled=True).compress(model, layers, None)
    assert (made.recipe_digest, made.n_weights_compressed) == (before, sum(one.weight.numel() for one in layers.values()))
    tensors["model.norm.weight"] += 1
    torch.save(tensors, packed / "pytorch_model.bin")
    assert recipe_digest(Artifact(str(packed), pickled=True)) != before
    with pytest.raises(ConfigError, match="pickled = 'yes' is not possible"):
        Artifact(str(packed), pickled="yes")  # type: ignore[arg-type]


def test_what_lies_beside_the_weights_hides_no_change_of_them(packed: Path) -> None:
    tensors = load_file(packed / "model.safetensors")
    save_file(tensors, packed / "model_before.safetensors")
    before = recipe_digest(Artifact(str(packed)))
    tensors["model.layers.0.self_attn.q_proj.scales"] *= 2
    save_file(tensors, packed / "model.safetensors", metadata={"format": "pt"})
    assert recipe_digest(Artifact(str(packed))) != before


def test_a_config_that_would_run_its_weights_otherwise_is_another_models(base: Any, packed: Path) -> None:
    model, layers = base
    before = recipe_digest(Artifact(str(packed)))
    said = json.loads((packed / "config.json").read_text())
    said["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    (packed / "config.json").write_text(json.dumps(said))
    assert recipe_digest(Artifact(str(packed))) != before  # so that stored weights do not hide it
    with pytest.raises(ModelError, match=r"its config says rope_parameters = .*500000.*expected .*another base"):
        Artifact(str(packed)).compress(model, layers, None)


def test_single_and_sharded_files_side_by_side_are_not_guessed_at(packed: Path) -> None:
    save_file(load_file(packed / "model.safetensors"), packed / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (packed / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"holds model.safetensors, and an index that names other files"):
        Artifact(str(packed)).recipe()


def test_a_plain_checkpoint_is_one_too_at_the_bits_that_it_is_stored_in(base: Any, packed: Path) -> None:
    model, layers = base
    made = Artifact(str(packed.parent / "dense")).compress(model, layers, None)
    assert digest_weights(model.module) == model.weights_digest
    assert (made.effective_bits, made.n_weights_compressed) == (32.0, 0)


def test_one_of_another_base_model_is_refused(base: Any, packed: Path, save_gptq: Any) -> None:
    model, layers = base
    other = save_gptq(make_tiny(packed.parent / "b", seed=1), packed.parent / "of-another")
    with pytest.raises(CompressionError, match="is an artifact of another base model: the cosine of its token embeddings"):
        Artifact(str(other)).compress(model, layers, None)
    narrow = save_gptq(make_tiny(packed.parent / "c", intermediate_size=96), packed.parent / "narrow")
    with pytest.raises(ModelError, match=r"its config says intermediate_size = 96, expected 64; it is of another base model"):
        Artifact(str(narrow)).compress(model, layers, None)
    (narrow / "config.json").write_text((packed / "config.json").read_text())
    with pytest.raises(ModelError, match=r"of shape \(96, 32\), expected \(64, 32\); it is of another base model"):
        Artifact(str(narrow)).compress(model, layers, None)
    assert digest_weights(model.module) == model.weights_digest


def test_what_is_packed_beyond_the_scope_is_refused(base: Any, packed: Path) -> None:
    model, layers = base
    with pytest.raises(CompressionError, match=r"mlp.* packed, which is no layer of this scope \(6 such layers\)"):
        Scoped(Artifact(str(packed)), "attention").compress(model, layers, None)


def test_a_plain_checkpoint_has_no_scope(base: Any, packed: Path) -> None:
    model, layers = base
    with pytest.raises(CompressionError, match="is plain, so no scope says what was done to it: take scope = 'all'"):
        Scoped(Artifact(str(packed.parent / "dense")), "attention").compress(model, layers, None)


def test_broken_scales_leave_the_model_as_it_was(base: Any, packed: Path) -> None:
    model, layers = base
    tensors = load_file(packed / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.scales"][0, 0] = float("inf")
    save_file(tensors, packed / "model.safetensors")
    with pytest.raises(ModelError, match="NaN or infinite"):
        Artifact(str(packed)).compress(model, layers, None)
    assert digest_weights(model.module) == model.weights_digest


@pytest.mark.parametrize("folder", ["", None, 3])
def test_no_folder_is_refused(folder: Any) -> None:
    with pytest.raises(ConfigError, match="artifact: folder = "):
        Artifact(folder)
    with pytest.raises(ModelError, match="there is no folder"):
        Artifact("/gone").recipe()
