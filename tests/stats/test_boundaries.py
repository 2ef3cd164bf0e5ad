"""The tables of counts say what the tests themselves say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.boundaries import Bounds, find_bounds
from harness.stats.recompression import Spread
from harness.stats.sequential import Rule, p_fail, p_pass, round_ends

RULE = Rule(600, m0=0.01, m1=0.05, level_fail=0.002, level_pass=0.05, fail_share=0.2, pass_share=0.5)
FED = np.array(round_ends(600))


@pytest.fixture(scope="module")
def bounds() -> Bounds:
    return find_bounds(RULE, FED, 600)


@given(st.integers(0, 25), st.floats(0, 1), st.floats(0, 1))
def test_each_entry_is_what_the_p_values_say(bounds: Bounds, index: int, lost_share: float, gained_share: float) -> None:
    fed = int(FED[index])
    gained = int(gained_share**3 * fed)
    lost = int(lost_share**3 * (fed - gained))
    at = np.array([lost]), np.array([gained]), np.array([fed])
    assert bool(bounds.fails(index, at[0], at[1])[0]) == (float(p_fail(RULE, *at)) < RULE.level_fail)
    assert bool(bounds.passes(index, at[0], at[1])[0]) == (float(p_pass(RULE, *at)) < RULE.level_pass)


def test_a_whole_way_is_below_its_level_where_one_of_its_rounds_is(bounds: Bounds) -> None:
    rng = np.random.default_rng(0)
    for loss in (0.0, 0.01, 0.03, 0.05):
        drawn = rng.multinomial(np.diff(FED, prepend=0), [0.02 + loss, 0.02, 0.96 - loss], size=(40, len(FED))).cumsum(1)
        lost, gained = drawn[..., 0], drawn[..., 1]
        looks = [bounds.fails(k, lost[:, k], gained[:, k]) for k in range(len(FED))]
        assert np.array_equal(np.any(looks, axis=0), p_fail(RULE, lost, gained, FED) < RULE.level_fail)
        looks = [bounds.passes(k, lost[:, k], gained[:, k]) for k in range(len(FED))]
        assert np.array_equal(np.any(looks, axis=0), p_pass(RULE, lost, gained, FED) < RULE.level_pass)


def test_where_recompressing_moves_the_loss_only_the_last_round_has_bounds() -> None:
    found = find_bounds(Rule(600, 0.01, 0.05, 0.02, 0.05, 0.2, 0.5, Spread(0.002, 4.0)), FED, 60)
    assert (found.fail_from[:-1] > 600).all()
    assert (found.pass_to[:-1] == -1).all()
    assert found.fail_from[-1, 0] <= 40
    assert found.pass_to[-1, 0] >= 0


def test_counts_beyond_the_table_are_refused_and_not_guessed() -> None:
    small = find_bounds(RULE, FED, 5)
    with pytest.raises(IndexError):
        small.fails(25, np.array([0]), np.array([6]))
