"""What choosing among prompts is worth: which were chosen, and the chooser beside each prompt alone, a random choice and the
best choice item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import chi2

from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.bootstrap import N_RESAMPLES, percentile_interval, resample_items
from harness.stats.intervals import wilson
from harness.stats.paired import tango_interval

Choices = Sequence[tuple[int, ...]]
"""Which prompt each item was asked behind, from 0: one number, or one a request."""


@dataclass(frozen=True, slots=True)
class Worth:
    """A chooser beside its controls on the same items, in fractions of these. ``over_best`` and ``over_random`` are paired.

    ``best``: the prompt that alone has most items right, picked on these very items: it is flattered, ``over_best`` strict.
    ``random``: the expected accuracy of drawing a prompt for each item. ``oracle``: an item counts as right where any prompt
    has it right, lucky guesses too: no way of choosing can have more. ``n_open``: the items on which the prompts differ; on
    all others no choice changes anything. ``open_right`` and ``open_random``: the shares of these that the chooser has right,
    and that a random choice would; undefined without any.
    """

    accuracy: Estimate
    best: int
    best_accuracy: Estimate
    over_best: Estimate
    random: Estimate
    over_random: Estimate
    oracle: Estimate
    n_open: int
    open_right: Estimate | NotEstimable
    open_random: float | NotEstimable


def count_choices(choices: Choices, n_prompts: int) -> Float[np.ndarray, " prompts"]:
    """How many items were asked behind each prompt; an item whose requests differ counts in equal parts.

    >>> count_choices([(0,), (2,), (0, 2)], 3).tolist()
    [1.5, 0.0, 1.5]
    """
    counts = np.zeros(n_prompts)
    for row in choices:
        for choice in row:
            counts[choice] += 1 / len(row)
    return counts


def worth_of_choosing(
    chooser: Bool[np.ndarray, " n"],
    singles: Bool[np.ndarray, "prompts items"],
    level: float,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
) -> Worth:
    """What a choice is worth, from which items are right with it and behind each prompt alone.

    Item bootstrap for what depends on several prompts at once, Wilson and Tango for the rest. Raises ValueError without items
    or prompts.

    >>> singles = np.array([[True, True, False, False], [False, False, True, False]])
    >>> made = worth_of_choosing(np.array([True, True, True, False]), singles, 0.95, np.random.default_rng(0))
    >>> made.best, made.over_best.value, made.random.value, made.oracle.value, made.n_open
    (0, 0.25, 0.375, 0.75, 3)
    """
    n_prompts, n_items = singles.shape
    if not n_prompts or not n_items or len(chooser) != n_items:
        raise ValueError(f"a choice of {len(chooser)} items and prompts of {singles.shape} are not of the same items")
    n_right: Int[np.ndarray, " n"] = singles.sum(0)
    best = int(singles.sum(1).argmax())  # of equal ones the first
    gained, lost = int((chooser & ~singles[best]).sum()), int((~chooser & singles[best]).sum())
    low, high = tango_interval(lost, gained, n_items, level)
    is_open = (n_right > 0) & (n_right < n_prompts)
    n_open = int(is_open.sum())
    nothing_open = NotEstimable("every prompt answers every item alike")
    share_right, is_right = np.repeat(np.arange(n_prompts + 1) / n_prompts, 2), np.tile([0.0, 1.0], n_prompts + 1)
    kinds = np.bincount(2 * n_right + chooser, minlength=2 * n_prompts + 2)
    drawn = resample_items(kinds, n_resamples, rng)
    return Worth(
        accuracy=wilson(int(chooser.sum()), n_items, level),
        best=best,
        best_accuracy=wilson(int(singles[best].sum()), n_items, level),
        over_best=Estimate((gained - lost) / n_items, -high, -low, level, "tango"),
        random=_mean(kinds, drawn, share_right, level),
        over_random=_mean(kinds, drawn, is_right - share_right, level),
        oracle=wilson(int((n_right > 0).sum()), n_items, level),
        n_open=n_open,
        open_right=wilson(int(chooser[is_open].sum()), n_open, level) if n_open else nothing_open,
        open_random=float(n_right[is_open].mean() / n_prompts) if n_open else nothing_open,
    )


def _mean(
    kinds: Int[np.ndarray, " kinds"],
    drawn: Int[np.ndarray, "resamples kinds"],
    values: Float[np.ndarray, " kinds"],
    level: float,
) -> Estimate:
    """The mean of a value that each kind of item has, with its bootstrap interval."""
    n_items = int(kinds.sum())
    made = percentile_interval(float(kinds @ values) / n_items, drawn @ values / n_items, level, "item bootstrap")
    if isinstance(made, NotEstimable):
        raise AssertionError("a mean is defined in every sample")
    return made


def category_of(choices: tuple[int, ...]) -> int:
    """An item's one prompt, or -1 where its requests were asked behind several."""
    return choices[0] if len(set(choices)) == 1 else -1


def p_same_choices(before: Sequence[int], now: Sequence[int]) -> float:
    """Marginal homogeneity of two choices for the same items: the p-value of "each prompt is chosen as often as before".

    Stuart-Maxwell's chi-square (Stuart 1955, Biometrika 42:412; Maxwell 1970): d' S^-1 d with d the differences of the two
    histograms and S their covariance under homogeneity, over categories that anything moved to or from. With two categories it
    is McNemar's without a correction. 1 where nothing moved.

    >>> p_same_choices([0, 0, 1], [0, 0, 1]), p_same_choices([0] * 30 + [1] * 30, [1] * 60) < 1e-6
    (1.0, True)
    """
    names = sorted(set(before) | set(now))
    place = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    for old, new in zip(before, now, strict=True):
        table[place[old], place[new]] += 1
    np.fill_diagonal(table, 0)
    moved = table + table.T
    d = table.sum(1) - table.sum(0)
    total, df = 0.0, 0
    for part in _connected(moved > 0):
        # within a part the differences add up to 0, so one of them says nothing
        kept = part[:-1]
        covariance = np.diag(moved[kept].sum(1)) - moved[np.ix_(kept, kept)]
        total += float(d[kept] @ np.linalg.solve(covariance, d[kept]))
        df += len(kept)
    return float(chi2.sf(total, df)) if df else 1.0


def _connected(linked: Bool[np.ndarray, "n n"]) -> list[list[int]]:
    """The categories in parts between which nothing moved; a part of one is left out."""
    left, parts = set(range(len(linked))), []
    while left:
        part, queue = set(), [min(left)]
        while queue:
            one = queue.pop()
            if one not in part:
                part.add(one)
                queue += np.flatnonzero(linked[one]).tolist()
        left -= part
        if len(part) > 1:
            parts.append(sorted(part))
    return parts
