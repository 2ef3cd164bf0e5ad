"""Packed weights come back as their owners' own code gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file
from torch import Tensor

from harness.models.packings import pack_gptq, unpack_awq, unpack_compressed, unpack_gptq, unpack_words

Pack = Callable[[Tensor, int], Tensor]
FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures" / "autogptq"


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("n_columns", [1, 32, 33, 96])
def test_codes_come_out_of_words_as_they_went_in(bits: int, n_columns: int, pack_by_bits: Pack) -> None:
    codes = torch.randint(0, 2**bits, (5, n_columns), generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpack_words(pack_by_bits(codes, bits), bits, n_columns), codes)


def test_three_bits_of_which_ten_lie_in_a_word_are_known_by_their_width() -> None:
    codes = torch.arange(100).reshape(1, 100) % 8
    words = torch.tensor([[sum(int(codes[0, i + k]) << (3 * k) for k in range(10)) for i in range(0, 100, 10)]])
    assert words.shape[1] == 10 == -(-100 * 3 // 32)  # the two ways take the same room here: the dense one is meant
    words = torch.cat([words, words], 1)  # 200 codes: 19 words dense, 20 loose
    assert torch.equal(unpack_words(words.to(torch.int32), 3, 200), torch.cat([codes, codes], 1))


def test_a_row_that_can_not_hold_its_codes_is_refused() -> None:
    with pytest.raises(ValueError, match="3 words a row can't hold 64 codes of 4 bits: expected 8"):
        unpack_words(torch.zeros(1, 3, dtype=torch.int32), 4, 64)


@pytest.mark.parametrize("folder", ["w4g32sym", "w4g32actasym", "w8g64sym"])
def test_auto_gptqs_own_checkpoints_come_back_as_its_own_layers_apply_them(folder: str) -> None:
    if not FIXTURES.is_dir():
        pytest.skip("the checkpoints that auto-gptq wrote are not on this machine")
    (file,) = (FIXTURES / folder).glob("gptq_model-*.safetensors")
    packed, expected = load_file(file), load_file(FIXTURES / folder / "reference-dequantized.safetensors")
    assert expected
    for name, weight in expected.items():
        qweight, qzeros, scales, g_idx = (packed[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx"))
        came = unpack_gptq(qweight, qzeros, scales, g_idx, bits=int(folder[1]), zero_offset=1)
        # read off through a product with the identity matrix, in float32: far below the half ulp of fp16 that is 2^-11
        torch.testing.assert_close(came, weight, rtol=2**-20, atol=1e-7)


@pytest.mark.parametrize("folder", ["w4g32sym", "w4g32actasym", "w8g64sym"])
def test_codes_are_packed_into_the_words_that_auto_gptq_wrote(folder: str) -> None:
    if not FIXTURES.is_dir():
        pytest.skip("the checkpoints that auto-gptq wrote are not on this machine")
    (file,) = (FIXTURES / folder).glob("gptq_model-*.safetensors")
    packed, bits = load_file(file), int(folder[1])
    layers = [name.removesuffix(".qweight") for name in packed if name.endswith(".qweight")]
    assert layers
    for name in layers:
        qweight, qzeros, scales = (packed[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales"))
        codes = unpack_words(qweight.t(), bits, packed[f"{name}.g_idx"].numel())
        zeros = unpack_words(qzeros, bits, scales.shape[1]) + 1
        ours = pack_gptq(codes, zeros.t(), bits=bits, zero_offset=1)
        assert all(torch.equal(one, other) for one, other in zip(ours, (qweight, qzeros), strict=True))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("zero_offset", [0, 1])
def test_gptq_layers_are_packed_bit_after_bit_and_come_back(bits: int, zero_offset: int, pack_by_bits: Pack) -> None:
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (32, 64), generator=generator)
    zeros = torch.randint(zero_offset, 2**bits, (32, 4), generator=generator)
    qweight, qzeros = pack_gptq(codes, zeros, bits=bits, zero_offset=zero_offset)
    assert torch.equal(qweight, pack_by_bits(codes, bits).t())
    assert torch.equal(qzeros, pack_by_bits(zeros.t() - zero_offset, bits))
    came = unpack_gptq(qweight, qzeros, torch.ones(4, 32), None, bits=bits, zero_offset=zero_offset)
    assert torch.equal(came, (codes - zeros.repeat_interleave(16, 1)).float())


def test_a_zero_point_that_would_be_stored_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="a zero point is 0, the lowest that can be stored is 1"):
        pack_gptq(torch.zeros(32, 32).long(), torch.zeros(32, 1).long(), bits=4, zero_offset=1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_layers_of_every_width_with_inputs_in_any_group(bits: int, pack_by_bits: Pack) -> None:
    generator = torch.Generator().manual_seed(bits)
    n_in, n_out, n_groups = 64, 32, 4
    codes = torch.randint(0, 2**bits, (n_out, n_in), generator=generator)
    zeros = torch.randint(1, 2**bits, (n_groups, n_out), generator=generator)
    scales = torch.rand(n_groups, n_out, generator=generator).half()
    group_of = torch.randint(0, n_groups, (n_in,), generator=generator)
    expected = (codes - zeros.t()[:, group_of]).half() * scales.t()[:, group_of]
    qweight = pack_by_bits(codes, bits).t()
    for offset in (0, 1):
        came = unpack_gptq(qweight, pack_by_bits(zeros - offset, bits), scales, group_of, bits=bits, zero_offset=offset)
        assert torch.equal(came, expected)
    neighbours = torch.arange(n_in) // 16
    came = unpack_gptq(qweight, pack_by_bits(zeros, bits), scales, None, bits=bits, zero_offset=0)
    assert torch.equal(came, (codes - zeros.t()[:, neighbours]).half() * scales.t()[:, neighbours])


def test_awq_layers_with_their_columns_interleaved() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (64, 32), generator=generator)  # inputs × outputs, as AutoAWQ has them
    zeros = torch.randint(0, 16, (2, 32), generator=generator)
    scales = torch.rand(2, 32, generator=generator).half()

    def pack(values: Tensor) -> Tensor:
        """AutoAWQ's loop: nibble i of a word holds column order[i] of its eight."""
        words = torch.zeros(values.shape[0], values.shape[1] // 8, dtype=torch.int64)
        for column in range(words.shape[1]):
            for i, other in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
                words[:, column] |= values[:, column * 8 + other] << (i * 4)
        return (words - ((words >> 31) << 32)).to(torch.int32)

    came = unpack_awq(pack(codes), pack(zeros), scales)
    groups = torch.arange(64) // 32
    assert torch.equal(came, ((codes - zeros[groups]).half() * scales[groups]).t())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, None])
def test_compressed_tensors_layers_come_back_as_by_the_library(bits: int, symmetric: bool, group_size: int | None) -> None:
    generator = torch.Generator().manual_seed(bits)
    n_groups = 96 // group_size if group_size else 1
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    state = {
        "weight": torch.randn(40, 96, generator=generator).half(),
        "weight_scale": (torch.rand(40, n_groups, generator=generator) * 2 / 2**bits + 0.01).half(),
        "weight_zero_point": torch.zeros(40, n_groups, dtype=torch.int8)
        if symmetric
        else torch.randint(low, high, (40, n_groups), generator=generator, dtype=torch.int8),
    }
    arguments = QuantizationArgs(
        num_bits=bits, symmetric=symmetric, strategy="group" if group_size else "channel", group_size=group_size
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    library = BaseCompressor.get_value_from_registry("pack-quantized")
    stored = library.compress(state, scheme)
    expected = library.decompress(stored, scheme)["weight"]
    came = unpack_compressed(
        stored["weight_packed"], stored["weight_scale"], stored.get("weight_zero_point"), None, bits=bits, n_in=96
    )
    assert came.dtype == expected.dtype == torch.float16
    assert torch.equal(came, expected)
