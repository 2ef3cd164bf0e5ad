"""Displaced or forgotten: closed forms, simulated worlds whose truth is known, SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from harness.core.verdicts import Estimate, NotEstimable
from harness.stats.attribution import attribute, mirror_shares, recall_of_lost, split_lost

KEPT, DISPLACED, FORGOTTEN, NEVER, LEARNED = 0.40, 0.08, 0.06, 0.44, 0.02
TABLES = st.lists(st.integers(0, 500), min_size=8, max_size=8).map(lambda cells: np.array(cells).reshape(2, 2, 2))


def simulated(rng: np.random.Generator, runs: int, n: int, chance: float, agree: float) -> np.ndarray:
    """Tables of worlds in which what is not known is guessed, in all three runs alike with probability ``agree``."""
    state = rng.choice(5, size=(runs, n), p=[KEPT, DISPLACED, FORGOTTEN, NEVER, LEARNED])
    knows = {"d": state <= 2, "c": state == 0, "r": np.isin(state, [0, 1, 4])}
    common = rng.random((runs, n)) < chance
    answers = {}
    for run, known in knows.items():
        guess = np.where(rng.random((runs, n)) < agree, common, rng.random((runs, n)) < chance)
        answers[run] = known | guess
    code = 4 * answers["d"] + 2 * answers["c"] + answers["r"]
    return np.stack([(code == kind).sum(1) for kind in range(8)], axis=1).reshape(runs, 2, 2, 2)


def test_without_guesses_and_gains_the_shares_are_the_raw_ones() -> None:
    table = np.array([[[440, 20], [0, 0]], [[60, 80], [0, 400]]])
    displaced, forgotten = mirror_shares(table, 0.0)
    assert (float(displaced), float(forgotten)) == pytest.approx((0.08, 0.06))


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("agree", [0.0, 0.5, 0.9])
def test_the_mirror_finds_the_truth_whether_guesses_agree_or_not(chance: float, agree: float) -> None:
    tables = simulated(np.random.default_rng(1), 400, 2000, chance, agree)
    displaced, forgotten = mirror_shares(tables, chance)
    assert float(displaced.mean()) == pytest.approx(DISPLACED, abs=0.01)
    assert float(forgotten.mean()) == pytest.approx(FORGOTTEN, abs=0.01)
    share = np.median(displaced / (displaced + forgotten))
    assert share == pytest.approx(DISPLACED / (DISPLACED + FORGOTTEN), abs=0.03)


def test_the_raw_share_would_call_guesses_displaced() -> None:
    tables = simulated(np.random.default_rng(2), 200, 2000, 0.5, 0.0)
    raw = (tables[:, 1, 0, 1] / tables[:, 1, 0].sum(1)).mean()
    displaced, forgotten = mirror_shares(tables, 0.5)
    truth = DISPLACED / (DISPLACED + FORGOTTEN)
    assert abs(raw - truth) > 2 * abs(np.median(displaced / (displaced + forgotten)) - truth)


@pytest.mark.parametrize("chance", [0.0, 0.25])
def test_the_bootstrap_covers_the_displaced_share(chance: float) -> None:
    rng = np.random.default_rng(3)
    covered, truth = [], DISPLACED / (DISPLACED + FORGOTTEN)
    for table in simulated(rng, 200, 2000, chance, 0.5):
        made = attribute(table, chance, 0.95, rng, n_resamples=400)
        assert not isinstance(made, NotEstimable)
        assert isinstance(made.share, Estimate)
        covered.append(made.share.low <= truth <= made.share.high)
    assert np.mean(covered) >= 0.88


def test_clusters_that_move_together_widen_the_interval() -> None:
    rng = np.random.default_rng(4)
    mixed = np.stack([np.array([[[22, 1], [1, 1]], [[3, 4], [0, 18]]])] * 40)
    apart = mixed.copy()
    apart[:20, 1, 0], apart[20:, 1, 0] = [6, 1], [0, 7]
    by_items = attribute(apart.sum(0), 0.0, 0.95, rng)
    by_clusters = attribute(apart, 0.0, 0.95, rng)
    assert not isinstance(by_items, NotEstimable)
    assert not isinstance(by_clusters, NotEstimable)
    assert isinstance(by_items.share, Estimate)
    assert isinstance(by_clusters.share, Estimate)
    assert by_items.share.value == by_clusters.share.value
    assert by_clusters.share.high - by_clusters.share.low > 1.3 * (by_items.share.high - by_items.share.low)


@given(TABLES, st.sampled_from([0.0, 0.1, 0.25, 0.5]))
def test_a_share_is_between_0_and_1_or_not_estimable(table: np.ndarray, chance: float) -> None:
    if not table.sum():
        return
    made = attribute(table, chance, 0.95, np.random.default_rng(0), n_resamples=200)
    if isinstance(made, NotEstimable) or isinstance(made.share, NotEstimable):
        return
    assert 0 <= made.share.low <= made.share.high <= 1
    assert 0 <= made.share.value <= 1


def test_what_cannot_be_estimated_says_why() -> None:
    rng = np.random.default_rng(0)
    no_loss = attribute(np.array([[[400, 5], [40, 5]], [[20, 30], [10, 490]]]), 0.0, 0.95, rng)
    assert isinstance(no_loss, NotEstimable)
    assert "no significant loss: 50 items lost and 45 gained" in no_loss.reason
    all_right = attribute(np.array([[[0, 0], [0, 0]], [[30, 40], [0, 400]]]), 0.0, 0.95, rng)
    assert isinstance(all_right, NotEstimable)
    assert "every item right" in all_right.reason
    with pytest.raises(ValueError, match="below 1"):
        attribute(np.ones((2, 2, 2), dtype=int), 1.0, 0.95, rng)


def test_the_same_generator_gives_the_same_interval() -> None:
    table = np.array([[[440, 20], [30, 10]], [[60, 90], [50, 300]]])
    assert attribute(table, 0.0, 0.95, np.random.default_rng(5)) == attribute(table, 0.0, 0.95, np.random.default_rng(5))


# ------------------------------------------------------------------------------------------------ r1 beside r0


def test_the_difference_of_recalls_is_newcombes_and_its_p_fishers_midp() -> None:
    table = np.array([[[200, 30], [9, 9]], [[40, 20], [9, 300]]])
    made = recall_of_lost(table, 0.95)
    assert not isinstance(made, NotEstimable)
    low, high = confint_proportions_2indep(20, 60, 30, 230, method="newcomb", compare="diff", alpha=0.05)
    assert (made.difference.low, made.difference.high) == pytest.approx((low, high), abs=1e-9)
    exact = stats.fisher_exact([[20, 40], [30, 200]], alternative="greater").pvalue
    assert made.p_value == pytest.approx(exact - stats.hypergeom(290, 50, 60).pmf(20) / 2)


def test_a_prompt_that_helps_everywhere_shows_no_difference() -> None:
    rng = np.random.default_rng(6)
    p_values = []
    for _ in range(2000):
        back_lost, back_never = rng.binomial(80, 0.2), rng.binomial(400, 0.2)
        made = recall_of_lost(
            np.array([[[400 - back_never, back_never], [5, 5]], [[80 - back_lost, back_lost], [5, 400]]]), 0.95
        )
        assert not isinstance(made, NotEstimable)
        p_values.append(made.p_value)
    assert 0.03 <= np.mean(np.array(p_values) < 0.05) <= 0.06


def test_recall_of_nothing_is_not_a_number() -> None:
    for table, words in (
        (np.array([[[5, 5], [1, 1]], [[0, 0], [3, 3]]]), "lost"),
        (np.array([[[0, 0], [1, 1]], [[4, 4], [3, 3]]]), "wrong both"),
    ):
        made = recall_of_lost(table, 0.95)
        assert isinstance(made, NotEstimable)
        assert words in made.reason


@given(st.integers(0, 2**32 - 1))
def test_every_lost_item_is_displaced_relearned_or_unrecovered(seed: int) -> None:
    dense, compressed, prompted, tuned = np.random.default_rng(seed).random((4, 60)) < 0.5
    made = split_lost(dense, compressed, prompted, tuned)
    assert made.displaced + made.relearned + made.unrecovered == int((dense & ~compressed).sum())
    assert made.unrecovered == int((dense & ~compressed & ~prompted & ~tuned).sum())
