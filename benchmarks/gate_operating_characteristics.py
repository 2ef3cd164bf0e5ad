"""How often the gate errs, what it finds and what it costs: promised and measured on simulated commits.

    python benchmarks/gate_operating_characteristics.py [--commits 20000] [--chance 0] [--seed 0] [--kept FILE]

A commit has 24 cells of 13 tasks (the sizes of a common lm-eval selection, each capped as in the pool; 13,658 items a cell).
Every cell is compared with two anchors, ``last`` and ``release``, at half the level each. Baselines and candidate each
deviate from common answers on items of their own, so that any two differ on a share f of all items; a loss turns further
right answers wrong. Rules come from harness.stats, harness.gate and suites/policy.toml, commits are fed and decided by
harness.gate.simulation, as in ``harness selftest``; only counts are simulated. 20,000 commits take some minutes of one core;
with ``--kept FILE`` each finished block is kept there, and a run that was stopped goes on where it was.

A rate of commits is met if its limit at 99.9 % confidence (Clopper-Pearson) is, a share of items if its mean and 3.1 standard
errors are. Exits with 1 when a promise is missed or not shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from harness.core.errors import ConfigError
from harness.execution.progress import Progress
from harness.gate import Family, Policy, read_policy
from harness.gate.promises import ERROR, Shown
from harness.gate.simulation import Fates, SimulatedCell, SimulatedTask, bounds_of, draw_fates
from harness.gate.simulation import simulate as simulate_cells
from harness.stats.intervals import exact_limits
from harness.stats.sequential import Rule, round_ends

POLICY = read_policy(Path(__file__).parents[1] / "suites" / "policy.toml")
TASKS = tuple(min(n, POLICY.pool_cap_items) for n in (100, 164, 300, 500, 500, 817, 1000, 1172, 1267, 1838, 2376, 3270, 10042))
N_CELLS = 24
FLIP_RATES = (0.005, 0.03, 0.10)
ITEMS_USED = (0.20, 0.40, 0.80)
ANCHORS = ("last", "release")
BLOCK_COMMITS = 1000
STANDARD_ERRORS = 3.1


@dataclass(frozen=True)
class World:
    """What is simulated: the share of ``flips``, ``losses`` of the tasks as fractions of their items, the tasks' ``chance``
    level (their margins shrink by it), how many cells."""

    flips: float
    losses: tuple[float, ...]
    chance: float
    n_cells: int = N_CELLS


@dataclass(frozen=True)
class Counted:
    """Of so many simulated commits: how many have a red cell, how many a red pool; the sums of the shares of their items that
    were fed, and of their squares. Of the cells: how many passed against ``last``."""

    n_commits: int
    n_cells: int
    red: int
    pool_red: int
    passed: int
    used: float
    used_squared: float

    def __add__(self, other: Counted) -> Counted:
        return Counted(*(getattr(self, name) + getattr(other, name) for name in Counted.__dataclass_fields__))


@dataclass(frozen=True)
class Promise:
    """One line of the table: a rate, or a share of items, that may not lie beyond ``limit``; with its limits as measured."""

    name: str
    limit: float
    at_least: bool
    measured: float
    low: float
    high: float

    @property
    def shown(self) -> Shown:
        """Whether what was measured keeps what was promised."""
        kept, missed = (
            (self.low >= self.limit, self.high < self.limit)
            if self.at_least
            else (
                self.high <= self.limit,
                self.low > self.limit,
            )
        )
        return Shown.KEPT if kept else Shown.MISSED if missed else Shown.NOT_SHOWN

    def row(self) -> str:
        """Promised, measured and its limits."""
        sign, limits = (">=" if self.at_least else "<="), f"[{100 * self.low:7.3f}, {100 * self.high:7.3f}]"
        said = "met" if self.shown is Shown.KEPT else str(self.shown)
        return f"{self.name:<80} {sign} {100 * self.limit:5.1f}   {100 * self.measured:7.3f} {limits}  {said}"


def main() -> None:
    """Print one row a promise; exit 1 when one is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=20_000, help="simulated commits of each kind (default: 20000)")
    parser.add_argument("--chance", type=float, default=0.0, help="chance level of all tasks (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    parser.add_argument("--kept", type=Path, metavar="FILE", help="keep finished blocks here, and use those of a stopped run")
    options = parser.parse_args()
    started_s = time.process_time()
    print(
        f"{options.commits:,} commits of {N_CELLS} cells, {sum(TASKS):,} items a cell, anchors {' and '.join(ANCHORS)}; in %"
    )
    print(f"{'':<80} promised measured  limits at 99.9 %")
    kept = Kept(options.kept, options.seed)
    shown = []
    for promise in promises(
        options.commits, options.chance, options.seed, kept, Progress(sys.stderr.write, sys.stderr.isatty())
    ):
        print(promise.row(), flush=True)
        shown.append(promise.shown)
    n_bad = sum(one is not Shown.KEPT for one in shown)
    cpu_s = time.process_time() - started_s
    print(f"{f'{n_bad} promises are not met' if n_bad else 'all promises are met'}; {cpu_s:.0f} s of one core")
    raise SystemExit(n_bad > 0)


def promises(
    n_commits: int, chance: float, seed: int, kept: Kept | None = None, progress: Progress | None = None
) -> Iterator[Promise]:
    """Each promise with what was measured for it."""

    def found(name: str, world: World) -> Counted:
        if progress is not None:
            progress.start(name)
        return simulate(world, n_commits, seed, kept, progress.update if progress is not None else None)

    for flips, share in zip(FLIP_RATES, ITEMS_USED, strict=True):
        at = f"{100 * flips:g} % of the items flip"
        name = f"nothing changed, {at}"
        one = found(name, World(flips, everywhere(0.0), chance))
        yield _rate(f"{name}: red commits", 0.01, False, one.red, one.n_commits)
        yield _used(f"{name}: share of items used", share, one)
        name = f"a cell lost 2 pt everywhere, {at}"
        one = found(name, World(flips, everywhere(0.02), chance, n_cells=1))
        yield _rate(f"{name}: red", 0.95, True, one.red, one.n_commits)
        name = f"all cells lost the tolerated 0.5 pt, {at}"
        one = found(name, World(flips, everywhere(0.005), chance))
        yield _rate(f"{name}: red commits", 0.05, False, one.red, one.n_commits)
        name = f"0.5 pt of each pool lost in 3 small tasks, {at}"
        one = found(name, World(flips, in_small_tasks(POLICY.cell.m0), chance))
        yield _rate(f"{name}: pool red", 0.025, False, one.pool_red, one.n_commits)
        m1 = POLICY.cell.m1(sum(TASKS), reference_rate(flips))
        name = f"a cell lost its m1 ({100 * m1:.2f} pt) everywhere, {at}"
        one = found(name, World(flips, everywhere(m1), chance, n_cells=1))
        yield _rate(f"{name}: pool PASS", 0.05, False, one.passed, one.n_cells)


def everywhere(loss: float) -> tuple[float, ...]:
    """The same loss in all tasks."""
    return (loss,) * len(TASKS)


def in_small_tasks(pooled_loss: float) -> tuple[float, ...]:
    """All of the pool's loss in its three smallest tasks."""
    return tuple(pooled_loss * sum(TASKS) / sum(TASKS[:3]) if k < 3 else 0.0 for k in range(len(TASKS)))


def reference_rate(flips: float) -> float:
    """The policy's f_ref for a class of changes that flips so many items: at least that of log-likelihoods."""
    return max(flips, POLICY.flip_rates.log_likelihood)


def _rate(name: str, limit: float, at_least: bool, n_found: int, n: int) -> Promise:
    return Promise(name, limit, at_least, n_found / n, *exact_limits(n_found, n, ERROR))


def _used(name: str, limit: float, found: Counted) -> Promise:
    mean = found.used / found.n_commits
    half = STANDARD_ERRORS * np.sqrt(max(found.used_squared / found.n_commits - mean**2, 0.0) / found.n_commits)
    return Promise(name, limit, False, mean, mean - float(half), mean + float(half))


# ------------------------------------------------------------------------------------------------ blocks


class Kept:
    """Finished blocks by what was simulated, in a file of JSON lines where one is given."""

    def __init__(self, path: Path | None, seed: int) -> None:
        self.path, self.seed, self.blocks = path, seed, dict[str, Counted]()
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                told = json.loads(line)
                self.blocks[told["of"]] = Counted(**told["found"])
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}:{number} is no block of this benchmark: take another file.") from error

    def block(self, world: World, index: int, n: int, make: Callable[[], Counted]) -> Counted:
        """A block, from the file or made."""
        key = repr((self.seed, world, POLICY, index, n))
        if key not in self.blocks:
            self.blocks[key] = make()
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps({"of": key, "found": self.blocks[key].__dict__}) + "\n")
        return self.blocks[key]


def simulate(
    world: World, n_commits: int, seed: int, kept: Kept | None = None, tell: Callable[[int, int], None] | None = None
) -> Counted:
    """So many commits of one kind, in blocks, each with random numbers of its own."""
    kept, total = kept or Kept(None, seed), None
    for index, start in enumerate(range(0, n_commits, BLOCK_COMMITS)):
        n = min(BLOCK_COMMITS, n_commits - start)
        found = kept.block(world, index, n, lambda i=index, n=n: _simulate_block(world, n, _generator(world, seed, i)))
        total = found if total is None else total + found
        if tell is not None:
            tell(start + n, n_commits)
    assert total is not None  # noqa: S101 - at least one commit
    return total


def _generator(world: World, seed: int, index: int) -> np.random.Generator:
    """Random numbers of one block: others for another world, seed or block."""
    parts = (world.flips, world.chance, *world.losses)
    return np.random.default_rng([seed, index, world.n_cells, *(round(1e9 * part) for part in parts)])


def _simulate_block(world: World, n_commits: int, rng: np.random.Generator) -> Counted:
    cell = simulated_cell(world.flips, world.chance)
    n = n_commits * world.n_cells
    outcome = simulate_cells(cell, n, draw_fates(cell, [fates(world.flips, loss) for loss in world.losses], rng))
    used = outcome.share_used(cell).reshape(n_commits, -1).mean(1)
    return Counted(
        n_commits=n_commits,
        n_cells=n,
        red=int(outcome.red.reshape(n_commits, -1).any(1).sum()),
        pool_red=int(outcome.pool_red.reshape(n_commits, -1).any(1).sum()),
        passed=int(outcome.pool_passed[0].sum()),
        used=float(used.sum()),
        used_squared=float((used**2).sum()),
    )


# ------------------------------------------------------------------------------------------------ cells


@lru_cache(maxsize=8)
def simulated_cell(flips: float, chance: float) -> SimulatedCell:
    """The cell with its bounds; more gained items than they hold are out of reach."""
    pools, tasks = rules(POLICY, flips, chance)

    def most(n: int) -> int:
        return min(n, int(n * flips / 2 + 12 * np.sqrt(n * flips / 2)) + 40)

    ends = [np.array(round_ends(n)) for n in TASKS]
    made = [bounds_of(rule, fed, most(rule.n_items)) for rule, fed in zip(tasks, ends, strict=True)]
    return SimulatedCell(
        tuple(
            SimulatedTask(f"task {k}", n, n, (bounds,) * len(ANCHORS))
            for k, (n, bounds) in enumerate(zip(TASKS, made, strict=True))
        ),
        tuple(bounds_of(rule, np.sum(ends, axis=0), most(rule.n_items)) for rule in pools),
    )


def rules(policy: Policy, flips: float, chance: float) -> tuple[list[Rule], list[Rule]]:
    """The pool's rule for each anchor, and each task's (the same for both anchors)."""
    family, f_ref = Family(N_CELLS, N_CELLS * len(TASKS)), reference_rate(flips)
    n = sum(TASKS)
    early = {"fail_share": policy.early.fail_share, "pass_share": policy.early.pass_share, "level_pass": policy.pass_level}
    last = Rule(n, policy.cell.m0, policy.cell.m1(n, f_ref), level_fail=family.cell_level(policy) / len(ANCHORS), **early)
    release = replace(last, m0=policy.release_cell.m0, m1=policy.release_cell.m1(n, f_ref))
    level, informed = family.task_level(policy) / len(ANCHORS), 1 - chance
    tasks = [Rule(k, policy.task.m0 * informed, policy.task.m1(k, f_ref) * informed, level_fail=level, **early) for k in TASKS]
    return [last, release], tasks


def fates(flips: float, loss: float) -> Fates:
    """How an item stands against (last, release): lost/lost, lost/same, same/lost, and the same of gained.

    Each of the three versions deviates from a common answer with probability h, 2h(1-h) = flips; half of the common
    answers are right. A loss makes further items lost against both.
    """
    h = (1 - np.sqrt(1 - 2 * flips)) / 2
    both = (h * (1 - h) ** 2 + (1 - h) * h**2) / 2
    one = (h**2 * (1 - h) + (1 - h) ** 2 * h) / 2
    chances: Float[np.ndarray, "1 fates"] = np.array([[both + loss, one, one, both, one, one]])
    lost = np.array([[1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0]], dtype=np.bool_)
    return Fates(chances, lost, lost[:, [3, 4, 5, 0, 1, 2]])


if __name__ == "__main__":
    main()
