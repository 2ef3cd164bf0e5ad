"""Power statements against simulation and against the statistics they plan for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from harness.core.verdicts import PairedCounts
from harness.stats.paired import tango_z, wald_z
from harness.stats.power import items_to_fail, items_to_pass, minimal_detectable_loss
from harness.stats.recompression import Spread, p_loss_above, p_loss_below


@pytest.mark.parametrize(("n", "flips", "margin", "level"), [(1000, 0.03, 0.01, 0.02), (13658, 0.10, 0.005, 0.02 / 24)])
def test_the_minimal_detectable_loss_is_found_with_the_promised_power(
    n: int, flips: float, margin: float, level: float
) -> None:
    loss = minimal_detectable_loss(n, flip_rate=flips, margin=margin, level=level, power=0.8)
    assert loss is not None
    table = np.random.default_rng(5).multinomial(n, [flips / 2 + loss, flips / 2, 1 - flips - loss], size=20_000)
    z = np.minimum(tango_z(table[:, 0], table[:, 1], n, margin), wald_z(table[:, 0], table[:, 1], n, margin))
    assert (z > ndtri(1 - level)).mean() == pytest.approx(0.8, abs=0.02)


def test_a_handful_of_items_can_detect_nothing() -> None:
    assert minimal_detectable_loss(2, flip_rate=0.1, margin=0.01, level=1e-4, power=0.8) is None


@given(st.integers(50, 5000), st.floats(0, 0.2), st.floats(0, 0.03))
def test_more_items_find_smaller_losses_and_spread_hides_them(n: int, flips: float, sigma: float) -> None:
    def detectable(items: int, spread: float) -> float:
        found = minimal_detectable_loss(items, flip_rate=flips, margin=0.01, level=0.01, power=0.8, sigma=spread)
        return 1.0 if found is None else found

    assert 0.01 < detectable(2 * n, 0.0) <= detectable(n, 0.0) <= detectable(n, sigma)


def scaled(counts: PairedCounts, n: int) -> tuple[float, float, int]:
    return counts.n_lost * n / counts.n_items, counts.n_gained * n / counts.n_items, n


@pytest.mark.parametrize("sigma", [0.0, 0.002])
def test_the_items_needed_are_exactly_where_the_rule_would_fire(sigma: float) -> None:
    counts, level = PairedCounts(25, 5, 970), 0.001
    needed = items_to_fail(counts, 0.01, level, sigma)
    assert needed is not None
    for n, fires in ((needed, True), (needed - 2, False)):
        assert (float(p_loss_above(*scaled(counts, n), 0.01, Spread(sigma, math.inf))) <= level * (1 + 1e-7)) == fires


@pytest.mark.parametrize("sigma", [0.0, 0.002])
def test_the_items_needed_to_pass_are_exactly_where_the_rule_would_fire(sigma: float) -> None:
    counts, level = PairedCounts(25, 22, 953), 0.025
    needed = items_to_pass(counts, 0.01, level, sigma)
    assert needed is not None
    spread = Spread(sigma, math.inf)
    assert float(p_loss_below(*scaled(counts, needed), 0.01, spread)) <= level * (1 + 1e-7)
    assert float(p_loss_below(*scaled(counts, needed - 2), 0.01, spread)) > level


@pytest.mark.parametrize(("sigma", "df"), [(0.002, 8.0), (0.001, 2.0)])
def test_doubt_about_the_spread_asks_for_more_items_and_they_are_exactly_enough(sigma: float, df: float) -> None:
    counts, level, spread = PairedCounts(25, 5, 970), 0.005, Spread(sigma, df)
    needed = items_to_fail(counts, 0.01, level, sigma, df)
    known = items_to_fail(counts, 0.01, level, sigma)
    assert needed is not None
    assert known is not None
    assert known < needed
    for n, fires in ((needed, True), (needed - 2, False)):
        assert (float(p_loss_above(*scaled(counts, n), 0.01, spread)) <= level + 1e-9) == fires
    passes = PairedCounts(25, 22, 953)
    enough = items_to_pass(passes, 0.02, level, sigma, df)
    assert enough is not None
    assert float(p_loss_below(*scaled(passes, enough), 0.02, spread)) <= level + 1e-9
    assert items_to_fail(counts, 0.01, level, 0.01, 2.0) is None


def test_the_minimal_detectable_loss_grows_with_doubt_about_the_spread() -> None:
    def detectable(df: float) -> float:
        found = minimal_detectable_loss(1000, flip_rate=0.05, margin=0.005, level=0.001, power=0.8, sigma=0.01, df=df)
        assert found is not None
        return found

    assert detectable(1e6) == pytest.approx(detectable(math.inf), rel=1e-3)
    assert detectable(math.inf) < detectable(8.0) < detectable(4.0) / 1.2 < detectable(2.0) / 2
    assert minimal_detectable_loss(1000, flip_rate=0.05, margin=0.005, level=0.001, power=0.8, sigma=0.1, df=2.0) is None


def test_no_number_of_items_decides_on_the_wrong_side_of_the_margin_or_under_a_wide_spread() -> None:
    counts = PairedCounts(25, 5, 970)
    assert items_to_fail(counts, 0.03, 0.01) is None
    assert items_to_pass(counts, 0.01, 0.025) is None
    assert items_to_pass(counts, 0.03, 0.025, sigma=0.02) is None
