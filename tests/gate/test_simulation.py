"""Simulated commits are fed and decided as measured ones are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.gate.simulation import Fates, SimulatedCell, SimulatedTask, bounds_of, draw_fates, simulate
from harness.stats.boundaries import find_bounds
from harness.stats.enumeration import chances_of_verdicts
from harness.stats.sequential import Rule, round_ends

POOL = {"m0": 0.005, "m1": 0.02, "level_fail": 0.05, "level_pass": 0.05, "fail_share": 0.2, "pass_share": 0.5}
TASK = {**POOL, "m0": 0.02, "m1": 0.10}


def ends(n: int) -> np.ndarray:
    return np.array(round_ends(n))


def cell(*sizes: int, guards: tuple[int, ...] = (), anchors: int = 1) -> SimulatedCell:
    """A cell of tasks of these sizes, all in the pool but those at the places of ``guards``."""
    tasks = [
        SimulatedTask(f"task {k}", n, 0 if k in guards else n, (bounds_of(Rule(n, **TASK), ends(n), n),) * anchors)
        for k, n in enumerate(sizes)
    ]
    pooled = [task for task in tasks if task.n_in_pool]
    total = sum(task.n_in_pool for task in pooled)
    pool = bounds_of(Rule(total, **POOL), np.sum([task.pool_ends for task in pooled], axis=0), total)
    return SimulatedCell(tuple(tasks), (pool,) * anchors)


def fates(lost: float, gained: float, anchors: int = 1) -> Fates:
    sides = np.array([[True, False]] * anchors)
    return Fates(np.array([[lost, gained]]), sides, ~sides)


def run(made: SimulatedCell, of: Fates, n: int = 4000, seed: int = 0) -> Any:
    return simulate(made, n, draw_fates(made, [of] * len(made.tasks), np.random.default_rng(seed)))


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.005), (0.03, 0.005), (0.002, 0.002)])
def test_a_pool_fails_as_often_as_exact_enumeration_says(lost: float, gained: float) -> None:
    made, n = cell(300, 200), 20_000
    found = run(made, fates(lost, gained), n)
    assert made.pool[0] is not None
    fail, passed = chances_of_verdicts(made.pool[0], lost, gained)
    noise = 4 * np.sqrt(0.25 / n)
    # FAIL after a PASS is not seen where feeding stopped, so "ever" is an upper bound, and a close one
    assert fail - 0.02 - noise <= found.pool_red.mean() <= fail + noise
    assert found.pool_passed.mean() <= passed + noise


def test_an_unchanged_cell_without_flips_passes_early_and_is_not_fed_further() -> None:
    made = cell(1500, 700)
    found = run(made, fates(0.0, 0.0), 3)
    assert not found.red.any()
    assert found.pool_passed.all()
    used = found.share_used(made)
    assert (used == used[0]).all()
    assert used[0] < 0.5


def test_a_task_of_an_undecided_pool_is_fed_and_a_guard_stops_by_itself() -> None:
    made = cell(1000, 1000, 1000, guards=(2,))
    found = run(made, fates(0.015, 0.005), 500)
    assert np.array_equal(found.rounds[0], found.rounds[1])
    assert (found.rounds[2] <= found.rounds[0]).mean() > 0.9


def test_a_red_pool_stops_its_cell() -> None:
    made = cell(1000, 1000, guards=(1,))
    found = run(made, fates(0.3, 0.0), 50)
    assert found.pool_red.all()
    assert (found.rounds[1] <= found.rounds[0]).all()
    assert found.share_used(made).max() < 0.2


def test_two_anchors_are_both_met_or_the_worse_one_counts() -> None:
    made = cell(800, anchors=2)
    sides = np.array([[True, False], [False, False]])  # everything is lost against the first anchor alone
    found = run(made, Fates(np.array([[0.1, 0.0]]), sides, np.zeros_like(sides)), 200)
    assert found.red.all()
    assert found.pool_fails[0].all()
    assert not found.pool_fails[1].any()


def test_a_cell_that_is_never_decided_is_fed_to_the_end() -> None:
    made = cell(60)
    found = run(made, fates(0.06, 0.03), 300)
    assert found.share_used(made).max() == 1.0


def test_chances_may_differ_from_commit_to_commit() -> None:
    made = cell(400)
    each = Fates(np.array([[0.0, 0.0], [0.5, 0.0]]), np.array([[True, False]]), np.array([[False, True]]))
    found = run(made, each, 2)
    assert found.red.tolist() == [False, True]


def test_items_above_the_cap_are_fed_but_not_pooled() -> None:
    made = SimulatedTask("large", 5000, 2000, (None,))
    assert made.ends[-1] == 5000
    assert made.pool_ends[-1] == 2000
    assert (np.diff(made.pool_ends, prepend=0) <= np.diff(made.ends, prepend=0)).all()
    assert not made.is_member(0)


def test_a_full_run_without_a_flip_passes_as_identical_whatever_it_can_prove() -> None:
    rule = Rule(20, **{**POOL, "m1": 0.02})
    assert find_bounds(rule, ends(20), 5).pass_to[-1, 0] == -1
    assert bounds_of(rule, ends(20), 5).pass_to[-1, 0] == 0
    found = run(cell(20), fates(0.0, 0.0), 2)
    assert found.pool_passed.all()
    assert (found.rounds == 26).all()
