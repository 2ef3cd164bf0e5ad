"""The reference path: each request fed by itself, padded on the right, through the model's own forward pass.

Slow and free of assumptions about the architecture: causal models never look right, so padding can't change a score. A soft
root of embeddings is fed again before every row; keys and values of its own stand before it as a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.models.loaded import LoadedModel
from harness.models.roots import SoftRoot
from harness.scoring.encode import Encoded
from harness.scoring.memory import Halving
from harness.scoring.plan import plan_batches
from harness.scoring.readout import TokenReading, read_logits
from harness.scoring.rooted import calling_behind

BUDGET_TOKENS = 512
"""Logits are made at every position here: 512 x 50,000 in float32 are 100 MB."""


def score_plain(
    model: LoadedModel,
    requests: Sequence[Encoded],
    *,
    budget_tokens: int = BUDGET_TOKENS,
    halving: Halving | None = None,
    done: Callable[[Sequence[int]], None] | None = None,
    root: SoftRoot | None = None,
) -> list[TokenReading]:
    """What each request's scored tokens read, in order. ``done`` gets each batch's positions; ``root`` stands before all."""
    halving = halving or Halving()
    readings: dict[int, TokenReading] = {}
    for batch in plan_batches([_fed(request) for request in requests], budget_tokens=budget_tokens):
        chosen = [requests[position] for position in batch]
        with torch.inference_mode():
            made = halving.feed(chosen, lambda rows: len(rows) * max(map(_fed, rows)), partial(_score_batch, model, root))
        readings.update(zip(batch, made, strict=True))
        if done:
            done(batch)
    return [readings[position] for position in range(len(requests))]


def _score_batch(model: LoadedModel, root: SoftRoot | None, requests: Sequence[Encoded]) -> list[TokenReading]:
    ids = torch.zeros((len(requests), max(map(_fed, requests))), dtype=torch.long)
    for row, request in enumerate(requests):
        ids[row, : _fed(request)] = torch.tensor(request.tokens[:-1])
    logits = _logits(model, ids.to(model.device), root)  # [rows, width, vocabulary]
    made = []
    for row, request in enumerate(requests):
        n, fed = request.n_scored, _fed(request)
        made.append(read_logits(logits[row, fed - n : fed], range(n), request.tokens[-n:]))
    return made


def _logits(model: LoadedModel, ids: Tensor, root: SoftRoot | None) -> Tensor:
    """The logits at the ids' own places."""
    module: Any = model.module
    with calling_behind(module, ids, root) as (asked, n_before):
        logits: Tensor = module(**asked).logits
    return logits[:, n_before:]


def _fed(request: Encoded) -> int:
    """How many tokens are fed: the last one is only read."""
    return len(request.tokens) - 1
