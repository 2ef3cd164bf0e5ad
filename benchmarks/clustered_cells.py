"""Relations that stand for others: how often the gate is red or passes, by items and by clusters, on simulated commits.

    python benchmarks/clustered_cells.py [--commits 100000] [--seed 0]

A cell has one task of LAMA's shape (41 relations of 30 to 60 items; 12 of 100) in a profile of 24 cells. In each commit every
relation has a loss of its own, Normal(loss, spread): what a change does to new relations. The counts are tested as the gate
does at full N, with the levels and margins of suites/policy.toml; "by items" with the relations as fixed strata, the whole
level at full N there too, so that nothing but the tests differs. Rates have their limits at 99.9 % confidence
(Clopper-Pearson). A cell whose relations lost m0 on average may be red as often as its level says, one whose lost m1 may pass
as often as the PASS level does: exits with 1 when the lower limit of the cluster decision lies above one of them. Half a
minute of one core.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.gate import Family, read_policy
from harness.gate.promises import ERROR
from harness.stats.clusters import Clusters, p_loss_above_clustered, p_loss_below_clustered
from harness.stats.intervals import exact_limits
from harness.stats.recompression import p_loss_above, p_loss_below

POLICY = read_policy(Path(__file__).parents[1] / "suites" / "policy.toml")
FAMILY = Family(n_cells=24, n_tasks=24)
FLIPS = 0.01
SPREADS = (0.0, 0.02, 0.05)
SHAPES = {"41 relations": np.arange(41) % 31 + 30, "12 relations": np.full(12, 100)}


@dataclass(frozen=True)
class Rate:
    """A share of commits, with its limits."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: np.ndarray) -> Rate:
        """From whether it happened in each commit."""
        n_found = int(np.count_nonzero(found))
        return cls(n_found / len(found), *exact_limits(n_found, len(found), ERROR))

    def __str__(self) -> str:
        return f"{100 * self.value:7.3f} [{100 * self.low:6.3f}, {100 * self.high:6.3f}]"


def main() -> None:
    """Print one row a shape, spread and loss; exit 1 when clusters do not hold their level."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=100_000, help="simulated commits of each kind (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    options = parser.parse_args()
    level = FAMILY.cell_level(POLICY)
    print(f"{options.commits:,} commits a row, {100 * FLIPS:g} % of the items flip; red at level {100 * level:.3f} %; in %")
    print(f"{'':<52} {'by items':>26} {'by clusters':>26}")
    is_kept, rng = True, np.random.default_rng(options.seed)
    for shape, sizes in SHAPES.items():
        m0, m1 = POLICY.cell.m0, POLICY.cell.m1(int(sizes.sum()), FLIPS)
        for spread in SPREADS:
            for name, loss in (("unchanged", 0.0), ("lost m0", m0), ("lost m1", m1), ("lost 2 pt", 0.02), ("lost 5 pt", 0.05)):
                counts = draw(sizes, loss, spread, options.commits, rng)
                row = f"{shape}, each's loss spreads by {100 * spread:g} pt, {name}"
                if name != "lost m1":
                    by_items, by_clusters = (Rate.of(p < level) for p in red(counts, m0))
                    print(f"{row + ', red':<52} {by_items} {by_clusters}")
                    is_kept &= name != "lost m0" or by_clusters.low <= level
                if name in ("unchanged", "lost m1"):
                    by_items, by_clusters = (Rate.of(p < POLICY.pass_level) for p in passed(counts, m1))
                    print(f"{row + ', PASS':<52} {by_items} {by_clusters}")
                    is_kept &= name != "lost m1" or by_clusters.low <= POLICY.pass_level
    sys.exit(0 if is_kept else 1)


def draw(sizes: np.ndarray, loss: float, spread: float, n: int, rng: np.random.Generator) -> Clusters:
    """Lost and gained items of each relation in so many commits."""
    own = loss + spread * rng.standard_normal((n, len(sizes)))
    may_lose, may_gain = (FLIPS / 2 + np.maximum(side, 0) for side in (own, -own))
    lost = rng.binomial(sizes, may_lose)
    return Clusters(lost, rng.binomial(sizes - lost, may_gain / (1 - may_lose)), sizes)


def red(counts: Clusters, m0: float) -> tuple[np.ndarray, np.ndarray]:
    """The p-values of FAIL, by items and by clusters."""
    return p_loss_above(*counts.totals(), m0), p_loss_above_clustered(counts, m0)


def passed(counts: Clusters, m1: float) -> tuple[np.ndarray, np.ndarray]:
    """The p-values of PASS, by items and by clusters."""
    return p_loss_below(*counts.totals(), m1), p_loss_below_clustered(counts, m1)


if __name__ == "__main__":
    main()
