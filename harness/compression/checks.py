"""What a recipe and its layers must be before any weight is touched, each with the sentence for when they are not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from harness.core.errors import CompressionError, ConfigError

if TYPE_CHECKING:
    from torch import nn

QUANTIZED_BITS = (2, 3, 4, 8)
PATTERNS = {"unstructured": "0:0", "2:4": "2:4"}
"""Where pruned weights may lie, and llm-compressor's word for it."""

_SMALLEST_LISTED_GROUP = 16


def check_choice(method: str, field: str, value: object, allowed: Collection[object]) -> None:
    """Raise ConfigError unless ``value`` is one of ``allowed`` and of its type (True is not 1).

    >>> check_choice("rtn", "bits", 5, (4, 8))
    Traceback (most recent call last):
    harness.core.errors.ConfigError: rtn: bits = 5 is not possible: expected one of 4, 8.
    """
    if not any(value == choice and type(value) is type(choice) for choice in allowed):
        listed = ", ".join(str(choice) for choice in allowed)
        raise ConfigError(f"{method}: {field} = {value!r} is not possible: expected one of {listed}.")


def check_count(method: str, field: str, value: object, least: int) -> None:
    """Raise ConfigError unless ``value`` is a whole number of at least ``least``."""
    if type(value) is not int or value < least:
        raise ConfigError(f"{method}: {field} = {value!r} is not possible: expected a whole number of at least {least}.")


def check_share(method: str, field: str, value: object) -> None:
    """Raise ConfigError unless ``value`` is a number between 0 and 1, both left out."""
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise ConfigError(f"{method}: {field} = {value!r} is not possible: expected a number between 0 and 1.")


def check_sparsity(method: str, sparsity: object) -> None:
    """Raise ConfigError unless ``sparsity`` is a number in [0, 1).

    >>> check_sparsity("magnitude", 30)
    Traceback (most recent call last):
    harness.core.errors.ConfigError: magnitude: sparsity = 30 is not possible: expected a share in [0, 1), 0.3 for 30 %.
    """
    if type(sparsity) not in (int, float) or not 0 <= sparsity < 1:  # type: ignore[operator]
        raise ConfigError(f"{method}: sparsity = {sparsity!r} is not possible: expected a share in [0, 1), 0.3 for 30 %.")


def check_pattern(method: str, pattern: object, sparsity: object) -> None:
    """Raise ConfigError unless ``pattern`` is known and ``sparsity`` is one that it can have.

    >>> check_pattern("wanda", "2:4", 0.6)
    Traceback (most recent call last):
    harness.core.errors.ConfigError: wanda: sparsity = 0.6 is not possible with pattern = '2:4': expected 0.5.
    """
    check_choice(method, "pattern", pattern, tuple(PATTERNS))
    check_sparsity(method, sparsity)
    if pattern == "2:4" and sparsity != 0.5:
        raise ConfigError(f"{method}: sparsity = {sparsity!r} is not possible with pattern = '2:4': expected 0.5.")


def check_layers(method: str, layers: Mapping[str, nn.Linear], group_size: int, multiple: int = 1) -> None:
    """Raise CompressionError unless there are layers, ``group_size`` (0: whole rows) and ``multiple`` divide all their widths,
    and every weight is finite."""
    if not layers:
        raise CompressionError(f"{method}: there is no linear layer to compress: the scope or pattern matches nothing.")
    for name, layer in layers.items():
        if group_size and layer.in_features % group_size:
            raise CompressionError(
                f"{method}: group_size = {group_size} does not divide the {layer.in_features} input features of {name!r}: "
                f"take one of {', '.join(map(str, fitting_group_sizes(one.in_features for one in layers.values())))}, "
                "or 0 for one scale a row."
            )
        if layer.in_features % multiple:
            raise CompressionError(
                f"{method}: pattern = '2:4' needs widths that are multiples of {multiple}, {name!r} has {layer.in_features} "
                "input features: take pattern = 'unstructured'."
            )
        check_finite(method, name, layer)


def check_finite(method: str, name: str, layer: nn.Linear) -> None:
    """Raise CompressionError when a layer's weight holds NaN or infinity."""
    n_broken = layer.weight.numel() - int(layer.weight.isfinite().sum())
    if n_broken:
        raise CompressionError(
            f"{method}: layer {name!r} has {n_broken} NaN or infinite weights: nothing was changed; "
            "get the model's weights again, or load them in a dtype that holds them."
        )


def fitting_group_sizes(widths: Iterable[int]) -> list[int]:
    """The group sizes that divide every width, smallest first; tiny ones (scales would outweigh weights) are left out.

    >>> fitting_group_sizes([576, 1536])
    [16, 24, 32, 48, 64, 96, 192]
    """
    common = math.gcd(*widths)
    return [size for size in range(min(_SMALLEST_LISTED_GROUP, common), common + 1) if common % size == 0]
