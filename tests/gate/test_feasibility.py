"""A cell that is too small is told so before it runs, with the N that would do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from harness.gate import Policy, cell_feasibility, feasibility
from harness.stats.paired import tango_z
from harness.stats.recompression import NO_SPREAD, Spread


def test_a_cell_of_the_shipped_facts_can_pass(policy: Policy) -> None:
    found = feasibility(policy, policy.cell, 1000, flip_rate=0.01)
    assert found.feasible
    assert "1,000 items are enough to prove a loss below 1.26 pt" in found.sentence("llama_4bit-rtn_none")


def test_a_small_recompressed_cell_is_told_how_many_items_would_do(policy: Policy) -> None:
    found = feasibility(policy, policy.cell, 120, flip_rate=0.10)
    assert not found.feasible
    assert found.n_needed is not None
    assert 200 < found.n_needed < 500
    assert f"{found.n_needed:,} would do" in found.sentence("c")
    assert feasibility(policy, policy.cell, found.n_needed, flip_rate=0.10).feasible
    assert not feasibility(policy, policy.cell, found.n_needed - 1, flip_rate=0.10).feasible


def test_a_spread_above_the_cap_can_never_pass(policy: Policy) -> None:
    found = feasibility(policy, policy.cell, 1000, flip_rate=0.10, spread=Spread(0.04, math.inf))
    assert (found.feasible, found.n_needed) == (False, None)
    assert "by 1,000 items or any larger number, so much do re-compressions spread" in found.sentence("c")


@pytest.mark.parametrize(
    ("sigma", "flips"), [(0.0, 0.03), (0.0, 0.10), (0.005, 0.10), (0.01, 0.10), (0.0117, 0.10), (0.02, 0.10)]
)
@pytest.mark.parametrize("kind", ["cell", "task"])
def test_the_number_named_is_the_fewest_from_here_on_though_more_items_do_not_always_help(
    policy: Policy, kind: Literal["cell", "task"], sigma: float, flips: float
) -> None:
    margins, spread = getattr(policy, kind), Spread(sigma, math.inf) if sigma else NO_SPREAD
    passing = [n for n in range(20, 2000, 14) if feasibility(policy, margins, n, flip_rate=flips, spread=spread).feasible]
    for n in (20, 300, 1518, 1980):
        found = feasibility(policy, margins, n, flip_rate=flips, spread=spread)
        later = [one for one in passing if one >= n]
        assert found.n_needed is None or found.n_needed >= n
        if later:
            assert found.n_needed is not None
            assert later[0] - 14 < found.n_needed <= later[0]
        assert found.n_needed is None or feasibility(policy, margins, found.n_needed, flip_rate=flips, spread=spread).feasible


def test_a_recompressed_cell_of_many_items_is_not_told_that_fewer_would_do(policy: Policy) -> None:
    spread = Spread(0.01, math.inf)
    assert feasibility(policy, policy.cell, 700, flip_rate=0.10, spread=spread).feasible
    found = feasibility(policy, policy.cell, 1519, flip_rate=0.10, spread=spread)
    assert (found.feasible, found.n_needed) == (False, None), "its m1 shrinks with its items, the spread does not"


def test_a_policy_that_nobody_could_meet_is_told_apart_from_a_spread(policy: Policy) -> None:
    strict = replace(policy.cell, m0=1e-9, m1_floor=1e-8, m1_flips=0.0)
    found = feasibility(policy, strict, 1000, flip_rate=0.01)
    assert (found.feasible, found.n_needed) == (False, None)
    assert "raise m1_floor" in found.sentence("c")
    assert "re-compress" not in found.sentence("c")


@pytest.mark.parametrize("flips", [0.03, 0.10])
def test_an_unchanged_unit_of_the_needed_size_passes_with_at_least_the_promised_power(policy: Policy, flips: float) -> None:
    n = feasibility(policy, policy.cell, 50, flip_rate=flips).n_needed
    assert n is not None
    table = np.random.default_rng(0).multinomial(n, [flips / 2, flips / 2, 1 - flips], size=20_000)
    z = tango_z(table[:, 0], table[:, 1], n, policy.cell.m1(n, flips))
    assert (z < -1.959964).mean() >= policy.power - 0.03


def test_a_cell_is_warned_of_its_pool_as_the_gate_makes_it(policy: Policy, build: Any) -> None:
    """Tasks that can show no loss, and guards, are no items of the pool; a limit cuts each task."""
    tasks = {
        "facts": build.task("facts", build.right(600, 400)),
        "guessed": build.task("guessed", build.right(900, 90)),
        "guard": build.task("guard", build.right(900, 600), pooled=False),
    }
    before = build.baseline(build.run(tasks))
    whole, cut = cell_feasibility(policy, before), cell_feasibility(policy, before, limit=20)
    assert whole is not None
    assert cut is not None
    assert (whole.n_items, cut.n_items, cut.feasible) == (600, 20, False)
    assert cut.n_needed == feasibility(policy, policy.cell, 20, flip_rate=0.01).n_needed
    assert cell_feasibility(policy, build.baseline(build.run({"guessed": tasks["guessed"]}))) is None


def test_a_policy_that_no_cell_can_meet_at_its_n_names_the_n_that_would_do(policy: Policy, build: Any) -> None:
    strict = replace(policy, cell=replace(policy.cell, m1_floor=0.006, m1_flips=0.0))
    before = build.baseline(build.one(600, 400, weights="w1"))
    found = cell_feasibility(strict, before)
    assert found is not None
    assert not found.feasible
    assert found.n_needed is not None
    assert feasibility(strict, strict.cell, found.n_needed, flip_rate=0.01).feasible
    assert (
        f"600 items can hardly prove a loss below 0.6 pt even if nothing changed; {found.n_needed:,} would do"
        in found.sentence("c")
    )
