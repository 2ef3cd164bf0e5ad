"""Timing sides against each other: each once a round, in an order drawn anew, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from harness.analysis.sides import Bench
from harness.core.latency import Phase

Clock = Callable[[], float]


@dataclass(slots=True)
class Rounds:
    """Runs ``work`` (a name and what is timed, ready to be called again and again) round by round and keeps the seconds.

    ``settle`` is called before the clock starts and before it stops: on a GPU, work goes on when a call is back.
    """

    work: Mapping[str, Callable[[], object]]
    rng: np.random.Generator
    clock: Clock = time.perf_counter
    settle: Callable[[], None] = lambda: None
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __call__(self) -> None:
        """One round."""
        names = list(self.work)
        for place in self.rng.permutation(len(names)).tolist():
            self.settle()
            started = self.clock()
            self.work[names[place]]()
            self.settle()
            self.seconds.setdefault(names[place], []).append(self.clock() - started)

    def forget(self) -> None:
        """Leave out what was timed so far: the first round warms up."""
        self.seconds.clear()


def contexts(n_rows: int, n_tokens: int, n_known: int, rng: np.random.Generator, device: str) -> torch.Tensor:
    """Tokens drawn evenly, [rows, tokens]: what a pass costs does not depend on which they are."""
    return torch.from_numpy(rng.integers(n_known, size=(n_rows, n_tokens))).to(device)


def prepare(
    sides: Sequence[Bench], phase: Phase, *, batch: int, context_tokens: int, new_tokens: int, rng: np.random.Generator
) -> Rounds:
    """Rounds of one phase: of prefill, whole passes over contexts; of decoding, ``new_tokens`` tokens behind contexts that
    were read before, which each run forgets again."""
    model = sides[0].model
    ids = contexts(batch, context_tokens, model.module.get_input_embeddings().num_embeddings, rng, model.device)  # type: ignore[operator]
    work = {
        one.side.name: (lambda one=one: one.prefill(ids)) if phase == "prefill" else _decoding(one, ids, new_tokens)
        for one in sides
    }
    return Rounds(work, rng, settle=torch.cuda.synchronize if model.device.startswith("cuda") else lambda: None)


def _decoding(one: Bench, ids: torch.Tensor, new_tokens: int) -> Callable[[], None]:
    tokens, cache = one.prefill(ids)
    n_before = cache.get_seq_length()

    def run() -> None:
        one.decode(tokens, cache, new_tokens)
        cache.crop(n_before)

    return run


def n_rounds(round_s: float, *, budget_s: float, least: int = 7, most: int = 41) -> int:
    """How many rounds fit into a budget.

    >>> n_rounds(1.0, budget_s=20), n_rounds(60.0, budget_s=20), n_rounds(0.001, budget_s=20)
    (20, 7, 41)
    """
    return min(most, max(least, int(budget_s / max(round_s, 1e-9))))
