"""The word "displaced" is said of worlds where knowledge was displaced, and not of those where a prompt just helps."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from jaxtyping import TypeCheckError

from harness.core.verdicts import NotEstimable
from harness.stats.answer import Answer, answer, count_outcomes, gain_beyond, gain_of
from harness.stats.answer_clusters import recall_by_clusters, standard_error
from harness.stats.attribution import Recall, recall_of_lost

N = 1500


def world(
    rng: np.random.Generator, *, displaced: float, forgotten: float, helps: float, luck: float = 0.05
) -> dict[str, np.ndarray]:
    """Right or wrong in four runs: 45 % known, of all items so many lost one way or the other; the recovery brings displaced
    ones back and helps any wrong answer, in either model, with probability ``helps``. Others are guessed with ``luck``."""
    kind = rng.choice(4, N, p=[0.45 - displaced - forgotten, displaced, forgotten, 0.55])
    guess = {run: rng.random(N) < luck for run in ("dense", "compressed")}
    dense = (kind < 3) | guess["dense"]
    compressed = (kind == 0) | guess["compressed"]
    return {
        "dense": dense,
        "compressed": compressed,
        "recovered": compressed | (kind == 1) | (rng.random(N) < helps),
        "dense_recovered": dense | (rng.random(N) < helps),
    }


def answers(n_worlds: int, **how: float) -> list[Answer]:
    rng = np.random.default_rng(4)
    return [answer(**world(rng, **how), chance=0.0, level=0.95, rng=rng, n_resamples=100) for _ in range(n_worlds)]


def test_displaced_knowledge_is_found() -> None:
    made = answers(100, displaced=0.08, forgotten=0.04, helps=0.0, luck=0.0)
    assert np.mean([one.is_displaced for one in made]) > 0.95
    assert np.mean([one.attribution.share.value for one in made]) == pytest.approx(2 / 3, abs=0.05)
    assert np.mean([one.gap_closed.value for one in made]) == pytest.approx(2 / 3, abs=0.05)


def test_a_prompt_that_helps_everywhere_is_no_sign_of_displaced_knowledge() -> None:
    made = answers(200, displaced=0.0, forgotten=0.12, helps=0.15)
    assert all(one.gain.low > 0 for one in made)  # it does help
    assert np.mean([one.is_displaced for one in made]) <= 0.025 + 0.025
    assert {one.why_not for one in made if not one.is_displaced} <= {
        "lost items do not come back significantly more often than items that were never known",
        "the dense model gains as much by the same recovery, as far as these items can tell",
        "no more lost items come back than lucky guesses explain",
    }


def test_forgotten_knowledge_stays_forgotten() -> None:
    made = answers(100, displaced=0.0, forgotten=0.12, helps=0.0)
    assert not any(one.is_displaced for one in made)


def test_without_a_loss_or_without_the_control_there_is_not_enough_evidence() -> None:
    rng = np.random.default_rng(5)
    whole = world(rng, displaced=0.0, forgotten=0.0, helps=0.0)
    same = {**whole, "compressed": whole["dense"]}
    assert answer(**same, chance=0.0, level=0.95, rng=rng).why_not.startswith("no significant loss")
    uncontrolled = {**world(rng, displaced=0.1, forgotten=0.0, helps=0.0), "dense_recovered": None}
    made = answer(**uncontrolled, chance=0.0, level=0.95, rng=rng)
    assert isinstance(made.beyond, NotEstimable)
    assert not made.is_displaced


def test_the_gain_beyond_is_the_difference_of_both_gains() -> None:
    runs = world(np.random.default_rng(6), displaced=0.1, forgotten=0.0, helps=0.1)
    made = gain_beyond(runs["dense"], runs["dense_recovered"], runs["compressed"], runs["recovered"], 0.95)
    means = {name: right.mean() for name, right in runs.items()}
    expected = means["recovered"] - means["compressed"] - (means["dense_recovered"] - means["dense"])
    assert made.difference.value == pytest.approx(expected)
    assert made.difference.low < expected < made.difference.high
    assert made.dense_gain.value == pytest.approx(means["dense_recovered"] - means["dense"])


def test_other_items_are_refused() -> None:
    # where shapes are checked (`make test`), they are first
    with pytest.raises((ValueError, TypeCheckError), match=r"the same items three times are needed, got 3, 3, 2|bool\[2\]"):
        count_outcomes(np.ones(3, bool), np.ones(3, bool), np.ones(2, bool))


def test_nothing_is_displaced_where_luck_explains_what_comes_back():
    """40 lost items come back, 60 that the dense model had wrong came right by compressing: of 0 % nothing is said."""
    numbers = np.arange(1000)
    dense = numbers < 600
    compressed = ((numbers >= 150) & dense) | ((numbers >= 600) & (numbers < 660))
    recovered = compressed | (numbers < 40) | ((numbers >= 660) & (numbers < 662))
    made = answer(dense, compressed, recovered, dense, chance=0.0, level=0.95, rng=np.random.default_rng(0))
    assert made.gain.low > 0
    assert made.recall.p_value < 1e-6
    assert made.beyond.p_value < 1e-6
    assert made.attribution.share.value == 0
    assert not made.is_displaced
    assert made.why_not == "no more lost items come back than lucky guesses explain"


def relations(rng: np.random.Generator, n_relations: int, spread: float, **how: float) -> dict[str, np.ndarray]:
    """A world whose relations differ in what the recovery helps of them: ``spread`` of them by all, the others by nothing."""
    numbers = np.arange(N) % n_relations
    helped = np.isin(numbers, rng.choice(n_relations, round(spread * n_relations), replace=False))
    runs, other = world(rng, helps=0.0, **how), rng.random(N) < 0.4
    for side in ("compressed", "dense"):
        after = "recovered" if side == "compressed" else "dense_recovered"
        runs[after] = runs[after] | (helped & other)
    return {**runs, "clusters": numbers}


def test_where_relations_stand_for_others_every_interval_is_at_least_as_wide_and_a_gain_in_a_few_is_none() -> None:
    rng = np.random.default_rng(7)
    runs = relations(rng, 20, 0.15, displaced=0.0, forgotten=0.2)
    clusters = runs.pop("clusters")
    by_items = answer(**runs, chance=0.0, level=0.95, rng=np.random.default_rng(0))
    made = answer(**runs, chance=0.0, level=0.95, rng=np.random.default_rng(0), clusters=clusters)
    assert by_items.gain.low > 0 > made.gain.low
    for wide, narrow in (
        (made.gap_closed, by_items.gap_closed),
        (made.beyond.difference, by_items.beyond.difference),
        (made.beyond.dense_gain, by_items.beyond.dense_gain),
        (made.recall.lost, by_items.recall.lost),
        (made.recall.never, by_items.recall.never),
        (made.recall.difference, by_items.recall.difference),
    ):
        assert wide.value == pytest.approx(narrow.value)
        assert wide.low <= narrow.low
        assert wide.high >= narrow.high
    assert made.recall.p_value >= by_items.recall.p_value
    assert made.attribution.share.method == "cluster bootstrap"


def test_a_recovery_that_helps_relations_at_random_covers_its_gain_by_clusters_and_not_by_items() -> None:
    """The mean gain over all relations that there could be is what an interval is for."""
    rng, covered = np.random.default_rng(8), []
    for _ in range(300):
        helped = rng.random(20)[np.arange(N) % 20] < 0.3
        before = np.zeros(N, dtype=bool)
        after = helped & (rng.random(N) < 0.5)
        both = (gain_of(before, after, 0.95), gain_of(before, after, 0.95, np.arange(N) % 20))
        covered.append([one.low <= 0.15 <= one.high for one in both])
    by_items, by_clusters = np.mean(covered, axis=0)
    assert by_items < 0.5
    assert by_clusters > 0.9


def test_displaced_knowledge_is_found_by_relations_too() -> None:
    rng = np.random.default_rng(9)
    made = [
        answer(
            **world(rng, displaced=0.08, forgotten=0.04, helps=0.0, luck=0.0),
            chance=0.0,
            level=0.95,
            rng=rng,
            n_resamples=100,
            clusters=np.arange(N) % 30,
        )
        for _ in range(50)
    ]
    assert np.mean([one.is_displaced for one in made]) > 0.95
    assert np.mean([one.attribution.share.value for one in made]) == pytest.approx(2 / 3, abs=0.05)


def test_the_difference_of_recalls_has_the_standard_error_of_a_cluster_robust_regression() -> None:
    """r1 - r0 is the slope of "came back" on "was lost" among items that are wrong when compressed: statsmodels' CR1, whose
    other small-sample factor, (n - 1)/(n - k), is taken out."""
    rng = np.random.default_rng(10)
    runs = relations(rng, 25, 0.3, displaced=0.1, forgotten=0.1)
    clusters = runs["clusters"]
    wrong = ~runs["compressed"]
    lost = runs["dense"][wrong].astype(float)
    fitted = sm.OLS(runs["recovered"][wrong].astype(float), sm.add_constant(lost)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters[wrong]}, use_t=True
    )
    other = np.sqrt((wrong.sum() - 1) / (wrong.sum() - 2))
    group, rest = runs["dense"] & wrong, ~runs["dense"] & wrong
    back = runs["recovered"]
    influences = (
        np.where(group, back - back[group].mean(), 0) / group.sum() - np.where(rest, back - back[rest].mean(), 0) / rest.sum()
    )
    error, df = standard_error(influences, clusters)
    assert error == pytest.approx(fitted.bse[1] / other, rel=1e-9)
    assert df == 24


def recalls(rng: np.random.Generator, n_relations: int, n_holding: int) -> Recall | NotEstimable:
    """Relations differ in how much a recovery helps them, lost items like never known ones; only some have lost items."""
    clusters = np.repeat(np.arange(n_relations), 40)
    helps = rng.beta(0.3, 0.7, n_relations)[clusters]
    dense = rng.random(len(clusters)) < 0.5
    hit = np.isin(clusters, rng.choice(n_relations, n_holding, replace=False))
    compressed = dense & ~(hit & (rng.random(len(clusters)) < 0.6))
    recovered = compressed | (rng.random(len(clusters)) < helps)
    by_items = recall_of_lost(count_outcomes(dense, compressed, recovered), 0.95)
    assert isinstance(by_items, Recall)
    return recall_by_clusters(dense, compressed, recovered, clusters, by_items, level=0.95)


@pytest.mark.parametrize(("n_relations", "n_holding"), [(20, 5), (30, 5), (20, 20)])
def test_only_relations_with_lost_items_count_for_what_is_said_of_lost_items(n_relations: int, n_holding: int) -> None:
    """With the degrees of freedom of all relations the interval covers 84 % where 5 of 40 have any."""
    rng = np.random.default_rng(11)
    made = [recalls(rng, n_relations, n_holding) for _ in range(300)]
    assert np.mean([one.difference.low <= 0 <= one.difference.high for one in made]) > 0.9
    assert np.mean([one.p_value <= 0.025 for one in made]) < 0.04


def test_lost_items_of_one_relation_say_nothing_of_others() -> None:
    """Their sum of influences is 0, and so would be the standard error."""
    made = recalls(np.random.default_rng(12), 20, 1)
    assert isinstance(made, NotEstimable)
    assert made.reason == "all the lost items are of one relation, which says nothing of others"
