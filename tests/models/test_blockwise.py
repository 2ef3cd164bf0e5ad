"""Checkpoints of bitsandbytes and torchao: the weights that their owners' own functions make of the same files.

The owners are not needed to read a file; where they are not installed, what they would say is worked out by hand.
"""

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

from harness.core.errors import MissingDependencyError, ModelError
from harness.models.artifact import read_artifact
from harness.models.sources import resolve
from harness.models.tiny import make_tiny

LAYER = "model.layers.1.mlp.up_proj"
NF4 = [round(i / 7.5 - 1, 4) ** 3 for i in range(16)]  # any table will do: it stands in the file


def described(folder: Path, tensors: dict[str, Tensor], said: dict[str, Any], header: dict[str, str] | None = None) -> Path:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", **(header or {})})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": said}))
    return folder


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("dense"))


def bytes_of(said: dict[str, Any]) -> Tensor:
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


@pytest.fixture
def nf4(dense: Path, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A layer in bitsandbytes' nf4 with scales that are quantized too, packed code by code; and its weight, code by code."""
    folder = Path(shutil.copytree(dense, tmp_path / "nf4"))
    tensors = load_file(folder / "model.safetensors")
    weight = tensors.pop(f"{LAYER}.weight")
    n, size, inner_size, offset = weight.numel(), 24, 7, 0.5  # blocks that neither fill rows nor each other
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (n,), generator=generator)
    n_blocks = -(-n // size)
    inner = torch.randint(0, 256, (n_blocks,), generator=generator)
    inner_table = torch.linspace(-1, 1, 256)
    outer = torch.rand(-(-n_blocks // inner_size), generator=generator)
    values = [
        NF4[code] * (float(inner_table[inner[i // size]]) * float(outer[i // size // inner_size]) + offset)
        for i, code in enumerate(codes.tolist())
    ]
    said = {"quant_type": "nf4", "blocksize": size, "dtype": "float32", "shape": list(weight.shape)}
    tensors |= {
        f"{LAYER}.weight": (codes[::2] * 16 + codes[1::2]).to(torch.uint8)[:, None],
        f"{LAYER}.weight.absmax": inner.to(torch.uint8),
        f"{LAYER}.weight.quant_map": torch.tensor(NF4),
        f"{LAYER}.weight.nested_absmax": outer,
        f"{LAYER}.weight.nested_quant_map": inner_table,
        f"{LAYER}.weight.quant_state.bitsandbytes__nf4": bytes_of(
            {**said, "nested_blocksize": inner_size, "nested_dtype": "float32", "nested_offset": offset}
        ),
    }
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    described(folder, tensors, quantization)
    return folder, {f"{LAYER}.weight": torch.tensor(values).reshape(weight.shape)}


def test_codes_of_a_table_with_nested_scales_are_read_as_they_were_packed(nf4: tuple[Path, dict[str, Tensor]]) -> None:
    folder, expected = nf4
    found = read_artifact(folder)
    assert found.format == "bitsandbytes-nf4"
    assert list(found.packed_bits) == [LAYER]
    torch.testing.assert_close(found.tensors[f"{LAYER}.weight"], expected[f"{LAYER}.weight"], rtol=1e-6, atol=1e-7)
    n = expected[f"{LAYER}.weight"].numel()
    assert 4 < found.packed_bits[LAYER] / n < 4 + (8 * n / 24 + 32 * 300 + 8 * 300) / n


def test_codes_may_be_stored_as_any_type(nf4: tuple[Path, dict[str, Tensor]]) -> None:
    folder, expected = nf4
    rewrite(folder, lambda t: t.update({f"{LAYER}.weight": t[f"{LAYER}.weight"].view(-1).view(torch.bfloat16)[:, None]}))
    torch.testing.assert_close(read_artifact(folder).tensors[f"{LAYER}.weight"], expected[f"{LAYER}.weight"])


@pytest.fixture
def rows(dense: Path, tmp_path: Path) -> Path:
    """A layer in bitsandbytes' LLM.int8()."""
    folder = Path(shutil.copytree(dense, tmp_path / "int8"))
    tensors = load_file(folder / "model.safetensors")
    codes = torch.arange(tensors[f"{LAYER}.weight"].numel()).reshape(tensors[f"{LAYER}.weight"].shape) % 255 - 127
    tensors[f"{LAYER}.weight"] = codes.to(torch.int8)
    tensors[f"{LAYER}.SCB"] = torch.arange(1, len(codes) + 1) / 10
    tensors[f"{LAYER}.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    return described(folder, tensors, {"quant_method": "bitsandbytes", "load_in_8bit": True})


def test_rows_of_whole_numbers_are_shares_of_their_largest_value(rows: Path) -> None:
    made = read_artifact(rows).tensors[f"{LAYER}.weight"]
    assert made[3, 5].item() == pytest.approx(((3 * made.shape[1] + 5) % 255 - 127) / 127 * 0.4)
    assert made.abs().amax(1)[0].item() == pytest.approx(0.1)


def block_header(kind: str = "Int8Tensor", **data: Any) -> dict[str, str]:
    said = {"block_size": [2, 16], "dtype": {"_type": "torch.dtype", "_data": "bfloat16"}, "act_quant_kwargs": None, **data}
    return {f"{LAYER}.weight": json.dumps({"_type": kind, "_data": said}), "model.norm.weight": '{"_type": "torch.Tensor"}'}


@pytest.fixture
def blocks(dense: Path, tmp_path: Path) -> Callable[..., tuple[Path, Tensor]]:
    """A maker of a layer in torchao's blocks of 2 × 16, with a header of one's own; and its weight."""

    def make(header: dict[str, str]) -> tuple[Path, Tensor]:
        folder = Path(shutil.copytree(dense, tmp_path / "torchao"))
        tensors = load_file(folder / "model.safetensors")
        weight = tensors.pop(f"{LAYER}.weight")
        n_rows, n_columns = weight.shape
        codes = (torch.arange(weight.numel()).reshape(weight.shape) % 251 - 125).to(torch.int8)
        scales, zeros = torch.rand(n_rows // 2, n_columns // 16) / 50, torch.full((n_rows // 2, n_columns // 16), 3)
        tensors |= {f"{LAYER}._weight_qdata": codes, f"{LAYER}._weight_scale": scales}
        tensors[f"{LAYER}._weight_zero_point"] = zeros.to(torch.int8)
        expected = torch.empty_like(weight)
        for i in range(n_rows):
            for j in range(n_columns):
                expected[i, j] = (codes[i, j].float() - 3) * scales[i // 2, j // 16]
        return described(folder, tensors, {"quant_method": "torchao", "quant_type": {}}, header), expected.bfloat16()

    return make


def test_blocks_with_zero_points_are_rounded_once(blocks: Callable[..., tuple[Path, Tensor]], tmp_path: Path) -> None:
    folder, expected = blocks(block_header())
    found = read_artifact(folder)
    assert torch.equal(found.tensors[f"{LAYER}.weight"], expected)
    assert found.packed_bits[LAYER] == expected.numel() * 8 + expected.numel() // 32 * (32 + 8)
    plain = resolve(f"artifact:{folder}", None, tmp_path / "cache", lambda _: None)
    assert torch.equal(load_file(plain.folder / "model.safetensors")[f"{LAYER}.weight"], expected)


def test_what_the_files_header_says_is_part_of_what_is_cached(
    blocks: Callable[..., tuple[Path, Tensor]], tmp_path: Path
) -> None:
    folder, _ = blocks(block_header())
    first = resolve(f"artifact:{folder}", None, tmp_path / "cache", lambda _: None)
    shutil.rmtree(folder)
    again, _ = blocks(block_header(dtype={"_data": "float16"}))
    assert resolve(f"artifact:{again}", None, tmp_path / "cache", lambda _: None).weights_digest != first.weights_digest


# ------------------------------------------------------------------------------------------------ beside their owners


@pytest.mark.parametrize("kind", ["nf4", "nf4 nested", "fp4", "int8"])
def test_what_bitsandbytes_saved_is_what_its_own_function_makes_of_the_file(kind: str, tmp_path: Path) -> None:
    # its CPU kernel (0.50.2) dequantizes rows that are no multiple of the block otherwise than its own torch code does
    dense = make_tiny(tmp_path / "dense", hidden_size=64, intermediate_size=128, head_dim=16)
    owner = pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes to compare with it")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    is_4bit = kind != "int8"
    fields: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_quant_type": kind[:3]} if is_4bit else {"load_in_8bit": True}
    wanted = BitsAndBytesConfig(**fields, **({"bnb_4bit_use_double_quant": True} if "nested" in kind else {}))
    model = AutoModelForCausalLM.from_pretrained(dense, quantization_config=wanted, dtype=torch.float16, device_map="cpu")
    model.save_pretrained(tmp_path / "packed")
    stored, found = load_file(tmp_path / "packed" / "model.safetensors"), read_artifact(tmp_path / "packed")
    assert len(found.packed_bits) == 14
    for name in found.packed_bits:
        if is_4bit:
            beside = f"{name}.weight."
            parts = {key.removeprefix(beside): value for key, value in stored.items() if key.startswith(beside)}
            state = owner.functional.QuantState.from_dict(parts, device=torch.device("cpu"))
            theirs = owner.functional.dequantize_4bit(stored[f"{name}.weight"], state)
        else:
            theirs = owner.functional.int8_vectorwise_dequant(stored[f"{name}.weight"], stored[f"{name}.SCB"])
        assert torch.equal(found.tensors[f"{name}.weight"], theirs), name


@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "IntxWeightOnlyConfig", "Float8WeightOnlyConfig"])
def test_what_torchao_saved_is_what_its_own_tensors_dequantize_to(kind: str, dense: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="pip install torchao to compare with it")
    import torchao.quantization
    from transformers import AutoModelForCausalLM, TorchAoConfig

    fields = {"weight_dtype": torch.int4} if kind == "IntxWeightOnlyConfig" else {}
    wanted = TorchAoConfig(getattr(torchao.quantization, kind)(**fields))
    model = AutoModelForCausalLM.from_pretrained(dense, quantization_config=wanted, dtype=torch.bfloat16, device_map="cpu")
    model.save_pretrained(tmp_path)
    found = read_artifact(tmp_path)
    assert len(found.packed_bits) == 14
    for name in found.packed_bits:
        assert torch.equal(found.tensors[f"{name}.weight"], model.get_submodule(name).weight.dequantize()), name


# ------------------------------------------------------------------------------------------------ what can't be


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


STATE = f"{LAYER}.weight.quant_state.bitsandbytes__nf4"
RIGHT = {"blocksize": 24, "dtype": "float32", "shape": [64, 32], "nested_blocksize": 7, "nested_offset": 0.5}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.update({STATE: bytes_of({**RIGHT, "blocksize": 32})}), r"in blocks of 32 have \d+ scales"),
        (lambda t: t.update({STATE: bytes_of({**RIGHT, "shape": [64, 64]})}), r"holds 2048 codes for 4096 weights"),
        (lambda t: t.update({STATE: bytes_of({**RIGHT, "dtype": "int3"})}), r"dtype 'int3'"),
        (lambda t: t.update({STATE: bytes_of({})}), r"says shape \(\), blocksize None"),
        (lambda t: t.update({STATE: torch.tensor([123], dtype=torch.uint8)}), "does not hold what its config says"),
        (lambda t: t.pop(f"{LAYER}.weight.absmax"), r"has no weight\.absmax"),
        (lambda t: t.pop(f"{LAYER}.weight.nested_quant_map"), "does not hold what its config says"),
        (lambda t: t[f"{LAYER}.weight.nested_absmax"].fill_(float("nan")), "NaN or infinite"),
        (lambda t: t.pop(STATE), "none of its tensors is: its config is that of another checkpoint"),
    ],
)
def test_a_broken_layer_of_bitsandbytes_is_refused(
    nf4: tuple[Path, dict[str, Tensor]], change: Callable[[dict[str, Tensor]], Any], sentence: str
) -> None:
    rewrite(nf4[0], change)
    with pytest.raises(ModelError, match=sentence):
        read_artifact(nf4[0])


def test_rows_that_lie_as_a_kernel_wants_them_are_refused(rows: Path) -> None:
    rewrite(rows, lambda tensors: tensors[f"{LAYER}.weight_format"].fill_(2))
    with pytest.raises(ModelError, match="its rows are interleaved for a kernel"):
        read_artifact(rows)


@pytest.mark.parametrize(
    ("header", "error", "sentence"),
    [
        (
            block_header("Int4TilePackedTo4dTensor"),
            MissingDependencyError,
            r"only torchao knows: .*\(pip install torchao\), and name",
        ),
        (block_header(act_quant_kwargs={"_type": "x"}), ModelError, "quantizes inputs too"),
        (block_header(block_size=[3, 16]), ModelError, r"blocks of \[3, 16\] do not fill"),
        (block_header(block_size=[1, 16]), ModelError, "does not hold what its config says, torchao"),
        (block_header(dtype={"_data": "int8"}), ModelError, "its dtype is 'int8'"),
        ({}, ModelError, "the file's header says nothing of it"),
    ],
)
def test_torchaos_header_is_not_passed_over(
    header: dict[str, str], error: type[Exception], sentence: str, blocks: Callable[..., tuple[Path, Tensor]]
) -> None:
    folder, _ = blocks(header)
    with pytest.raises(error, match=sentence):
        read_artifact(folder)
