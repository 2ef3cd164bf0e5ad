"""How often a cell that moves when it is compressed again is red for nothing, and the loss it would take to make it red.

    python benchmarks/recompressed_cells.py [--cells 100000] [--seed 0]

Each simulated cell is compressed K + 1 times. Every run deviates from common answers on random items of its own, so that
two runs differ on a share f of the items, and moves besides by a normal shift of standard deviation tau. The baseline is the
run of median accuracy of the first K, the candidate is the last; exactly the margin of 0.5 pt is lost. Ratios are false reds
over the level: above 1 is too many. ``known`` takes the measured spread for the true one, ``ours`` is
harness.stats.recompression. Exits with 1 when ours is significantly above its level anywhere.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr

from harness.stats.intervals import wilson
from harness.stats.paired import tango_variance, wald_variance
from harness.stats.power import minimal_detectable_loss
from harness.stats.recompression import Spread, combined_tail, spread_of_loss

MARGIN = 0.005
LEVELS = {"alone": 0.025, "24 cells": 0.025 / 24, "312 tasks": 0.025 / 312}
RIGHT = 0.6
BLOCK = 20_000


@dataclass(frozen=True)
class Cells:
    """Simulated cells of ``n_items``, of which ``n_runs`` compressions are known; ``tau`` beyond the ``flips``."""

    n_items: int
    n_runs: int
    flips: float
    tau: float


@dataclass(frozen=True)
class Outcome:
    """Counts of the candidate against the baseline, and the accuracies of the known runs."""

    lost: Int[np.ndarray, " cells"]
    gained: Int[np.ndarray, " cells"]
    accuracies: Float[np.ndarray, "cells runs"]


def main() -> None:
    """Print one row a kind of cell; exit 1 when ours is too liberal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000, help="simulated cells of each kind (default: 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(f"{options.cells:,} cells of each kind; levels {', '.join(f'{name} {level:.2g}' for name, level in LEVELS.items())}")
    print(f"{'':<34} {'known: reds / level':^30}   {'ours: reds / level':^30}   {'80 % power at a loss of':^24}")
    levels = "".join(f"{name:>10}" for name in LEVELS)
    print(f"   K     N   f %  tau pt  sd(A) pt   {levels}   {levels}   {'known':>14} {'ours':>8}")
    too_many = False
    for cells in (
        Cells(n, k, f, tau) for k in (3, 5, 8, 9) for n in (1000, 2000) for f in (0.03, 0.10) for tau in (0.005, 0.01, 0.02)
    ):
        made = simulate(cells, MARGIN, options.cells, rng)
        known, ours = p_if_known(made, cells.n_items), p_ours(made, cells.n_items)
        reds = {name: (int((known < level).sum()), int((ours < level).sum())) for name, level in LEVELS.items()}
        total = options.cells
        too_many |= any(wilson(reds[name][1], total, 0.999).low > level for name, level in LEVELS.items())
        ratios = ["".join(f"{reds[name][i] / total / level:10.2f}" for name, level in LEVELS.items()) for i in (0, 1)]
        spread = float(np.sqrt((made.accuracies.var(axis=1, ddof=1)).mean()))
        needed = [_detectable(cells, spread, df) for df in (np.inf, float(cells.n_runs - 1))]
        row = f"{cells.n_runs:>4} {cells.n_items:>5} {100 * cells.flips:>5g} {100 * cells.tau:>7g} {100 * spread:>9.2f}"
        print(f"{row}   {ratios[0]}   {ratios[1]}   {needed[0]:>14} {needed[1]:>8}", flush=True)
    print("ours is TOO LIBERAL somewhere" if too_many else "ours keeps every level")
    raise SystemExit(too_many)


def simulate(cells: Cells, loss: float, n_cells: int, rng: np.random.Generator) -> Outcome:
    """So many cells, of which the last run has lost ``loss`` more."""
    n, right = cells.n_items, round(RIGHT * cells.n_items)
    moved = cells.tau * rng.standard_normal((n_cells, cells.n_runs + 1))
    moved[:, -1] -= loss
    wrong_now = rng.binomial(right, np.clip(cells.flips / 4 + np.maximum(-moved, 0), 0, RIGHT) / RIGHT)
    right_now = rng.binomial(n - right, np.clip(cells.flips / 4 + np.maximum(moved, 0), 0, 1 - RIGHT) / (1 - RIGHT))
    accuracies = (right - wrong_now + right_now) / n
    row, base = np.arange(n_cells), np.argsort(accuracies[:, :-1], axis=1, kind="stable")[:, cells.n_runs // 2]
    b0, c0, b1, c1 = wrong_now[row, base], right_now[row, base], wrong_now[:, -1], right_now[:, -1]
    both_wrong = rng.hypergeometric(b0, right - b0, b1)
    both_right = rng.hypergeometric(c0, n - right - c0, c1)
    return Outcome(b1 - both_wrong + c0 - both_right, b0 - both_wrong + c1 - both_right, accuracies[:, :-1])


def p_if_known(made: Outcome, n_items: int) -> Float[np.ndarray, " cells"]:
    """FAIL's p-value with the square of the measured spread added to the variance, read as a z."""
    return _largest_p(made, n_items, lambda excess, variance: ndtr(-excess / np.sqrt(variance + _spreads(made) ** 2)))


def p_ours(made: Outcome, n_items: int) -> Float[np.ndarray, " cells"]:
    """FAIL's p-value as ``recompression.p_loss_above`` has it, for many cells of many spreads at once."""
    one = made.accuracies[0] if made.accuracies[0].std() > 0 else np.arange(made.accuracies.shape[1]) / 100
    factor, df = spread_of_loss(one).sigma / one.std(ddof=1), float(made.accuracies.shape[1] - 1)
    sigma = np.maximum(factor * _spreads(made), 1e-12)

    def tail(excess: np.ndarray, variance: np.ndarray) -> np.ndarray:
        return combined_tail(excess / sigma, variance / sigma**2, Spread(1.0, df))

    return _largest_p(made, n_items, tail)


def _largest_p(made: Outcome, n_items: int, tail) -> Float[np.ndarray, " cells"]:  # type: ignore[no-untyped-def]
    excess = (made.lost - made.gained) / n_items - MARGIN
    by_tango = tail(excess, tango_variance(made.lost, made.gained, n_items, MARGIN) / n_items)
    return np.maximum(by_tango, tail(excess, wald_variance(made.lost, made.gained, n_items) / n_items))


def _spreads(made: Outcome) -> Float[np.ndarray, " cells"]:
    return made.accuracies.std(axis=1, ddof=1)


def _detectable(cells: Cells, spread: float, df: float) -> str:
    factor = spread_of_loss(np.arange(cells.n_runs) / 100).sigma / np.std(np.arange(cells.n_runs) / 100, ddof=1)
    loss = minimal_detectable_loss(
        cells.n_items,
        flip_rate=cells.flips,
        margin=MARGIN,
        level=LEVELS["24 cells"],
        power=0.8,
        sigma=float(factor) * spread,
        df=df,
    )
    return "never" if loss is None else f"{100 * loss:.1f} pt"


if __name__ == "__main__":
    main()
