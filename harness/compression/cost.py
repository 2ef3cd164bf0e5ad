"""What a compression cost: bits and bytes as a real format would store them, whatever dtype the harness computes in.

Codes are packed tightly; every group has a scale and, where the grid is asymmetric, a zero point of as many bits as a
code. Everything else (embeddings, norms, biases, the head) counts 16 bits a number, as dense models ship.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.core.digest import digest_json
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import Tensor, nn

DENSE_BITS = 16


def quantized_bits(n_rows: int, n_columns: int, *, bits: int, group_size: int, scale_bits: int, symmetric: bool) -> int:
    """The bits of one quantized weight matrix with scales and zero points; ``group_size`` 0 is one group a row.

    >>> quantized_bits(2, 128, bits=4, group_size=64, scale_bits=16, symmetric=True)
    1088
    """
    n_groups = n_rows * (n_columns // group_size if group_size else 1)
    return n_rows * n_columns * bits + n_groups * (scale_bits + (0 if symmetric else bits))


def sparse_bits(weight: Tensor) -> int:
    """The bits of a weight matrix of which only what is not zero is stored, and a bit a weight for where that is (the
    bitmask format of compressed-tensors); of the matrix as it is, where that is less."""
    n_all = weight.numel()
    return min(DENSE_BITS * int(weight.count_nonzero()) + n_all, DENSE_BITS * n_all)


def row_bits(weight: Tensor) -> int:
    """The bits of a weight matrix of which only rows with something in them are stored, and a bit a row for which."""
    n_rows, n_columns = weight.shape
    return DENSE_BITS * n_columns * int(weight.any(1).sum()) + n_rows


def record_of(
    module: nn.Module,
    layers: Iterable[nn.Linear],
    *,
    method: str,
    recipe: dict[str, Any],
    stability: Stability,
    compressed_bits: int,
    wall_s: float,
) -> CompressionRecord:
    """The record of a compression that stores ``layers``' weights in ``compressed_bits``; tied weights count once.

    Where nothing is compressed, ``effective_bits`` is what the dense weights ship in.
    """
    n_compressed = sum(layer.weight.numel() for layer in layers)
    n_total = sum(parameter.numel() for parameter in module.parameters())
    return CompressionRecord(
        method=method,
        recipe=recipe,
        recipe_digest=digest_json(recipe),
        stability=stability,
        effective_bits=compressed_bits / n_compressed if n_compressed else float(DENSE_BITS),
        size_bytes=-(-(compressed_bits + DENSE_BITS * (n_total - n_compressed)) // 8),
        n_weights_compressed=n_compressed,
        n_weights_total=n_total,
        wall_s=wall_s,
    )
