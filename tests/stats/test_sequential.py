"""Early verdicts: e-values by exact enumeration, their error however one stops by simulation, intervals, rounds, the state."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special

from harness.stats.paired import tango_z, wald_z
from harness.stats.recompression import Spread
from harness.stats.sequential import (
    BETS,
    ROUND_PERCENTS,
    ROUND_SHARES,
    Rule,
    anytime_interval,
    anytime_limit,
    anytime_p,
    log_e_fail,
    log_e_pass,
    p_fail,
    p_pass,
    round_ends,
)

SIDES = {"fail": log_e_fail, "pass": log_e_pass}


def every_outcome(n: int) -> tuple[np.ndarray, np.ndarray]:
    lost, gained = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    inside = lost + gained <= n
    return lost[inside], gained[inside]


def probabilities(lost: np.ndarray, gained: np.ndarray, n: int, p_lost: float, p_gained: float) -> np.ndarray:
    same = n - lost - gained
    choices = special.gammaln(n + 1) - sum(special.gammaln(k + 1) for k in (lost, gained, same))
    return np.exp(
        choices + special.xlogy(lost, p_lost) + special.xlogy(gained, p_gained) + special.xlogy(same, 1 - p_lost - p_gained)
    )


def e_by_hand(items: list[int], margin: float, side: str) -> float:
    sign = 1 if side == "fail" else -1
    largest = 1 / (1 + sign * margin)
    return float(np.mean([math.prod(1 + sign * bet * largest * (x - margin) for x in items) for bet in BETS]))


# ------------------------------------------------------------------------------------------------ e-values


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("margin", [0.005, 0.01, 0.05])
@pytest.mark.parametrize("flips", [0.0, 0.01, 0.1])
def test_an_e_value_expects_one_on_the_boundary_and_no_more_inside(side: str, margin: float, flips: float) -> None:
    n = 60
    lost, gained = every_outcome(n)
    e = np.exp(SIDES[side](lost, gained, n - lost - gained, margin))
    assert float(e @ probabilities(lost, gained, n, flips / 2 + margin, flips / 2)) == pytest.approx(1, abs=1e-10)
    inside = margin / 2 if side == "fail" else 2 * margin
    assert float(e @ probabilities(lost, gained, n, flips / 2 + inside, flips / 2)) < 1


@given(st.integers(1, 12), st.floats(0, 1), st.floats(0, 1), st.floats(-0.5, 0.5), st.sampled_from(["fail", "pass"]))
def test_an_e_value_expects_at_most_one_wherever_its_hypothesis_is_true(
    n: int, flips: float, share_lost: float, margin: float, side: str
) -> None:
    p_lost = flips * share_lost
    p_gained = flips - p_lost
    loss = p_lost - p_gained
    margin = max(margin, loss) if side == "fail" else min(margin, loss)  # "at most", "at least" the margin is lost
    lost, gained = every_outcome(n)
    assume(abs(margin) < 0.99)
    e = np.exp(SIDES[side](lost, gained, n - lost - gained, margin))
    assert float(e @ probabilities(lost, gained, n, p_lost, p_gained)) <= 1 + 1e-9


def test_a_pool_of_unequal_tasks_expects_no_more_than_one_where_their_mean_loss_is_the_margin() -> None:
    margin, sizes, losses = 0.01, np.array([10, 90, 300]), np.array([0.3, 0.0, 1 / 300])
    assert losses @ sizes / sizes.sum() == pytest.approx(margin)
    for side in (1, -1):
        largest = 1 / (1 + side * margin)
        means = [math.prod((1 + side * bet * largest * (losses - margin)) ** sizes) for bet in BETS]
        assert np.mean(means) <= 1


@given(st.lists(st.sampled_from([-1, 0, 0, 0, 1]), max_size=60), st.floats(-0.4, 0.4), st.sampled_from(["fail", "pass"]))
def test_counts_say_all_whatever_the_order_of_the_items(items: list[int], margin: float, side: str) -> None:
    counts = items.count(1), items.count(-1), items.count(0)
    assert math.exp(float(SIDES[side](*counts, margin))) == pytest.approx(e_by_hand(items, margin, side), rel=1e-9)
    assert math.exp(float(SIDES[side](*counts, margin))) == pytest.approx(e_by_hand(items[::-1], margin, side), rel=1e-9)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 5000), st.floats(-0.5, 0.5))
def test_fail_rises_with_lost_items_falls_with_gained_ones_and_pass_mirrors_it(b: int, c: int, z: int, margin: float) -> None:
    here = float(log_e_fail(b, c, z, margin))
    assert float(log_e_fail(b + 1, c, z - 1, margin)) > here > float(log_e_fail(b, c + 1, z - 1, margin))
    assert float(log_e_pass(c, b, z, -margin)) == here
    assert float(log_e_fail(b, c, z, margin + 0.01)) <= here


@pytest.mark.parametrize("n", [10_000, 1_000_000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
def test_huge_counts_neither_overflow_nor_vanish(n: int, share: float) -> None:
    lost = round(share * n)
    for margin in (0.005, 0.5):
        for counts in [(lost, 0, n - lost), (0, lost, n - lost), (lost // 2, lost - lost // 2, n - lost)]:
            assert all(math.isfinite(float(log_e(*counts, margin))) for log_e in SIDES.values())


def test_many_comparisons_at_once_are_each_alone() -> None:
    lost, gained = np.meshgrid(np.arange(6), np.arange(5), indexing="ij")
    together = log_e_fail(lost, gained, 100 - lost - gained, 0.01)
    assert together.shape == (6, 5)
    assert together[4, 3] == pytest.approx(float(log_e_fail(4, 3, 93, 0.01)))


def test_margins_at_which_a_bet_could_go_bankrupt_are_refused() -> None:
    for margin in (-1.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="between -1 and 1"):
            log_e_fail(1, 1, 1, margin)


# ------------------------------------------------------------------------------------------------ stopping whenever


def paths(rng: np.random.Generator, n_paths: int, n: int, p_lost: float, p_gained: float) -> tuple[np.ndarray, ...]:
    """Cumulative lost, gained and fed items at the rounds' ends."""
    ends = np.array(round_ends(n))
    steps = np.diff(ends, prepend=0)
    drawn = np.stack([rng.multinomial(k, [p_lost, p_gained, 1 - p_lost - p_gained], size=n_paths) for k in steps], axis=1)
    return drawn[..., 0].cumsum(1), drawn[..., 1].cumsum(1), ends


@pytest.mark.parametrize(("side", "margin"), [("fail", 0.005), ("pass", 0.01)])
@pytest.mark.parametrize("flips", [0.005, 0.1])
def test_looking_after_every_round_errs_no_more_often_than_promised(side: str, margin: float, flips: float) -> None:
    lost, gained, fed = paths(np.random.default_rng(1), 4000, 4000, flips / 2 + margin, flips / 2)
    largest = SIDES[side](lost, gained, fed - lost - gained, margin).max(1)
    for level in (0.05, 0.2):
        wrong = (largest >= math.log(1 / level)).mean()
        assert wrong <= level
        assert wrong > 0


@pytest.mark.parametrize("flips", [0.005, 0.1])
def test_early_and_final_tests_together_keep_the_level(flips: float) -> None:
    n, m0, m1 = 4000, 0.01, 0.02
    for margin, level in ((m0, 0.025), (m1, 0.05)):
        lost, gained, fed = paths(np.random.default_rng(2), 20_000, n, flips / 2 + margin, flips / 2)
        same = fed - lost - gained
        if margin == m0:
            z = np.minimum(tango_z(lost[:, -1], gained[:, -1], n, m0), wald_z(lost[:, -1], gained[:, -1], n, m0))
            p = anytime_p(log_e_fail(lost, gained, same, m0).max(1), 0.2, special.ndtr(-z))
        else:
            z = tango_z(lost[:, -1], gained[:, -1], n, m1)
            p = anytime_p(log_e_pass(lost, gained, same, m1).max(1), 0.5, special.ndtr(z))
        assert level / 2 < (p < level).mean() <= level


def test_stopping_tasks_at_their_own_pass_would_select_the_losers_and_turn_the_pool_red() -> None:
    sizes, flips, m0 = np.array([100, 164, 300, 500, 500, 817, 1000, 1172, 1267, 1838, 2000, 2000, 2000]), 0.01, 0.005
    losses = np.where(np.arange(13) < 3, m0 * sizes.sum() / sizes[:3].sum(), 0.0)  # all of the pool's loss in three tasks
    walks = [
        paths(np.random.default_rng([6, k]), 300, int(n), flips / 2 + loss, flips / 2)
        for k, (n, loss) in enumerate(zip(sizes, losses, strict=True))
    ]
    lost, gained = (np.stack([walk[side] for walk in walks], axis=1) for side in (0, 1))
    fed = np.stack([walk[2] for walk in walks])
    passed = log_e_pass(lost, gained, fed - lost - gained, 0.05) > math.log(40)
    stop = np.where(passed.any(2), passed.argmax(2), 25)[..., None]
    at = np.minimum(np.arange(26), stop)
    level = 0.2 * 0.025 / 24

    def red(b: np.ndarray, c: np.ndarray, n: np.ndarray) -> float:
        pool = b.sum(1), c.sum(1), n.sum(1)
        return float((log_e_fail(pool[0], pool[1], pool[2] - pool[0] - pool[1], m0).max(1) > -math.log(level)).mean())

    everything = np.broadcast_to(fed, lost.shape)
    assert red(lost, gained, everything) <= 0.01
    assert red(*(np.take_along_axis(counts, at, 2) for counts in (lost, gained, everything))) > 0.9


@pytest.mark.parametrize(("flips", "loss"), [(0.01, 0.0), (0.1, 0.0), (0.03, 0.02)])
def test_the_interval_covers_the_loss_wherever_the_run_stops(flips: float, loss: float) -> None:
    lost, gained, fed = paths(np.random.default_rng(3), 250, 2000, flips / 2 + loss, flips / 2)
    intervals = [anytime_interval(b, c, fed, 0.95) for b, c in zip(lost, gained, strict=True)]
    assert np.mean([low <= loss <= high for low, high in intervals]) >= 0.95
    assert np.mean([high - low for low, high in intervals]) < 0.06


def test_the_interval_ends_where_a_running_maximum_reaches_forty_and_only_shrinks() -> None:
    rounds = np.array([100, 200, 300, 400]), np.array([8, 9, 12, 13]), np.array([1, 2, 3, 6])
    fed, lost, gained = rounds
    low, high = anytime_interval(lost, gained, fed, 0.95)
    same = fed - lost - gained
    assert max(log_e_fail(lost, gained, same, low)) == pytest.approx(math.log(40), abs=1e-6)
    assert max(log_e_pass(lost, gained, same, high)) == pytest.approx(math.log(40), abs=1e-6)
    earlier = [anytime_interval(lost[:k], gained[:k], fed[:k], 0.95) for k in range(1, 5)]
    assert all(a[0] <= b[0] + 1e-9 and a[1] >= b[1] - 1e-9 for a, b in pairwise(earlier))


def test_the_interval_without_items_is_everything_and_its_ends_stay_inside() -> None:
    nothing = np.array([], dtype=np.int64)
    assert anytime_interval(nothing, nothing, nothing, 0.95) == (-1.0, 1.0)
    all_lost = np.array([50])
    assert anytime_interval(all_lost, np.array([0]), all_lost, 0.95)[1] == 1.0
    assert anytime_limit(np.array([0]), np.array([0]), np.array([1_000_000]), 0.025) < 1e-5


@given(st.floats(0, 1e7), st.floats(0, 1), st.floats(0, 1))
def test_the_anytime_p_is_a_probability_and_each_side_spends_its_share(log_e: float, share: float, p_full: float) -> None:
    p = float(anytime_p(log_e, share, p_full))
    assert 0 <= p <= 1
    assert p <= float(anytime_p(log_e, share))
    if share == 0:
        assert p == pytest.approx(p_full)
    if share == 1:
        assert p == pytest.approx(math.exp(-log_e))


def test_the_shares_of_the_gate_are_five_and_two() -> None:
    assert float(anytime_p(math.log(1000), 0.2)) == pytest.approx(5 / 1000)
    assert float(anytime_p(math.log(1000), 0.5)) == pytest.approx(2 / 1000)
    assert float(anytime_p(-3.0, 0.2, 0.008)) == pytest.approx(0.01)


# ------------------------------------------------------------------------------------------------ rounds


def test_the_rounds_are_those_of_the_gate() -> None:
    assert ROUND_PERCENTS[:10] == tuple(range(2, 21, 2))
    assert ROUND_PERCENTS[10:] == tuple(range(25, 101, 5))
    assert ROUND_SHARES[0] == 0.02
    assert len(ROUND_SHARES) == 26


@given(st.integers(1, 1_000_000))
def test_every_task_is_fed_in_nearly_the_same_proportion_up_to_all(n: int) -> None:
    ends = round_ends(n)
    assert len(ends) == len(ROUND_PERCENTS)
    assert ends[-1] == n
    assert all(1 <= a <= b for a, b in pairwise(ends))
    for end, percent in zip(ends, ROUND_PERCENTS, strict=True):
        assert abs(end - n * percent / 100) <= (0.5 if n >= 25 else 1)


def test_a_task_without_items_has_no_rounds() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        round_ends(0)


# ------------------------------------------------------------------------------------------------ a unit under its rule

RULE = Rule(2000, m0=0.005, m1=0.02, level_fail=0.001, level_pass=0.05, fail_share=0.2, pass_share=0.5)

Way = list[tuple[int, int, int]]
"""Lost, gained and unchanged items at the ends of the rounds so far."""


def both_p(rule: Rule, way: Way) -> tuple[float, float]:
    lost, gained, same = np.array(way, dtype=np.int64).reshape(-1, 3).T
    return p_fail(rule, lost, gained, lost + gained + same), p_pass(rule, lost, gained, lost + gained + same)


def decision(rule: Rule, way: Way) -> str | None:
    fails, passes = both_p(rule, way)
    return "fail" if fails < rule.level_fail else "pass" if passes < rule.level_pass else None


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05])
def test_the_p_value_is_that_of_the_largest_e_value_and_at_full_n_of_both_tests(loss: float) -> None:
    lost, gained, fed = paths(np.random.default_rng(4), 20, 2000, 0.01 + loss, 0.01)
    for b, c in zip(lost, gained, strict=True):
        for k in range(1, len(fed) + 1):
            same = (fed - b - c)[:k]
            p_full = None
            if k == len(fed):
                z = min(float(tango_z(b[-1], c[-1], 2000, 0.005)), float(wald_z(b[-1], c[-1], 2000, 0.005)))
                p_full = special.ndtr(-z)
            largest = max(0.0, *(float(log_e_fail(b[i], c[i], same[i], 0.005)) for i in range(k)))
            assert p_fail(RULE, b[:k], c[:k], fed[:k]) == pytest.approx(float(anytime_p(largest, 0.2, p_full)))


@given(st.data(), st.integers(2, 3000))
def test_p_values_are_probabilities_that_follow_what_was_lost_and_gained(data: st.DataObject, n: int) -> None:
    """Of all items at once: one more lost, or one fewer gained, never makes FAIL harder or PASS easier."""
    lost = data.draw(st.integers(0, n - 1))
    gained = data.draw(st.integers(0, n - 1 - lost))
    rule = replace(RULE, n_items=n)
    here = both_p(rule, [(lost, gained, n - lost - gained)])
    worse = both_p(rule, [(lost + 1, gained, n - lost - gained - 1)])
    better = both_p(rule, [(lost, gained + 1, n - lost - gained - 1)])
    assert all(0 <= p <= 1 for p in (*here, *worse, *better))
    assert worse[0] <= here[0] + 1e-12
    assert better[0] >= here[0] - 1e-12
    assert worse[1] >= here[1] - 1e-12
    assert better[1] <= here[1] + 1e-12


def test_p_values_only_fall_so_a_decision_once_made_is_kept_or_turns_red() -> None:
    lost, gained, fed = paths(np.random.default_rng(5), 20, 2000, 0.03, 0.01)
    for b, c in zip(lost, gained, strict=True):
        ways = [
            list(zip(b[:k].tolist(), c[:k].tolist(), (fed - b - c)[:k].tolist(), strict=True)) for k in range(len(fed) + 1)
        ]
        found = [both_p(RULE, way) for way in ways]
        assert all(later[0] <= one[0] and later[1] <= one[1] for one, later in pairwise(found))
        said = [decision(RULE, way) for way in ways]
        assert "fail" not in said or set(said[said.index("fail") :]) == {"fail"}


def test_clear_cases_are_decided_early_and_before_the_first_item_nothing_is() -> None:
    assert both_p(RULE, []) == (1.0, 1.0)
    assert decision(RULE, []) is None
    assert decision(RULE, [(20, 0, 180)]) == "fail"
    assert decision(RULE, [(1, 2, 497)]) == "pass"


def test_where_recompressing_moves_the_loss_only_the_last_round_decides() -> None:
    rule = Rule(2000, 0.005, 0.04, 0.001, 0.05, 0.2, 0.5, spread=Spread(0.005, 8.0))
    assert decision(rule, [(200, 0, 1000)]) is None
    assert decision(rule, [(200, 0, 1000), (300, 5, 1695)]) == "fail"
    assert decision(rule, [(20, 18, 1962)]) == "pass"


def test_counts_that_shrink_or_exceed_the_unit_are_refused() -> None:
    for later in ((2, 1, 97), (3, 1, 3000), (3, 2, 95)):
        for ask in (p_fail, p_pass):
            lost, gained, same = np.array([(3, 1, 96), later]).T
            with pytest.raises(ValueError, match="are needed, got"):
                ask(RULE, lost, gained, lost + gained + same)
