"""GGUF: the weights and the tokenizer of the file, nothing guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from harness.core.errors import ModelError
from harness.models.decoder import Decoder
from harness.models.gguf import build_tokenizer, convert
from harness.models.tiny import tiny_tokenizer


def test_the_converted_weights_are_the_files_own_unpacked(tiny_gguf: Path, tmp_path: Path) -> None:
    convert(tiny_gguf, tmp_path / "made")
    weights = Decoder().load(tmp_path / "made", device="cpu", dtype="float32").module.state_dict()
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny_gguf).tensors}
    for theirs, ours in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
        ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"),
    ):
        expected = gguf.quants.dequantize(stored[theirs].data, stored[theirs].tensor_type)
        assert np.array_equal(weights[ours].numpy(), expected)


def test_the_tokenizer_has_the_files_tokens_merges_and_special_tokens(tiny_gguf: Path, tmp_path: Path) -> None:
    convert(tiny_gguf, tmp_path / "made")
    made, known = Decoder().load(tmp_path / "made", device="cpu").tokenizer, tiny_tokenizer()
    text = "The capital of France is Paris, <s>isn't it?"
    assert made.encode(text) == known.encode(text)
    assert (made.bos_token, made.eos_token) == ("<s>", "</s>")
    assert made.model_max_length == 128


def test_smollm_cuts_digits_apart_and_gpt2_does_not() -> None:
    tokens = ["1", "9", "19", "Ġ", "ĠĠ", "a", "<s>"]
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": ["1 9", "Ġ Ġ"],
        "tokenizer.ggml.token_type": [1] * 6 + [3],
        "tokenizer.ggml.bos_token_id": 6,
        "tokenizer.ggml.add_bos_token": True,
    }
    cut = {pre: build_tokenizer({**fields, "tokenizer.ggml.pre": pre}, "x") for pre in ("smollm", "gpt-2")}
    assert cut["smollm"].convert_ids_to_tokens(cut["smollm"].encode("a  19")) == ["<s>", "a", "ĠĠ", "1", "9"]
    assert cut["gpt-2"].convert_ids_to_tokens(cut["gpt-2"].encode("a  19")) == ["<s>", "a", "Ġ", "Ġ", "19"]


@pytest.mark.parametrize("wrong", [{"pre": "tekken"}, {"kind": "llama"}])
def test_a_tokenizer_that_can_not_be_rebuilt_exactly_is_refused(
    wrong: dict[str, str], gguf_writer: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="expected byte-level BPE"):
        convert(gguf_writer(tmp_path / "x.gguf", **wrong), tmp_path / "made")


def test_a_file_without_its_vocabulary_is_refused() -> None:
    with pytest.raises(ModelError, match=r"incomplete \(no 'tokenizer\.ggml\.tokens'\)"):
        build_tokenizer({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2"}, "x.gguf")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"not a model at all, but long enough to look at")
    with pytest.raises(ModelError, match="not a readable GGUF file"):
        convert(file, tmp_path / "made")
