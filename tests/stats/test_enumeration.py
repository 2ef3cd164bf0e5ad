"""The exact chances of verdicts, against every way written out, and against simulation."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest

from harness.stats.boundaries import Bounds, find_bounds
from harness.stats.enumeration import chances_at_full_n, chances_of_verdicts, shifted
from harness.stats.recompression import draw_shifts, spread_of_loss
from harness.stats.sequential import Rule, round_ends


def test_every_way_of_a_tiny_unit_written_out() -> None:
    bounds = Bounds(
        n_fed=np.array([2, 4, 6]),
        fail_from=np.array([[2, 9, 9, 9, 9, 9, 9], [3, 4, 9, 9, 9, 9, 9], [3, 4, 5, 9, 9, 9, 9]]),
        pass_to=np.array([[-1, -1, 1, -1, -1, -1, -1], [-1, 0, 0, 0, -1, -1, -1], [0, 1, 1, 2, 2, 1, 0]]),
    )
    lost, gained = 0.3, 0.2
    fail = passed = 0.0
    for way in product(product(range(3), repeat=2), repeat=3):
        if any(b + c > 2 for b, c in way):
            continue
        chance = np.prod([comb(2, b) * comb(2 - b, c) * lost**b * gained**c * 0.5 ** (2 - b - c) for b, c in way])
        counts = np.cumsum(way, axis=0)
        fail += chance * any(b >= bounds.fail_from[k, c] for k, (b, c) in enumerate(counts))
        passed += chance * any(b <= bounds.pass_to[k, c] for k, (b, c) in enumerate(counts))
    assert chances_of_verdicts(bounds, lost, gained) == pytest.approx((fail, passed), abs=1e-12)


@pytest.mark.parametrize(("lost", "gained"), [(0.011, 0.001), (0.06, 0.05), (0.05, 0.0)])
def test_a_simulation_finds_the_same(lost: float, gained: float) -> None:
    rule = Rule(500, m0=0.01, m1=0.05, level_fail=0.05, level_pass=0.05, fail_share=0.2, pass_share=0.5)
    fed, n = np.array(round_ends(500)), 100_000
    bounds = find_bounds(rule, fed, 500)
    rng = np.random.default_rng(5)
    b = c = np.zeros(n, dtype=np.int64)
    fails = passes = np.zeros(n, dtype=np.bool_)
    for index, step in enumerate(np.diff(fed, prepend=0)):
        drawn = rng.multinomial(int(step), [lost, gained, 1 - lost - gained], size=n)
        b, c = b + drawn[:, 0], c + drawn[:, 1]
        fails, passes = fails | bounds.fails(index, b, c), passes | bounds.passes(index, b, c)
    for exact, simulated in zip(chances_of_verdicts(bounds, lost, gained), (fails, passes), strict=True):
        assert abs(exact - simulated.mean()) <= 5 * np.sqrt(exact * (1 - exact) / n) + 1e-5


def test_the_e_values_alone_never_exceed_their_share() -> None:
    rule = Rule(400, m0=0.01, m1=0.05, level_fail=0.05, level_pass=0.05, fail_share=1.0, pass_share=1.0)
    bounds = find_bounds(rule, np.array(round_ends(400)), 400)
    for flips in (0.0, 0.01, 0.1):
        assert 0 < chances_of_verdicts(bounds, flips / 2 + 0.01, flips / 2)[0] <= 0.05
        assert 0 < chances_of_verdicts(bounds, flips / 2 + 0.05, flips / 2)[1] <= 0.05


def test_a_loss_that_moves_by_itself_is_averaged_over_its_shifts() -> None:
    runs = np.array([0.500, 0.505, 0.512, 0.497])
    spread = spread_of_loss(runs)
    rule = Rule(800, 0.01, 0.05, 0.02, 0.05, 0.2, 0.5, spread)
    bounds, n = find_bounds(rule, np.array(round_ends(800)), 800), 100_000
    rng = np.random.default_rng(6)
    drawn = draw_shifts(runs[:, None], n, rng)[:, 0]
    chances = np.array([shifted(0.06, 0.05, float(shift)) for shift in drawn])
    counts = rng.multinomial(800, np.column_stack([chances, np.maximum(1 - chances.sum(1), 0)]))
    for exact, found in zip(
        chances_at_full_n(bounds, 0.06, 0.05, spread),
        (bounds.fails(25, counts[:, 0], counts[:, 1]), bounds.passes(25, counts[:, 0], counts[:, 1])),
        strict=True,
    ):
        assert exact == pytest.approx(found.mean(), abs=5 * np.sqrt(exact * (1 - exact) / n))


def test_shifts_of_any_weighting_have_the_spread_that_the_gate_gives_it() -> None:
    runs = np.array([[0.50, 0.30], [0.52, 0.31], [0.51, 0.28], [0.49, 0.30], [0.50, 0.33]])
    drawn = draw_shifts(runs, 200_000, np.random.default_rng(7))
    for weights in ([1.0, 0.0], [0.3, 0.7], [0.5, 0.5]):
        spread = spread_of_loss(runs @ np.array(weights))
        quartiles = np.quantile(drawn @ np.array(weights), [0.25, 0.75]) / spread.sigma
        assert quartiles == pytest.approx([-0.7407, 0.7407], abs=0.01)  # Student t with 4 degrees of freedom
