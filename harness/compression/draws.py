"""Random numbers by the name of their generator: the same ones for the same name, whatever was drawn elsewhere before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from harness.core.digest import digest_text


def random_mask(shape: Sequence[int], n_chosen: int, name: str) -> Bool[Tensor, ...]:
    """A mask with ``n_chosen`` elements drawn without replacement."""
    draws = _generator(name).random(math.prod(shape))
    mask = torch.zeros(draws.size, dtype=torch.bool)
    mask[torch.from_numpy(np.argsort(draws, kind="stable")[:n_chosen].copy())] = True
    return mask.reshape(tuple(shape))


def normal(shape: Sequence[int], name: str) -> Float[Tensor, ...]:
    """Numbers of a normal distribution around 0 with standard deviation 1, in float32."""
    return torch.from_numpy(_generator(name).standard_normal(tuple(shape), dtype=np.float32))


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int(digest_text(name), 16)))
