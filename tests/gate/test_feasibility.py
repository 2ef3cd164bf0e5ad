"""A cell that is too small is told so before it runs, with the N that would do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.gate import Policy, feasibility
from harness.stats.paired import tango_z
from harness.stats.recompression import Spread


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
    assert "by any number of items" in found.sentence("c")


@pytest.mark.parametrize("flips", [0.03, 0.10])
def test_an_unchanged_unit_of_the_needed_size_passes_with_at_least_the_promised_power(policy: Policy, flips: float) -> None:
    n = feasibility(policy, policy.cell, 50, flip_rate=flips).n_needed
    assert n is not None
    table = np.random.default_rng(0).multinomial(n, [flips / 2, flips / 2, 1 - flips], size=20_000)
    z = tango_z(table[:, 0], table[:, 1], n, policy.cell.m1(n, flips))
    assert (z < -1.959964).mean() >= policy.power - 0.03
