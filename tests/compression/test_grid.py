"""Round-to-nearest: close, the same everywhere, and what compressed-tensors does."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import pairwise

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import assume, example, given, settings
from torch import Tensor

from harness.compression.grid import fit_grid, round_to_nearest
from harness.core.errors import CompressionError

BITS = (2, 3, 4, 8)
GROUP = 16

values = st.floats(2**-7, 8, width=32) | st.floats(-8, -(2**-7), width=32) | st.just(0.0)
matrices = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.sampled_from([GROUP, 2 * GROUP])), elements=values)


def digest_of_results() -> str:
    """The digest of many matrices rounded in all ways; what is rounded comes from SHA-256, not from a generator."""
    raw = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(24 * 192 // 16))
    uniform = torch.from_numpy(np.frombuffer(raw, np.uint16).astype(np.float32).reshape(24, 192) / 65536 - 0.5)
    weight = uniform * uniform * uniform * torch.tensor([[2.0**exponent] for exponent in range(-14, 10)])
    state = hashlib.sha256()
    for bits in BITS:
        for group_size in (0, 32, 96):
            for symmetric in (True, False):
                for dtype in ("float16", "float32"):
                    rounded = round_to_nearest(
                        weight, bits=bits, group_size=group_size, symmetric=symmetric, scale_dtype=dtype
                    )
                    state.update(rounded.numpy().tobytes())
    return state.hexdigest()


def spread(weight: Tensor, group_size: int = GROUP) -> Tensor:
    """The reach of each weight's group, as a matrix of the weight's shape."""
    grouped = weight.reshape(weight.shape[0], -1, group_size)
    return grouped.abs().amax(-1, keepdim=True).expand_as(grouped).reshape(weight.shape)


def largest_error_allowed(weight: Tensor, bits: int, symmetric: bool) -> Tensor:
    grouped = weight.reshape(weight.shape[0], -1, GROUP)
    low, high = grouped.amin(-1, keepdim=True).clamp(max=0), grouped.amax(-1, keepdim=True).clamp(min=0)
    step = 2 * torch.maximum(-low, high) / (2**bits - 1) if symmetric else (high - low) / (2**bits - 1)
    rounded_off = (2**bits - 1) * (2.0**-12 if symmetric else 2.0**-11)  # float16 keeps a scale to 2^-11 of itself
    bound = step * (0.5 + rounded_off) * 1.001 + 1e-6
    return bound.expand_as(grouped).reshape(weight.shape)


@example(np.float32([[-8.0, 0.01902935] + [0.0] * 30]), 8, False)  # the scale is rounded down, and zero with the low end
@given(matrices, st.sampled_from(BITS), st.booleans())
def test_no_weight_moves_by_more_than_half_a_step(matrix: np.ndarray, bits: int, symmetric: bool) -> None:
    weight = torch.from_numpy(matrix)
    assume(bool(((spread(weight) == 0) | (spread(weight) >= 0.1)).all()))  # smaller scales are subnormal in float16
    error = (round_to_nearest(weight, bits=bits, group_size=GROUP, symmetric=symmetric) - weight).abs()
    assert bool((error <= largest_error_allowed(weight, bits, symmetric)).all())


@given(matrices, st.booleans())
def test_more_bits_are_never_worse_than_what_fewer_bits_guarantee(matrix: np.ndarray, symmetric: bool) -> None:
    weight = torch.from_numpy(matrix)
    assume(bool(((spread(weight) == 0) | (spread(weight) >= 0.1)).all()))
    for fewer, more in pairwise(BITS):
        error = (round_to_nearest(weight, bits=more, group_size=GROUP, symmetric=symmetric) - weight).abs()
        assert bool((error <= largest_error_allowed(weight, fewer, symmetric)).all())


@pytest.mark.parametrize("symmetric", [True, False])
def test_more_bits_lower_the_squared_error_of_ordinary_weights(symmetric: bool) -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    errors = [
        float((round_to_nearest(weight, bits=bits, group_size=32, symmetric=symmetric) - weight).square().mean())
        for bits in BITS
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 100 * errors[-1]


@given(matrices, st.sampled_from(BITS), st.booleans())
def test_rounding_again_on_the_same_grid_changes_nothing(matrix: np.ndarray, bits: int, symmetric: bool) -> None:
    weight = torch.from_numpy(matrix)
    grid = fit_grid(weight, bits=bits, group_size=GROUP, symmetric=symmetric)
    once = grid.weights(grid.codes(weight))
    assert torch.equal(grid.weights(grid.codes(once)), once)


@given(matrices, st.sampled_from(BITS), st.booleans())
def test_zeros_stay_zero(matrix: np.ndarray, bits: int, symmetric: bool) -> None:
    weight = torch.from_numpy(matrix).index_fill(0, torch.tensor([0]), 0.0)
    rounded = round_to_nearest(weight, bits=bits, group_size=GROUP, symmetric=symmetric)
    assert torch.equal(rounded[weight == 0], torch.zeros(int((weight == 0).sum())))


@given(matrices, st.sampled_from(BITS), st.booleans())
def test_codes_are_whole_and_fit_their_bits(matrix: np.ndarray, bits: int, symmetric: bool) -> None:
    grid = fit_grid(torch.from_numpy(matrix), bits=bits, group_size=GROUP, symmetric=symmetric)
    codes = grid.codes(torch.from_numpy(matrix))
    for whole in (codes, grid.zeros):
        assert torch.equal(whole, whole.round())
        assert int(whole.min()) >= -(2 ** (bits - 1))
        assert int(whole.max()) <= 2 ** (bits - 1) - 1
    assert torch.equal(grid.scales.half().float(), grid.scales)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("symmetric", "scale_dtype"), [(True, "float16"), (True, "float32"), (False, "float32")])
@settings(max_examples=50)
@given(matrix=matrices)
def test_equals_compressed_tensors_exactly(matrix: np.ndarray, bits: int, symmetric: bool, scale_dtype: str) -> None:
    weight = torch.from_numpy(matrix)
    assume(bool((spread(weight) >= 0.1).all()))  # of an all-zero group the library stores another scale
    args = QuantizationArgs(
        num_bits=bits,
        type="int",
        symmetric=symmetric,
        strategy="group",
        group_size=GROUP,
        scale_dtype=torch.float16 if scale_dtype == "float16" else None,
    )
    grouped = weight.reshape(weight.shape[0], -1, GROUP)
    scale, zero = calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)
    theirs = fake_quantize(weight, scale, zero, args)
    ours = round_to_nearest(weight, bits=bits, group_size=GROUP, symmetric=symmetric, scale_dtype=scale_dtype)
    assert torch.equal(ours, theirs)


def test_a_scale_beyond_float16_is_refused() -> None:
    with pytest.raises(CompressionError, match="does not fit float16"):
        round_to_nearest(torch.full((1, GROUP), 1e6), bits=4, group_size=GROUP, symmetric=True)


RESULTS = "2519ac35b617a8fa09ec6bf91e7d122d438ae3461226752ffa1ddf35635b118e"
"""Of ``digest_of_results`` on every machine; another digest means that stored and committed results no longer hold."""


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_change_no_bit(n_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        assert digest_of_results() == RESULTS
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_processors_change_no_bit(capability: str) -> None:
    code = f"import runpy; print(runpy.run_path({__file__!r})['digest_of_results']())"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == RESULTS
