"""Round-to-nearest on a uniform grid: the same bits on every machine.

Only elementwise IEEE operations and min/max in float32, so neither threads, vector width nor device can change a bit.
(Divisors are tensors, never Python numbers: CUDA multiplies by the reciprocal of a number.) The grid is that of
compressed-tensors' integer formats: codes in [-2^(b-1), 2^(b-1) - 1], weight = (code - zero) * scale, halves to even.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from harness.core.errors import CompressionError

_SCALE_DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Grid:
    """The points that the weights of each group can take: integer ``codes``, held in float32, times the group's scale."""

    bits: int
    scales: Float[Tensor, "rows groups 1"]
    zeros: Float[Tensor, "rows groups 1"]

    def codes(self, weight: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows groups group"]:
        """The codes of the points nearest to some weights."""
        codes = (_grouped(weight, self.scales.shape[1]) / self.scales + self.zeros).round()
        return codes.clamp(*_code_range(self.bits))

    def weights(self, codes: Float[Tensor, "rows groups group"]) -> Float[Tensor, "rows columns"]:
        """The weights that some codes stand for."""
        return ((codes - self.zeros) * self.scales).flatten(1)


def round_to_nearest(
    weight: Float[Tensor, "rows columns"], *, bits: int, group_size: int, symmetric: bool, scale_dtype: str = "float16"
) -> Float[Tensor, "rows columns"]:
    """A weight matrix on the nearest points of its grid (see ``fit_grid``), dequantized, in float32.

    The error is at most half a step, and at a group's ends what float16 rounded off its scale more: (2^bits - 1) * 2^-12
    steps on a symmetric grid, twice that on an asymmetric one, whose codes reach over the group from one end.

    >>> round_to_nearest(torch.tensor([[-3.5, 1.0, 2.0, 0.4]]), bits=3, group_size=0, symmetric=True)
    tensor([[-4.,  1.,  2.,  0.]])
    """
    grid = fit_grid(weight, bits=bits, group_size=group_size, symmetric=symmetric, scale_dtype=scale_dtype)
    return grid.weights(grid.codes(weight))


def fit_grid(
    weight: Float[Tensor, "rows columns"],
    *,
    bits: int,
    group_size: int,
    symmetric: bool,
    scale_dtype: str = "float16",
    computed_in: torch.dtype = torch.float32,
) -> Grid:
    """The grid that just reaches over each group's weights and 0; ``group_size`` 0 makes one group of each row.

    ``computed_in``: in which dtype the reach is divided (llm-compressor: the weights' own).

    Scales are rounded to ``scale_dtype`` first, as a file stores them, so that zeros and codes fit the scales in use.
    A group whose scale would round to 0 gets scale 1: its weights become 0. Raises CompressionError for a scale that
    ``scale_dtype`` can't hold.
    """
    grouped = _grouped(weight, weight.shape[1] // group_size if group_size else 1).to(computed_in)
    lowest_code, highest_code = _code_range(bits)
    low = grouped.amin(-1, keepdim=True).clamp(max=0.0)
    high = grouped.amax(-1, keepdim=True).clamp(min=0.0)
    if symmetric:
        reach = torch.maximum(low.neg(), high)
        scales = _stored(reach / torch.full_like(reach, (2**bits - 1) / 2), scale_dtype)
        return Grid(bits, scales, torch.zeros_like(scales))
    reach = high - low
    scales = _stored(reach / torch.full_like(reach, 2**bits - 1), scale_dtype)
    return Grid(bits, scales, (lowest_code - low.float() / scales).round().clamp(lowest_code, highest_code))


def _grouped(weight: Float[Tensor, "rows columns"], n_groups: int) -> Float[Tensor, "rows groups group"]:
    return weight.float().reshape(weight.shape[0], n_groups, -1)


def _code_range(bits: int) -> tuple[int, int]:
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _stored(scales: Float[Tensor, "rows groups 1"], dtype: str) -> Float[Tensor, "rows groups 1"]:
    rounded = scales.to(_SCALE_DTYPES[dtype]).float()
    if not rounded.isfinite().all():
        raise CompressionError(
            f"a scale of {float(scales.max()):.3g} does not fit {dtype}: weights this large are broken, "
            "or the recipe needs scale_dtype = 'float32'."
        )
    return torch.where(rounded == 0, torch.ones_like(rounded), rounded)
