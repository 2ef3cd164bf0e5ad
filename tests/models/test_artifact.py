"""Checkpoints that other tools wrote: unpacked to what their owners' libraries make of them, or refused in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from harness.core.errors import ConfigError, MissingDependencyError, ModelError
from harness.models.artifact import read_artifact
from harness.models.artifact_config import read_quantization
from harness.models.decoder import Decoder
from harness.models.sources import anchored, parse_source, resolve
from harness.models.tiny import make_tiny

FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures" / "autogptq"


def quietly(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny Llamas that llm-compressor itself quantized and saved."""
    from harness.compression.quiet import sealed

    made: dict[str, Path] = {}
    dense = make_tiny(tmp_path_factory.mktemp("dense"))
    for name, arguments in {
        "w4": {"num_bits": 4, "symmetric": True, "strategy": "group", "group_size": 16},
        "w4-asymmetric": {"num_bits": 4, "symmetric": False, "strategy": "group", "group_size": 16},
        "w8-channel": {"num_bits": 8, "symmetric": True, "strategy": "channel"},
        "w3": {"num_bits": 3, "symmetric": False, "strategy": "group", "group_size": 16},
    }.items():
        with sealed():
            from llmcompressor import oneshot
            from llmcompressor.modifiers.quantization import QuantizationModifier

            model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
            groups = {"group_0": {"targets": ["Linear"], "weights": {"type": "int", **arguments}}}
            oneshot(model=model, recipe=[QuantizationModifier(config_groups=groups, ignore=["lm_head"])])
            made[name] = tmp_path_factory.mktemp(name)
            model.save_pretrained(made[name], save_compressed=True)
        for file in dense.glob("tokenizer*"):
            shutil.copyfile(file, made[name] / file.name)
    return made


@pytest.mark.parametrize("name", ["w4", "w4-asymmetric", "w8-channel", "w3"])
def test_what_llm_compressor_saved_loads_as_its_own_library_loads_it(
    name: str, compressed: dict[str, Path], tmp_path: Path
) -> None:
    found = resolve(f"artifact:{compressed[name]}", None, tmp_path, quietly)
    ours = Decoder().load(found.folder, device="cpu", dtype="float32").module
    theirs = AutoModelForCausalLM.from_pretrained(compressed[name], dtype=torch.float32)
    ids = torch.arange(1, 60).reshape(1, -1)
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
    assert resolve(f"artifact:{compressed[name]}", None, tmp_path, quietly) == found  # from the cache
    assert "quantization_config" not in json.loads((found.folder / "config.json").read_text())


@pytest.mark.parametrize("folder", ["w4g32sym", "w4g32actasym", "w8g64sym"])
def test_auto_gptqs_own_folders_are_read_beside_whatever_else_lies_there(folder: str, tmp_path: Path) -> None:
    if not FIXTURES.is_dir():
        pytest.skip("the checkpoints that auto-gptq wrote are not on this machine")
    found = read_artifact(FIXTURES / folder)
    expected = load_file(FIXTURES / folder / "reference-dequantized.safetensors")
    assert found.format == "gptq"
    assert set(found.packed_bits) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(found.tensors[f"{name}.weight"], weight, rtol=2**-20, atol=1e-7)


# ------------------------------------------------------------------------------------------------ what can't be


@pytest.fixture
def packed(tmp_path: Path, save_gptq: Callable[[Path, Path], Path]) -> Path:
    """A tiny Llama packed as GPTQ, 4 bits in groups of 16."""
    return save_gptq(make_tiny(tmp_path / "dense"), tmp_path / "packed")


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def config(folder: Path, **changes: Any) -> None:
    said = json.loads((folder / "config.json").read_text())
    said["quantization_config"] |= changes
    (folder / "config.json").write_text(json.dumps(said))


def test_a_packed_model_scores_as_the_plain_one_that_was_packed(packed: Path, tmp_path: Path) -> None:
    found = resolve(f"artifact:{packed}", None, tmp_path / "cache", quietly)
    ours = Decoder().load(found.folder, device="cpu", dtype="float32").module.state_dict()
    plain = load_file(packed.parent / "rounded.safetensors")
    assert set(plain) <= set(ours)
    for name, weight in plain.items():
        assert torch.equal(ours[name], weight), name


LAYER = "model.layers.1.mlp.up_proj"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), r"model\.safetensors is empty \(0 bytes\)"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" + b"\0" * 40), "not a readable safetensors file"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), r"only pickled ones.*\(model\.bin\)"),
        (lambda folder: config(folder, bits=8), "does not hold what its config says, 8 bits in groups of 16"),
        (lambda folder: config(folder, group_size=32), "does not hold what its config says, 4 bits in groups of 32"),
        (lambda folder: config(folder, bits=5), "can't be understood .*5 bits, expected one of 2, 3, 4, 8"),
        (lambda folder: config(folder, group_size="a"), "group_size 'a', expected a whole number, or -1 for a row"),
        (lambda folder: config(folder, quant_method="hqq"), "quantized by 'hqq': expected gptq, awq, compressed-tensors"),
        (lambda folder: config(folder, checkpoint_format="marlin"), "in the layout 'marlin': expected GPTQ's own"),
        (lambda folder: config(folder, quant_method="awq", version="gemv"), "AWQ's layout 'gemv': expected 'gemm'"),
        (lambda folder: rewrite(folder, lambda t: t[f"{LAYER}.scales"].fill_(float("nan"))), f"{LAYER}.weight has NaN or inf"),
        (lambda folder: rewrite(folder, lambda t: t.pop(f"{LAYER}.qzeros")), f"packed layer {LAYER} has no qzeros"),
        (lambda folder: rewrite(folder, lambda t: t.update({f"{LAYER}.g_idx": t[f"{LAYER}.g_idx"] + 9})), "in groups up to"),
        (
            lambda folder: rewrite(folder, lambda t: [t.pop(name) for name in list(t) if "q" in name.split(".")[-1]]),
            "none of its",
        ),
    ],
)
def test_a_broken_checkpoint_is_refused_in_a_sentence(packed: Path, change: Callable[[Path], Any], sentence: str) -> None:
    change(packed)
    with pytest.raises(ModelError, match=sentence):
        read_artifact(packed)


def test_what_only_its_owner_can_read_says_so(packed: Path) -> None:
    config(packed, quant_method="fp8")
    with pytest.raises(
        MissingDependencyError, match=r"is quantized by fp8: its weights are 8-bit floats.* dequantize it with"
    ):
        read_artifact(packed)


def test_pickled_weights_are_read_only_where_that_is_said_and_only_for_their_tensors(packed: Path) -> None:
    expected = read_artifact(packed)
    tensors = load_file(packed / "model.safetensors")
    (packed / "model.safetensors").unlink()
    torch.save(tensors, packed / "gptq_model-4bit-16g.bin")
    with pytest.raises(ModelError, match=r"only pickled ones.*`pickled = true` beside the folder reads nothing but tensors"):
        read_artifact(packed)
    found = read_artifact(packed, pickled=True)
    assert found.packed_bits == expected.packed_bits
    assert all(torch.equal(found.tensors[name], one) for name, one in expected.tensors.items())
    torch.save({"a": Path("/")}, packed / "gptq_model-4bit-16g.bin")
    with pytest.raises(ModelError, match=r"holds more than tensors.*nothing of it was run"):
        read_artifact(packed, pickled=True)
    torch.save([tensors], packed / "gptq_model-4bit-16g.bin")
    with pytest.raises(ModelError, match="holds no tensors by name"):
        read_artifact(packed, pickled=True)
    (packed / "gptq_model-4bit-16g.bin").write_bytes(b"no pickle")
    with pytest.raises(ModelError, match="or is broken"):
        read_artifact(packed, pickled=True)


def test_a_missing_shard_is_named(packed: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (packed / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"lacks 1 of its 2 shards \(first: model-00002-of-00002\.safetensors\)"):
        read_artifact(packed)


def test_of_several_files_without_an_index_none_is_guessed(packed: Path) -> None:
    (packed / "model.safetensors").rename(packed / "a.safetensors")
    shutil.copyfile(packed / "a.safetensors", packed / "b.safetensors")
    with pytest.raises(ModelError, match=r"2 safetensors files and no index \(a\.safetensors, b\.safetensors\)"):
        read_artifact(packed)


def test_a_config_of_another_model_is_refused(packed: Path, tmp_path: Path) -> None:
    said = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps({**said, "intermediate_size": 96}))
    with pytest.raises(
        ModelError, match=r"is of shape \(64, 32\), expected \(96, 32\); it is of another base model, or its config"
    ):
        resolve(f"artifact:{packed}", None, tmp_path / "cache", quietly)
    (packed / "config.json").write_text(json.dumps({**said, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"it lacks 'model\.layers\.2\."):
        resolve(f"artifact:{packed}", None, tmp_path / "cache", quietly)


def test_a_bias_that_the_model_has_no_place_for_may_only_be_zeros(packed: Path, tmp_path: Path) -> None:
    rewrite(packed, lambda tensors: tensors[f"{LAYER}.bias"].fill_(0.5))
    with pytest.raises(ModelError, match=f"it holds '{LAYER}.bias', which the model does not have"):
        resolve(f"artifact:{packed}", None, tmp_path / "cache", quietly)


def test_quantized_inputs_are_not_passed_over(compressed: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(compressed["w4"], tmp_path / "w4a8")
    said = json.loads((tmp_path / "w4a8" / "config.json").read_text())
    said["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8}
    (tmp_path / "w4a8" / "config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=r"quantizes inputs too \(group group_0\)"):
        read_quantization(tmp_path / "w4a8")


def test_auto_awqs_own_file_is_known_by_its_words(packed: Path) -> None:
    said = json.loads((packed / "config.json").read_text())
    del said["quantization_config"]
    (packed / "config.json").write_text(json.dumps(said))
    own = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
    (packed / "quant_config.json").write_text(json.dumps(own))
    found = read_quantization(packed)
    assert found is not None
    assert (found.format, found.words) == ("awq", "4 bits in groups of 128")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config_groups": {}}, "can't be understood .*its config_groups are empty"),
        ({"config_groups": {"a": {"targets": ["re:("], "weights": {"num_bits": 4}}}}, r"can't be understood .*target 're:\('"),
        ({"kv_cache_scheme": {"num_bits": 8}}, r"quantizes keys and values as it runs \(kv_cache_scheme\)"),
        ({"transform_config": {"config_groups": {"a": {}}}}, "rotates what its layers get as it runs"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "stores its zeros in the format 'sparse-24-bitmask'"),
    ],
)
def test_what_compressed_tensors_does_beside_packing_is_not_passed_over(
    compressed: dict[str, Path], tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    shutil.copytree(compressed["w4"], tmp_path / "w4")
    config(tmp_path / "w4", **changes)
    with pytest.raises(ModelError, match=sentence):
        read_quantization(tmp_path / "w4")


def test_codes_that_the_bits_can_not_hold_are_not_passed_over(packed: Path) -> None:
    codes = torch.randint(-128, 128, (8, 16), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    save_file({"a.weight": codes, "a.weight_scale": torch.ones(8, 1)}, packed / "model.safetensors")
    weights = {"num_bits": 8, "type": "int", "strategy": "channel"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    config(packed, quant_method="compressed-tensors", format="int-quantized", config_groups=groups)
    assert torch.equal(read_artifact(packed).tensors["a.weight"], codes.float())
    weights["num_bits"] = 4
    config(packed, config_groups=groups)
    with pytest.raises(
        ModelError, match=r"does not hold what its config says, 4 bits, one group a row .* its codes reach from -1"
    ):
        read_artifact(packed)


def test_a_packed_checkpoint_under_a_plain_models_name_says_what_to_write(packed: Path, tmp_path: Path) -> None:
    found = resolve(f"dir:{packed}", None, tmp_path / "cache", quietly)
    with pytest.raises(ModelError, match=r"is a compressed checkpoint \(gptq\).* write artifact: in place of dir: or hub:"):
        Decoder().load(found.folder, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"quant_method": "GPTQ"}, r"is a compressed checkpoint \(GPTQ\)"),
        (["x"], r"config.json has \['x'\] as quantization_config, expected an object"),
        ("gptq", "config.json has 'gptq' as quantization_config, expected an object"),
    ],
)
def test_what_a_config_says_of_its_packing_is_read_as_it_lies(said: Any, words: str, tmp_path: Path) -> None:
    make_tiny(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": said}))
    with pytest.raises(ModelError, match=words):
        Decoder().load(tmp_path / "model", device="cpu", dtype="float32")


def test_an_artifacts_path_starts_at_the_matrix_and_a_repository_stays_one(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert anchored("artifact:here", tmp_path) == f"artifact:{tmp_path / 'here'}"
    assert anchored("artifact:org/name@main", tmp_path) == "artifact:org/name@main"
    assert str(parse_source("artifact:a.gguf")) == "gguf:a.gguf"
    with pytest.raises(ConfigError, match="there is no such folder"):
        resolve(f"artifact:{tmp_path / 'gone'}", None, tmp_path, quietly)
