"""What scorers do alike: refuse readings and models that look ahead, read each place once, tell how far they are, sum up,
refuse broken scores."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.core.errors import ConfigError, ModelError, ScoreError
from harness.models.loaded import LoadedModel
from harness.scoring import Progress, Request, Score
from harness.scoring.readout import TokenReading, read_logits

AGREE_NATS = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.25}
"""How near two ways of computing the same log-probabilities must be on a probe, or within ten times of what batching alone
does to them."""

_PROBE_TOKENS = 6


def check_readings(groups: Sequence[Sequence[Request]], known: Collection[str], family: str) -> None:
    """Raise ConfigError when a request asks for a reading that the family does not have."""
    for reading in {request.reading for group in groups for request in group}:
        if reading not in known:
            raise ConfigError(
                f"a model of family {family!r} can't score the reading {reading!r}: expected {' or '.join(map(repr, known))}; "
                "take another task or another model."
            )


def refuse_soft_roots(model: LoadedModel, what: str) -> None:
    """Raise ConfigError where something would leave out what a recovery lets stand before every input."""
    if model.soft_roots is not None:
        raise ConfigError(
            f"{what} can't be done behind a soft prompt for a model of family {model.family!r}: expected a model without one; "
            "take another recovery or another task."
        )


def check_looks_left(model: LoadedModel, logits_of: Callable[[Tensor], Tensor], window: int) -> None:
    """Raise ModelError when what a model says of a token changes with the tokens behind it: it would see each answer before it
    is asked for one. ``logits_of`` feeds ids [rows, width] from left to right and gives [rows, width, vocabulary].

    transformers loads some of these without a word: BertLMHeadModel without ``is_decoder`` in its config is one.
    """
    n_known = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    width = min(_PROBE_TOKENS, window)
    n_same = width // 2
    rows = torch.tensor([[(start * (i >= n_same) + 17 * i + 11) % n_known for i in range(width)] for start in (101, 203)])
    with torch.inference_mode():
        together, alone = (logits_of(ids.to(model.device))[:, :n_same].float().log_softmax(-1) for ids in (rows, rows[:1]))
    moved_nats = float((together[0] - together[1]).abs().max())
    noise_nats = float((together[0] - alone[0]).abs().max())
    if moved_nats > max(AGREE_NATS[model.dtype], 10 * noise_nats):
        raise ModelError(
            f"{type(model.module).__name__} in {model.folder} looks ahead: what it says after {n_same} tokens changes by "
            f"{moved_nats:.2g} nats with those behind them, so it would see each answer before it is asked. Expected a model "
            "that reads from left to right; correct its config.json (is_decoder), or try another release of transformers."
        )


def read_places(
    logits: Float[Tensor, "places vocabulary"], places: Int[np.ndarray, " reads"], tokens: Int[np.ndarray, " reads"]
) -> TokenReading:
    """Read each token off its place's row of logits, which stand in the order of the distinct places. Uses logits up."""
    _, rows = np.unique(places, return_inverse=True)
    return read_logits(logits, rows.tolist(), tokens.tolist())


def sum_up(
    reading: TokenReading, starts: Int[np.ndarray, " requests"], groups: Sequence[Sequence[Request]], model: LoadedModel
) -> list[list[Score]]:
    """The scores of all requests in their groups, from all their tokens' readings and where those of each request start.

    Raises ScoreError when one is not finite.
    """
    if not len(starts):
        return [[] for _ in groups]
    logliks = np.add.reduceat(reading.logprobs_nats, starts)
    greedy = np.logical_and.reduceat(reading.is_top, starts)
    n_tokens = np.diff(starts, append=len(reading.is_top))
    leads = np.minimum.reduceat(reading.leads_nats, starts)
    columns = (logliks.tolist(), greedy.tolist(), n_tokens.tolist(), leads.tolist())
    scores = iter([Score(*found) for found in zip(*columns, strict=True)])
    made = [[(request, next(scores)) for request in group] for group in groups]
    broken = next(
        ((request, score) for group in made for request, score in group if not math.isfinite(score.loglik_nats)), None
    )
    if broken:
        raise broken_score(broken[0], broken[1].loglik_nats, model)
    return [[score for _, score in group] for group in made]


def broken_score(request: Request, loglik_nats: float, model: LoadedModel) -> ScoreError:
    """The error of a score that is not finite."""
    return ScoreError(
        f"the log-likelihood of {request.continuation[:60]!r} after {request.context[-60:]!r} is {loglik_nats}: the weights "
        f"of {type(model.module).__name__} or its dtype ({model.dtype}) are broken; check the compression, or use float32."
    )


class PartsDone:
    """Tells how many groups are done. ``parts`` names each part's group: a group is done when all of its parts are."""

    def __init__(self, progress: Progress | None, n_groups: int, parts: Iterable[int]) -> None:
        self._progress, self._n_groups, self._left = progress, n_groups, Counter(parts)
        self._n_done = n_groups - len(self._left)

    def tell(self, groups: Iterable[int]) -> None:
        """A part of each of these groups is done."""
        told = Counter(groups)
        self._left.subtract(told)
        self._n_done += sum(self._left[group] == 0 for group in told)
        if self._progress:
            self._progress(self._n_done, self._n_groups)


class GroupsDone:
    """Tells how many groups are done. ``last`` has for each group how much of all that is fed must be fed for it."""

    def __init__(self, progress: Progress | None, last: Sequence[int]) -> None:
        self._progress, self._last = progress, sorted(last)

    def tell(self, n_fed: int) -> None:
        """So much is fed."""
        if self._progress:
            self._progress(bisect_left(self._last, n_fed + 1), len(self._last))
