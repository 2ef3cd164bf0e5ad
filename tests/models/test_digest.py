"""Digests: they depend on content only, and notice every change of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.core.errors import ModelError
from harness.models import MODELS
from harness.models.decoder import Decoder
from harness.models.digest import digest_tokenizer, digest_weights, digest_weights_folder
from harness.models.tiny import TINY_ENCODERS, TINY_SEQ2SEQ, make_tiny, tiny_family


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "opt", "gemma2", *TINY_ENCODERS, *TINY_SEQ2SEQ])
def test_a_module_has_the_digest_of_its_folder(architecture: str, tmp_path: Path) -> None:
    family = MODELS.load(tiny_family(architecture))()
    model = family.load(make_tiny(tmp_path, architecture), device="cpu", dtype="float32")
    assert digest_weights(model.module) == model.weights_digest == digest_weights_folder(tmp_path)


def test_shards_have_the_digest_of_the_single_file(tiny_llama: Path, tmp_path: Path) -> None:
    model = Decoder().load(tiny_llama, device="cpu", dtype="float32")
    model.module.save_pretrained(tmp_path, max_shard_size="20KB")  # type: ignore[operator]
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert digest_weights_folder(tmp_path) == digest_weights_folder(tiny_llama)


def test_a_tied_tensor_counts_once_whether_it_is_stored_once_or_twice(tmp_path: Path) -> None:
    once = make_tiny(tmp_path / "once", "qwen2")
    twice = make_tiny(tmp_path / "twice", "qwen2")
    tensors = load_file(twice / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, twice / "model.safetensors")
    assert digest_weights_folder(once) == digest_weights_folder(twice)


def test_equal_tensors_that_are_not_tied_count_each(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(2), "b.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    both = digest_weights_folder(tmp_path)
    save_file({"a.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    assert digest_weights_folder(tmp_path) != both


def test_what_is_loaded_counts_and_what_lies_beside_it_hides_no_change(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    before = digest_weights_folder(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, folder / "model_average.safetensors")
    assert digest_weights_folder(folder) == before == digest_weights(Decoder().load(folder, device="cpu").module)
    tensors["model.norm.weight"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert digest_weights_folder(folder) != before


def test_a_file_that_the_config_names_is_what_counts(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, folder / "other.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    assert digest_weights_folder(folder) == digest_weights(Decoder().load(folder, device="cpu").module)


def test_a_shard_that_its_index_names_and_that_is_not_there_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    Decoder().load(tiny_llama, device="cpu").module.save_pretrained(tmp_path, max_shard_size="20KB")  # type: ignore[operator]
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[1].unlink()
    with pytest.raises(ModelError, match=rf"lacks 1 of its {len(shards)} shards \(first: {shards[1].name}\)"):
        digest_weights_folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(ModelError, match="names no shards"):
        digest_weights_folder(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"w": torch.tensor([[1.0, 2.0]]), "v": torch.tensor([3.0])},
        {"w": torch.tensor([[1.0], [2.0]]), "v": torch.tensor([3.0 + 2**-20])},
        {"w": torch.tensor([[1.0], [2.0]]).half(), "v": torch.tensor([3.0])},
        {"w": torch.tensor([[1.0], [2.0]]), "u": torch.tensor([3.0])},
        {"w": torch.tensor([[1.0], [2.0]])},
    ],
    ids=["shape", "value", "dtype", "name", "missing"],
)
def test_every_change_of_a_tensor_changes_the_digest(changed: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({"w": torch.tensor([[1.0], [2.0]]), "v": torch.tensor([3.0])}, tmp_path / "x.safetensors")
    before = digest_weights_folder(tmp_path)
    save_file(changed, tmp_path / "x.safetensors")
    assert digest_weights_folder(tmp_path) != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_memory_and_disk_agree_for_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    module = torch.nn.Module()
    module.register_buffer("w", torch.arange(6).reshape(2, 3).to(dtype))
    save_file(module.state_dict(), tmp_path / "x.safetensors")
    assert digest_weights(module) == digest_weights_folder(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, (10**6).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"])
def test_a_file_that_is_no_safetensors_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        digest_weights_folder(tmp_path)


def test_a_cut_file_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((tiny_llama / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(ModelError, match="cut short by 10 bytes"):
        digest_weights_folder(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no"):
        digest_weights_folder(tmp_path)


def test_the_tokenizers_digest_follows_vocabulary_and_bos_not_layout(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    first = digest_tokenizer(folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7))
    assert digest_tokenizer(folder) == first
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True}))
    assert digest_tokenizer(folder) != first
    assert digest_tokenizer(make_tiny(tmp_path / "bos", adds_bos=True)) != first


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [("bert", "mask_token", "[UNK]"), ("bert", "do_lower_case", False), ("t5", "extra_ids", 3)],
)
def test_what_rebuilds_a_tokenizer_is_part_of_its_digest(architecture: str, key: str, value: object, tmp_path: Path) -> None:
    """transformers' classes make the mask, the normalizer and the sentinels from these, whatever tokenizer.json says."""
    folder = make_tiny(tmp_path, architecture)
    first = digest_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    assert digest_tokenizer(folder) != first
