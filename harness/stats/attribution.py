"""Lost items, displaced or forgotten: what prompting brings back of what compression lost, with lucky guesses taken out.

Tables are n[dense, compressed, recovered], 1 = right. An item is *lost* where it was right when dense and is wrong when
compressed. Some lost items were lucky guesses: as many as gained ones (wrong when dense, right when compressed) say, which
can be nothing but luck. This mirror estimates and removes them (GATE.md; a textbook correction for guessing goes negative).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.special import gammaln

from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.bootstrap import N_RESAMPLES, percentile_interval, resample_clusters, resample_items
from harness.stats.intervals import wilson
from harness.stats.paired import mcnemar_midp


@dataclass(frozen=True, slots=True)
class Attribution:
    """Shares of all items, guesses taken out: ``displaced`` (won back) and ``forgotten``; ``share`` is phi, the displaced
    share of what was truly lost, in [0, 1]. The two can come out slightly negative."""

    displaced: Estimate | NotEstimable
    forgotten: Estimate | NotEstimable
    share: Estimate | NotEstimable


@dataclass(frozen=True, slots=True)
class Recall:
    """How often recovery makes right what was wrong: ``lost`` (r1) of the items that the dense model had right, ``never``
    (r0) of those that it had wrong, their ``difference``, and the p-value of "lost ones come back no more often"."""

    lost: Estimate
    never: Estimate
    difference: Estimate
    p_value: float


@dataclass(frozen=True, slots=True)
class LostItems:
    """Lost items by what brings them back: ``displaced`` prompting alone (or both), ``relearned`` only training added
    weights, ``unrecovered`` neither."""

    displaced: int
    relearned: int
    unrecovered: int


def attribute(
    counts: Int[np.ndarray, "*clusters 2 2 2"],
    chance: float,
    level: float,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
) -> Attribution | NotEstimable:
    """Displaced, forgotten and phi with percentile intervals, items (or, with one table a cluster, clusters) drawn again.

    NotEstimable where the loss of compressing is not significant (two-sided mid-p at 1 - level), or where the dense model
    has everything right, so that no mirror is left. Phi, its interval too, is cut to [0, 1].

    >>> table = np.array([[[440, 20], [30, 10]], [[60, 90], [50, 300]]])
    >>> made = attribute(table, 0.0, 0.95, np.random.default_rng(0))
    >>> round(made.displaced.value, 4), round(made.forgotten.value, 4), round(made.share.value, 2)
    (0.0774, 0.0326, 0.7)
    """
    if not 0 <= chance < 1:
        raise ValueError(f"a chance of at least 0 and below 1 is needed, got {chance}")
    whole: Int[np.ndarray, "2 2 2"] = counts.reshape(-1, 2, 2, 2).sum(0)
    n_lost, n_gained = int(whole[1, 0].sum()), int(whole[0, 1].sum())
    if 2 * float(mcnemar_midp(n_lost, n_gained)) > 1 - level:
        return NotEstimable(f"no significant loss: {n_lost} items lost and {n_gained} gained by compressing")
    displaced, forgotten = mirror_shares(whole, chance)
    if np.isnan(displaced):
        return NotEstimable("the dense model has every item right, so lucky guesses can't be estimated")
    if counts.ndim == 4:
        method, drawn = "cluster bootstrap", resample_clusters(counts.reshape(-1, 8), n_resamples, rng)
    else:
        method, drawn = "item bootstrap", resample_items(whole.ravel(), n_resamples, rng)
    again = mirror_shares(drawn.reshape(-1, 2, 2, 2), chance)
    return Attribution(
        percentile_interval(float(displaced), again[0], level, method),
        percentile_interval(float(forgotten), again[1], level, method),
        _share(displaced, forgotten, again, level, method),
    )


def mirror_shares(
    counts: Real[np.ndarray, "*batch 2 2 2"], chance: float
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Displaced and forgotten as shares of all items; NaN where they can't be estimated.

    nu = 1 - (A_dense - g)/(1 - g) is the share that the dense model does not know, w the rate at which such items are right
    when compressed, at most g(1-g) for a chance g > 0. forgotten = ((n100 - n010)/N)/(1 - g - w), displaced =
    ((n101 - n011)/N - forgotten w)/(1 - g). NaN where nu = 0 (no mirror) or 1 - g - w = 0.

    >>> displaced, forgotten = mirror_shares(np.array([[[440, 0], [0, 0]], [[60, 80], [0, 420]]]), 0.0)
    >>> float(displaced), float(forgotten)
    (0.08, 0.06)
    """
    n = np.asarray(counts, dtype=np.float64)
    shares = n / n.sum((-1, -2, -3), keepdims=True)
    unknown = 1 - np.clip((shares[..., 1, :, :].sum((-1, -2)) - chance) / (1 - chance), 0, 1)
    highest = chance * (1 - chance) if chance > 0 else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        lucky = np.clip(shares[..., 0, 1, :].sum(-1) / unknown, 0, highest)
        forgotten = (shares[..., 1, 0, 0] - shares[..., 0, 1, 0]) / (1 - chance - lucky)
        displaced = ((shares[..., 1, 0, 1] - shares[..., 0, 1, 1]) - forgotten * lucky) / (1 - chance)
    # 1e-9: rounding leaves a trace of 1 - A_dense where it is 0.
    undefined = (unknown < 1e-9) | (1 - chance - lucky < 1e-9)
    return np.where(undefined, np.nan, displaced), np.where(undefined, np.nan, forgotten)


def recall_of_lost(counts: Int[np.ndarray, "2 2 2"], level: float) -> Recall | NotEstimable:
    """r1 = n101/(n100 + n101) beside r0 = n001/(n000 + n001), and whether r1 is significantly larger.

    A prompt that helps everywhere raises both, so only their difference speaks for displaced knowledge. One-sided mid-p of
    Fisher's exact test; the difference has Newcombe's interval (1998, Statistics in Medicine 17:873, method 10).

    >>> made = recall_of_lost(np.array([[[440, 20], [30, 10]], [[60, 90], [50, 300]]]), 0.95)
    >>> round(made.lost.value, 3), round(made.never.value, 3), round(made.difference.low, 3), made.p_value < 1e-40
    (0.6, 0.043, 0.473, True)
    """
    (still_never, back_never), (still_lost, back_lost) = counts[:, 0].tolist()
    n_lost, n_never = still_lost + back_lost, still_never + back_never
    if n_lost == 0 or n_never == 0:
        which = "lost by compressing" if n_lost == 0 else "wrong both when dense and when compressed"
        return NotEstimable(f"no item was {which}")
    lost, never = wilson(back_lost, n_lost, level), wilson(back_never, n_never, level)
    value = lost.value - never.value
    down = np.hypot(lost.value - lost.low, never.high - never.value)
    up = np.hypot(lost.high - lost.value, never.value - never.low)
    difference = Estimate(value, float(value - down), float(value + up), level, "newcombe")
    return Recall(lost, never, difference, _fisher_midp(back_lost, n_lost, back_never, n_never))


def split_lost(
    dense: Bool[np.ndarray, " n"],
    compressed: Bool[np.ndarray, " n"],
    prompted: Bool[np.ndarray, " n"],
    tuned: Bool[np.ndarray, " n"],
) -> LostItems:
    """The lost items, raw counts, by whether prompting or only trained weights (LoRA) make them right again.

    >>> right = np.array([True, False])
    >>> split_lost(np.full(2, True), np.full(2, False), right, np.full(2, True))
    LostItems(displaced=1, relearned=1, unrecovered=0)
    """
    lost = dense & ~compressed
    return LostItems(
        displaced=int((lost & prompted).sum()),
        relearned=int((lost & ~prompted & tuned).sum()),
        unrecovered=int((lost & ~prompted & ~tuned).sum()),
    )


def _fisher_midp(n_back: int, n_items: int, other_back: int, other_items: int) -> float:
    """P(more than ``n_back``) + P(exactly)/2 of the first group's, with all totals of the 2 x 2 table fixed."""
    total, everything = n_back + other_back, n_items + other_items
    possible = np.arange(n_back, min(total, n_items) + 1)
    log_p = (
        _log_choose(n_items, possible)
        + _log_choose(other_items, total - possible)
        - _log_choose(everything, np.array([total]))
    )
    p = np.exp(log_p)
    return min(1.0, float(p.sum() - p[0] / 2))


def _log_choose(n: int, k: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _share(
    displaced: Float[np.ndarray, ""],
    forgotten: Float[np.ndarray, ""],
    again: tuple[Float[np.ndarray, " resamples"], Float[np.ndarray, " resamples"]],
    level: float,
    method: str,
) -> Estimate | NotEstimable:
    total = displaced + forgotten
    if total <= 0:
        return NotEstimable("nothing is left of the loss once lucky guesses are taken out")
    totals = again[0] + again[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = np.where(totals > 0, np.clip(again[0] / totals, 0, 1), np.nan)
    return percentile_interval(float(np.clip(displaced / total, 0, 1)), replicates, level, method)
