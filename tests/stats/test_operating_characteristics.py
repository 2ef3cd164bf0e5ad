"""The gate's promises, on fewer simulated commits than ``benchmarks/gate_operating_characteristics.py`` has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError


@pytest.fixture(scope="module")
def bench(benchmark_module: Any) -> Any:
    return benchmark_module("gate_operating_characteristics")


@pytest.mark.parametrize(("flips", "used"), [(0.005, 0.146), (0.03, 0.334), (0.10, 0.684)])
def test_an_unchanged_commit_is_not_red_and_its_cells_are_decided_early(bench: Any, flips: float, used: float) -> None:
    found = bench.simulate(bench.World(flips, bench.everywhere(0.0), chance=0.0, n_cells=6), 50, 1)
    assert found.red == 0
    assert found.used / found.n_commits == pytest.approx(used, abs=0.02)


@pytest.mark.parametrize("flips", [0.005, 0.03, 0.10])
def test_a_cell_that_lost_two_points_everywhere_is_red(bench: Any, flips: float) -> None:
    found = bench.simulate(bench.World(flips, bench.everywhere(0.02), chance=0.0, n_cells=1), 400, 2)
    assert found.red / found.n_commits >= 0.93


def test_a_run_that_was_stopped_goes_on_and_finds_the_same(bench: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(bench, "BLOCK_COMMITS", 20)
    world, path = bench.World(0.03, bench.everywhere(0.0), chance=0.0, n_cells=1), tmp_path / "kept.jsonl"
    bench.simulate(world, 40, 3, bench.Kept(path, 3))
    assert len(path.read_text().splitlines()) == 2
    again = bench.Kept(path, 3)
    assert bench.simulate(world, 60, 3, again) == bench.simulate(world, 60, 3)
    assert len(path.read_text().splitlines()) == 3
    path.write_text("{}\n")
    with pytest.raises(ConfigError, match="is no block of this benchmark"):
        bench.Kept(path, 3)


@pytest.mark.slow
def test_no_promise_is_missed_on_1000_commits(bench: Any) -> None:
    rows = [promise.row() for promise in bench.promises(1000, 0.0, 3)]
    assert len(rows) == 18
    assert not [row for row in rows if "MISSED" in row]
