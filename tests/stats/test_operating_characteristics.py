"""The gate's promises, on fewer simulated commits than ``benchmarks/gate_operating_characteristics.py`` has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench(benchmark_module: Any) -> Any:
    return benchmark_module("gate_operating_characteristics")


@pytest.mark.parametrize(("flips", "used"), [(0.005, 0.146), (0.03, 0.334), (0.10, 0.684)])
def test_an_unchanged_commit_is_not_red_and_its_cells_are_decided_early(bench: Any, flips: float, used: float) -> None:
    found = bench.simulate(bench.World(flips, bench.everywhere(0.0), chance=0.0, n_cells=6), 50, np.random.default_rng(1))
    assert not found.red.any()
    assert found.used.mean() == pytest.approx(used, abs=0.02)


@pytest.mark.parametrize("flips", [0.005, 0.03, 0.10])
def test_a_cell_that_lost_two_points_everywhere_is_red(bench: Any, flips: float) -> None:
    found = bench.simulate(bench.World(flips, bench.everywhere(0.02), chance=0.0, n_cells=1), 400, np.random.default_rng(2))
    assert found.red.mean() >= 0.93


@pytest.mark.slow
def test_every_promise_is_kept_on_500_commits(bench: Any) -> None:
    missed = [promise.row() for promise in bench.promises(500, 0.0, np.random.default_rng(3)) if not promise.kept]
    assert not missed
