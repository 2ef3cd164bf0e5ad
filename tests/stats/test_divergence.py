"""Divergence between two models' answers, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.special import softmax
from scipy.stats import entropy

from harness.core.ragged import Ragged
from harness.stats.divergence import option_kl

NATS = st.floats(-200, 0)
ITEMS = st.lists(st.lists(st.tuples(NATS, NATS), min_size=1, max_size=6), min_size=1, max_size=8)


@given(ITEMS)
def test_it_is_scipys_relative_entropy_of_the_softmaxes(items: list[list[tuple[float, float]]]) -> None:
    before, now = (Ragged.of([[pair[i] for pair in item] for item in items]) for i in (0, 1))
    found = option_kl(before.values, now.values, now.ends)
    for item, kl in zip(items, found, strict=True):
        expected = entropy(softmax([pair[0] for pair in item]), softmax([pair[1] for pair in item]))
        assert kl == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert (found >= 0).all()


def test_equal_shares_diverge_by_nothing_whatever_the_level() -> None:
    assert option_kl(np.array([-1.0, -2.0]), np.array([-101.0, -102.0]), np.array([2])) == pytest.approx([0.0])
    assert len(option_kl(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize(
    ("before", "now", "ends"),
    [
        ([0.0, 1.0], [0.0], [2]),
        ([0.0, 1.0], [0.0, 1.0], [1]),
        ([0.0], [0.0], [0, 1]),
        ([0.0, np.nan], [0.0, 1.0], [2]),
        ([0.0, 1.0], [0.0, -np.inf], [2]),
    ],
)
def test_scores_that_do_not_belong_together_are_refused(before: list[float], now: list[float], ends: list[int]) -> None:
    # where shapes are checked (`make test`), they are first
    with pytest.raises((ValueError, TypeCheckError), match=r"scores? (are|is)|options=2"):
        option_kl(np.array(before), np.array(now), np.array(ends))


@given(st.lists(st.lists(st.floats(-9, 9), max_size=4), min_size=1, max_size=6), st.data())
def test_rows_are_taken_by_their_places(rows: list[list[float]], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    taken = Ragged.of(rows).take(np.array(places, dtype=np.int64))
    assert list(taken) == [tuple(rows[i]) for i in places]
