"""Forgotten or displaced: all that is known about one recovery on one task, and whether the word "displaced" may be said.

It may when three things are significant: the compressed model gains, lost items come back more often than items that the
dense model never had right (r1 - r0), and the compressed model gains more than the dense model gains by the same recovery. A
prompt that helps everywhere raises r1 - r0 with luck, the gain beyond the dense model's never (GATE.md); one that harms the
dense model raises that, and wins nothing back. Where luck explains all that comes back, so that 0 % would be displaced, it is
not said either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.answer_clusters import (
    Numbers,
    gain_by_clusters,
    gap_closed_by_clusters,
    mean_by_clusters,
    p_no_loss_by_clusters,
    recall_by_clusters,
)
from harness.stats.attribution import Attribution, Recall, attribute, recall_of_lost
from harness.stats.bootstrap import N_RESAMPLES
from harness.stats.fieller import gap_closed
from harness.stats.paired import tango_interval
from harness.stats.recovery import count_losses_of_gain, loss_of_gain, p_recovery_worse

Right = Bool[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Beyond:
    """What the compressed model gains by a recovery beyond what the dense model gains by the same; ``p_value`` one-sided."""

    dense_gain: Estimate
    difference: Estimate
    p_value: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One recovery on one task. Gains are fractions of all items, positive where recovery helps.

    ``is_displaced``: all conditions hold at ``(1 - level)/2``, one-sided; ``why_not`` says which does not, empty otherwise.
    """

    n_items: int
    gain: Estimate
    gap_closed: Estimate | NotEstimable
    beyond: Beyond | NotEstimable
    attribution: Attribution | NotEstimable
    recall: Recall | NotEstimable
    is_displaced: bool
    why_not: str


def answer(
    dense: Right,
    compressed: Right,
    recovered: Right,
    dense_recovered: Right | None,
    *,
    chance: float,
    level: float,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    clusters: Numbers | None = None,
) -> Answer:
    """The answer from which items were right, the same items in the same order. ``dense_recovered`` is the control: the dense
    model under the same recovery; without it nothing is called displaced. ``clusters``: the number of each item's relation,
    where ten or more of them stand for others.

    >>> rng = np.random.default_rng(0)
    >>> dense = np.repeat([True, False], [600, 400])
    >>> compressed = dense & (np.arange(1000) >= 150)
    >>> recovered = dense & (np.arange(1000) >= 50)
    >>> made = answer(dense, compressed, recovered, dense, chance=0.0, level=0.95, rng=rng)
    >>> made.gain.value, round(made.gap_closed.value, 3), made.is_displaced
    (0.1, 0.667, True)
    >>> answer(dense, compressed, recovered, None, chance=0.0, level=0.95, rng=rng).why_not
    'the dense model was not measured on the same items under the same recovery'
    """
    table = count_outcomes(dense, compressed, recovered)
    recall = recall_of_lost(table, level)
    if clusters is not None and isinstance(recall, Recall):
        recall = recall_by_clusters(dense, compressed, recovered, clusters, recall, level=level)
    beyond: Beyond | NotEstimable = NotEstimable("the dense model was not measured on the same items under the same recovery")
    if dense_recovered is not None:
        beyond = gain_beyond(dense, dense_recovered, compressed, recovered, level, clusters=clusters)
    attribution = _attribution(
        dense, compressed, recovered, clusters, chance=chance, level=level, rng=rng, n_resamples=n_resamples
    )
    gain = gain_of(compressed, recovered, level, clusters)
    why_not = _why_not(gain, attribution, recall, beyond, (1 - level) / 2)
    return Answer(
        n_items=len(dense),
        gain=gain,
        gap_closed=gap_closed_of(dense, compressed, recovered, level, clusters),
        beyond=beyond,
        attribution=attribution,
        recall=recall,
        is_displaced=not why_not,
        why_not=why_not,
    )


def count_outcomes(dense: Right, compressed: Right, recovered: Right) -> Int[np.ndarray, "2 2 2"]:
    """Items by right (1) or wrong (0) when dense, compressed and recovered.

    >>> count_outcomes(*np.array([[True, True], [False, True], [True, True]]))[1].tolist()
    [[0, 1], [0, 1]]
    """
    return np.bincount(_kinds(dense, compressed, recovered), minlength=8).reshape(2, 2, 2)


def gain_of(before: Right, after: Right, level: float, clusters: Numbers | None = None) -> Estimate:
    """How much more is right after than before, as a fraction of all items, with Tango's interval; with the widest of Tango's,
    Wald's and the cluster t's where ``clusters`` stand for others.

    >>> gain_of(np.array([True, False]), np.array([True, True]), 0.95).value
    0.5
    """
    if clusters is not None:
        return gain_by_clusters(before, after, clusters, level)
    n_lost, n_gained = int((before & ~after).sum()), int((~before & after).sum())
    low, high = tango_interval(n_lost, n_gained, len(before), level)
    return Estimate((n_gained - n_lost) / len(before), -high, -low, level, "tango")


def gap_closed_of(
    dense: Right, compressed: Right, recovered: Right, level: float, clusters: Numbers | None = None
) -> Estimate | NotEstimable:
    """(recovered - compressed)/(dense - compressed) by Fieller, of items or of ``clusters`` that stand for others."""
    made = gap_closed(count_outcomes(dense, compressed, recovered), level)
    return made if clusters is None else gap_closed_by_clusters(dense, compressed, recovered, clusters, made, level=level)


def gain_beyond(
    dense: Right,
    dense_recovered: Right,
    compressed: Right,
    recovered: Right,
    level: float,
    *,
    clusters: Numbers | None = None,
) -> Beyond:
    """(recovered - compressed) - (dense recovered - dense), paired by item, with the p-value of "it is 0 or less".

    >>> yes, no = np.full(100, True), np.full(100, False)
    >>> made = gain_beyond(yes, yes, no, yes, 0.95)
    >>> made.dense_gain.value, made.difference.value, made.p_value < 1e-6
    (0.0, 1.0, True)
    """
    lost = count_losses_of_gain(dense, dense_recovered, compressed, recovered)
    # turned round: X is now the gain of the compressed model less that of the dense one
    difference, p_value = loss_of_gain(lost[::-1], level), float(p_recovery_worse(lost[::-1], 0.0))
    if clusters is not None:
        one, other = (
            after.astype(np.float64) - before for before, after in ((compressed, recovered), (dense, dense_recovered))
        )
        difference, p_value = mean_by_clusters(one - other, clusters, difference, p_value)
    return Beyond(gain_of(dense, dense_recovered, level, clusters), difference, p_value)


def _attribution(
    dense: Right,
    compressed: Right,
    recovered: Right,
    clusters: Numbers | None,
    *,
    chance: float,
    level: float,
    rng: np.random.Generator,
    n_resamples: int,
) -> Attribution | NotEstimable:
    if clusters is None:
        return attribute(count_outcomes(dense, compressed, recovered), chance, level, rng, n_resamples)
    if 2 * p_no_loss_by_clusters(dense, compressed, clusters) > 1 - level:
        return NotEstimable("no significant loss, for relations like these")
    _, places = np.unique(clusters, return_inverse=True)
    tables = np.bincount(8 * places + _kinds(dense, compressed, recovered), minlength=8 * (int(places.max()) + 1))
    return attribute(tables.reshape(-1, 2, 2, 2), chance, level, rng, n_resamples)


def _kinds(dense: Right, compressed: Right, recovered: Right) -> Int[np.ndarray, " n"]:
    if not len(dense) == len(compressed) == len(recovered) or not len(dense):
        raise ValueError(f"the same items three times are needed, got {len(dense)}, {len(compressed)}, {len(recovered)}")
    return np.asarray(4 * dense.astype(np.int64) + 2 * compressed + recovered)


def _why_not(
    gain: Estimate,
    attribution: Attribution | NotEstimable,
    recall: Recall | NotEstimable,
    beyond: Beyond | NotEstimable,
    alpha: float,
) -> str:
    """What keeps the word "displaced" from being said; empty where nothing does. The last one is for an estimate of 0 %, where
    compressing made as many items right as come back."""
    share = attribution.share if isinstance(attribution, Attribution) else attribution
    for part in (share, recall, beyond):
        if isinstance(part, NotEstimable):
            return part.reason
    fails = (
        (gain.low <= 0, "it does not make more items right, as far as these items can tell"),
        (
            isinstance(recall, Recall) and recall.p_value > alpha,
            "lost items do not come back significantly more often than items that were never known",
        ),
        (
            isinstance(beyond, Beyond) and beyond.p_value > alpha,
            "the dense model gains as much by the same recovery, as far as these items can tell",
        ),
        (
            isinstance(share, Estimate) and share.value <= 0,
            "no more lost items come back than lucky guesses explain",
        ),
    )
    return next((reason for is_failed, reason in fails if is_failed), "")
