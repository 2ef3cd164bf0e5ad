"""What the scorer's noise can change is flagged, and between two runs of the same weights it changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.near_ties import settled
from harness.core.outcomes import Outcomes
from harness.core.records import Item, ItemOutcome
from harness.knowledge.facts import rank_options
from harness.knowledge.lm_eval_items import choice_outcome, option_scores
from harness.scoring import near_tie_nats

CHOICES = ("a", "two", "éé", "a longer one")
METRICS = ("facts", "acc", "acc_norm", "acc_bytes", "acc_mutual_info")


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, str, Item, list[float], list[float]]:
    """A metric, a dtype, an item, and sums from two runs that differ by at most half of the dtype's tolerance."""
    metric, dtype = draw(st.sampled_from(METRICS)), draw(st.sampled_from(["float32", "float16", "bfloat16"]))
    n_options = draw(st.integers(2, 4))
    gold = draw(st.sets(st.integers(0, n_options - 1), min_size=1, max_size=n_options))
    tolerance = near_tie_nats(dtype)
    n_sums = 2 * n_options if metric == "acc_mutual_info" else n_options
    near = st.floats(-3, 3).map(lambda steps: steps * tolerance)
    base = draw(st.lists(st.one_of(near, st.floats(-9, 9)), min_size=n_sums, max_size=n_sums))
    moved = draw(st.lists(st.floats(-0.4999, 0.4999), min_size=n_sums, max_size=n_sums))
    item = Item("i", "g", "[Y]", CHOICES[:n_options], tuple(sorted(gold)))
    return metric, dtype, item, base, [a + b * tolerance for a, b in zip(base, moved, strict=True)]


def judge(metric: str, dtype: str, item: Item, sums: list[float]) -> ItemOutcome:
    if metric == "facts":
        return rank_options(item, sums, near_tie_nats=near_tie_nats(dtype))
    scores = option_scores(metric, sums, item.options)
    correct = max(range(len(scores)), key=lambda i: (scores[i], -i)) in item.gold  # as lm-eval does
    return choice_outcome(item, scores, item.options, metric=metric, correct=correct, near_tie_nats=near_tie_nats(dtype))


def columns(*rows: ItemOutcome) -> Outcomes:
    return Outcomes.of(tuple(str(i) for i in range(len(rows))), list(rows))


@given(questions())
def test_what_noise_can_turn_is_flagged_in_both_runs_and_counts_as_unchanged(question) -> None:
    metric, dtype, item, before, now = question
    one, other = (judge(metric, dtype, item, sums) for sums in (before, now))
    if one.correct != other.correct:
        assert one.near_tie
        assert other.near_tie
    assert settled(columns(one), np.array([0]), columns(other)).tolist() == [one.correct]


@pytest.mark.parametrize("right_before", [True, False])
def test_a_near_tie_beside_a_clear_answer_counts_as_it_came(right_before: bool) -> None:
    item = Item("i", "g", "[Y]", ("a", "b"), (0,))
    clear = rank_options(item, [-1.0, -2.0] if right_before else [-2.0, -1.0])
    tie = rank_options(item, [-1.0, -1.0])
    assert (clear.near_tie, tie.near_tie, tie.correct) == (False, True, False)
    assert settled(columns(clear), np.array([0]), columns(tie)).tolist() == [False]


def test_rows_are_joined_by_their_places() -> None:
    item = Item("i", "g", "[Y]", ("a", "b"), (0,))
    right, wrong, clear = (rank_options(item, scores) for scores in ([-1, -1.00001], [-1, -0.99999], [-1, -9]))
    before, now = columns(right, clear, wrong), columns(clear, right, right)
    assert settled(before, np.array([2, 1, 0]), now).tolist() == [True, True, True]


def test_float32_has_the_issues_tolerance() -> None:
    assert near_tie_nats("float32") == 1e-4
