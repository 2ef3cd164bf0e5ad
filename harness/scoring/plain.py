"""The reference path: each request fed by itself, padded on the right, through the model's own forward pass.

Slow and free of assumptions about the architecture: causal models never look right, so padding can't change a score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from harness.models.loaded import LoadedModel
from harness.scoring.encode import Encoded
from harness.scoring.plan import plan_batches
from harness.scoring.readout import TokenReading, read_logits

BUDGET_TOKENS = 512
"""Logits are made at every position here: 512 x 50,000 in float32 are 100 MB."""


def score_plain(
    model: LoadedModel,
    requests: Sequence[Encoded],
    *,
    budget_tokens: int = BUDGET_TOKENS,
    done: Callable[[Sequence[int]], None] | None = None,
) -> list[TokenReading]:
    """What each request's scored tokens read, in order. ``done`` gets each batch's positions."""
    readings: dict[int, TokenReading] = {}
    fed = [len(request.tokens) - 1 for request in requests]
    for batch in plan_batches(fed, budget_tokens=budget_tokens):
        width = fed[batch[0]]
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        for row, position in enumerate(batch):
            ids[row, : fed[position]] = torch.tensor(requests[position].tokens[:-1])
        with torch.inference_mode():
            logits = model.module(input_ids=ids.to(model.device), use_cache=False).logits  # [rows, width, vocabulary]
            for row, position in enumerate(batch):
                n, tokens = requests[position].n_scored, requests[position].tokens
                read = read_logits(logits[row, fed[position] - n : fed[position]], range(n), tokens[-n:])
                readings[position] = read
        if done:
            done(batch)
    return [readings[position] for position in range(len(requests))]
