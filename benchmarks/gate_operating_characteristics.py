"""How often the gate errs, what it finds and what it costs: promised and measured on simulated commits.

    python benchmarks/gate_operating_characteristics.py [--commits 2000] [--chance 0] [--seed 0]

A commit has 24 cells of 13 tasks (the sizes of a common lm-eval selection, each capped as in the pool; 13,658 items a cell).
Every cell is compared with two anchors, ``last`` and ``release``, at half the level each. Baselines and candidate each
deviate from common answers on items of their own, so that any two differ on a share f of all items; a loss turns further
right answers wrong. Decisions, margins, levels and rounds are those of harness.stats, harness.gate and suites/policy.toml;
only counts are simulated, and every distinct count is judged once. 20,000 commits take about ten minutes of one core. Exits
with 1 when a promise is missed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.gate import Family, Policy, read_policy
from harness.stats.intervals import wilson
from harness.stats.recompression import p_loss_above, p_loss_below
from harness.stats.sequential import Rule, anytime_p, log_e_fail, log_e_pass, round_ends

POLICY = read_policy(Path(__file__).parents[1] / "suites" / "policy.toml")
TASKS = tuple(min(n, POLICY.pool_cap_items) for n in (100, 164, 300, 500, 500, 817, 1000, 1172, 1267, 1838, 2376, 3270, 10042))
N_CELLS = 24
FLIP_RATES = (0.005, 0.03, 0.10)
ANCHORS = ("last", "release")
RELEASE_M0, RELEASE_M1 = 0.01, 0.02
NEVER = 127
BLOCK_COMMITS = 2500


@dataclass(frozen=True)
class World:
    """What is simulated: the share of ``flips``, ``losses`` of the tasks as fractions of their items, the tasks' ``chance``
    level (their margins shrink by it), how many cells."""

    flips: float
    losses: tuple[float, ...]
    chance: float
    n_cells: int = N_CELLS


@dataclass(frozen=True)
class Found:
    """Per commit: any cell red, any pool red, and the shares of the items used. Per cell: the pool passed against ``last``."""

    red: Bool[np.ndarray, " commits"]
    pool_red: Bool[np.ndarray, " commits"]
    used: Float[np.ndarray, " commits"]
    pool_passed: Bool[np.ndarray, " cells"]


@dataclass(frozen=True)
class Promise:
    """One line of the table: a rate of commits (or cells), or a share of items, that may not lie beyond ``limit``."""

    name: str
    limit: float
    at_least: bool
    values: np.ndarray

    @property
    def kept(self) -> bool:
        """Whether what was measured keeps what was promised."""
        measured = float(self.values.mean())
        return measured >= self.limit if self.at_least else measured <= self.limit

    def row(self) -> str:
        """Promised, measured and its 95 % interval."""
        measured, n = float(self.values.mean()), len(self.values)
        if self.values.dtype == bool:
            interval = wilson(int(self.values.sum()), n, 0.95)
            low, high = interval.low, interval.high
        else:
            half = 1.96 * float(self.values.std()) / np.sqrt(n)
            low, high = measured - half, measured + half
        sign = ">=" if self.at_least else "<="
        spread = f"[{100 * low:7.3f}, {100 * high:7.3f}]"
        return (
            f"{self.name:<80} {sign} {100 * self.limit:5.1f}   {100 * measured:7.3f} {spread}  {'' if self.kept else 'MISSED'}"
        )


def main() -> None:
    """Print one row a promise; exit 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=2000, help="simulated commits of each kind (default: 2000)")
    parser.add_argument("--chance", type=float, default=0.0, help="chance level of all tasks (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    options = parser.parse_args()
    started_s = time.process_time()
    print(
        f"{options.commits:,} commits of {N_CELLS} cells, {sum(TASKS):,} items a cell, anchors {' and '.join(ANCHORS)}; in %"
    )
    print(f"{'':<80} promised measured  95 % interval")
    kept = True
    for promise in promises(options.commits, options.chance, np.random.default_rng(options.seed)):
        print(promise.row(), flush=True)
        kept = kept and promise.kept
    cpu_s = time.process_time() - started_s
    print(f"{'all promises are kept' if kept else 'a promise is MISSED'}; {cpu_s:.0f} s of one core")
    raise SystemExit(not kept)


def promises(n_commits: int, chance: float, rng: np.random.Generator) -> Iterator[Promise]:
    """Each promise with what was measured for it."""
    for flips, share in zip(FLIP_RATES, (0.20, 0.40, 0.80), strict=True):
        at = f"{100 * flips:g} % of the items flip"
        found = simulate(World(flips, everywhere(0.0), chance), n_commits, rng)
        yield Promise(f"nothing changed, {at}: red commits", 0.01, False, found.red)
        yield Promise(f"nothing changed, {at}: share of items used", share, False, found.used)
        found = simulate(World(flips, everywhere(0.02), chance, n_cells=1), n_commits, rng)
        yield Promise(f"a cell lost 2 pt everywhere, {at}: red", 0.95, True, found.red)
        found = simulate(World(flips, everywhere(0.005), chance), n_commits, rng)
        yield Promise(f"all cells lost the tolerated 0.5 pt, {at}: red commits", 0.05, False, found.red)
        found = simulate(World(flips, in_small_tasks(POLICY.cell.m0), chance), n_commits, rng)
        yield Promise(f"0.5 pt of each pool lost in 3 small tasks, {at}: pool red", 0.025, False, found.pool_red)
        m1 = POLICY.cell.m1(sum(TASKS), reference_rate(flips))
        found = simulate(World(flips, everywhere(m1), chance, n_cells=1), n_commits, rng)
        yield Promise(f"a cell lost its m1 ({100 * m1:.2f} pt) everywhere, {at}: pool PASS", 0.05, False, found.pool_passed)


def everywhere(loss: float) -> tuple[float, ...]:
    """The same loss in all tasks."""
    return (loss,) * len(TASKS)


def in_small_tasks(pooled_loss: float) -> tuple[float, ...]:
    """All of the pool's loss in its three smallest tasks."""
    return tuple(pooled_loss * sum(TASKS) / sum(TASKS[:3]) if k < 3 else 0.0 for k in range(len(TASKS)))


def reference_rate(flips: float) -> float:
    """The policy's f_ref for a class of changes that flips so many items: at least that of log-likelihoods."""
    return max(flips, POLICY.flip_rates.log_likelihood)


def simulate(world: World, n_commits: int, rng: np.random.Generator) -> Found:
    """So many commits of one kind, in blocks that fit into memory."""
    starts = range(0, n_commits, BLOCK_COMMITS)
    blocks = [_simulate_block(world, min(BLOCK_COMMITS, n_commits - start), rng) for start in starts]
    return Found(*(np.concatenate([getattr(block, name) for block in blocks]) for name in Found.__dataclass_fields__))


def _simulate_block(world: World, n_commits: int, rng: np.random.Generator) -> Found:
    shape = (n_commits, world.n_cells)
    pools, tasks = rules(POLICY, world)
    pool = _Unit.start(pools, shape)
    units = [_Unit.start([rule] * len(ANCHORS), shape) for rule in tasks]
    chances = [_class_chances(world.flips, loss) for loss in world.losses]
    steps = [np.diff(round_ends(n), prepend=0) for n in TASKS]
    for index in range(len(steps[0])):
        for unit, step, chance in zip(units, steps, chances, strict=True):
            lost, gained = _draw(int(step[index]), chance, shape, rng)
            unit.feed(index, int(step[index]), lost, gained)
            pool.count(int(step[index]), lost, gained)
        pool.look(index)
    return _conclude(pool, units)


def rules(policy: Policy, world: World) -> tuple[list[Rule], list[Rule]]:
    """The pool's rule for each anchor, and each task's (the same for both anchors)."""
    family, f_ref = Family(N_CELLS, N_CELLS * len(TASKS)), reference_rate(world.flips)
    n = sum(TASKS)
    early = {"fail_share": policy.early.fail_share, "pass_share": policy.early.pass_share, "level_pass": policy.pass_level}
    last = Rule(n, policy.cell.m0, policy.cell.m1(n, f_ref), level_fail=family.cell_level(policy) / len(ANCHORS), **early)
    release = replace(last, m0=max(RELEASE_M0, last.m0), m1=max(RELEASE_M1, last.m1))
    level, informed = family.task_level(policy) / len(ANCHORS), 1 - world.chance
    tasks = [Rule(k, policy.task.m0 * informed, policy.task.m1(k, f_ref) * informed, level_fail=level, **early) for k in TASKS]
    return [last, release], tasks


# ------------------------------------------------------------------------------------------------ counts


def _class_chances(flips: float, loss: float) -> Float[np.ndarray, " 7"]:
    """How an item stands against (last, release): lost/lost, lost/same, same/lost, the same of gained, and same/same.

    Each of the three versions deviates from a common answer with probability h, 2h(1-h) = flips; half of the common
    answers are right. A loss makes further items lost against both.
    """
    h = (1 - np.sqrt(1 - 2 * flips)) / 2
    both = (h * (1 - h) ** 2 + (1 - h) * h**2) / 2
    one = (h**2 * (1 - h) + (1 - h) ** 2 * h) / 2
    chances = np.array([both + loss, one, one, both, one, one, 0.0])
    chances[-1] = 1 - chances.sum()
    return chances


def _draw(
    n_items: int, chances: Float[np.ndarray, " 7"], shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Int[np.ndarray, "anchors commits cells"], Int[np.ndarray, "anchors commits cells"]]:
    drawn = np.moveaxis(rng.multinomial(n_items, chances, size=shape), -1, 0)
    lost = np.stack([drawn[0] + drawn[1], drawn[0] + drawn[2]])
    return lost, np.stack([drawn[3] + drawn[4], drawn[3] + drawn[5]])


# ------------------------------------------------------------------------------------------------ decisions


@dataclass
class _Unit:
    """One task, or the pool, of every simulated cell: counts so far, and the rounds of its first FAIL and PASS by anchor."""

    rules: Sequence[Rule]
    lost: Int[np.ndarray, "anchors commits cells"]
    gained: Int[np.ndarray, "anchors commits cells"]
    fed: list[int]
    fail_round: Int[np.ndarray, "anchors commits cells"]
    pass_round: Int[np.ndarray, "anchors commits cells"]

    @classmethod
    def start(cls, of_anchors: Sequence[Rule], shape: tuple[int, int]) -> _Unit:
        whole = (len(ANCHORS), *shape)
        counts = (np.zeros(whole, dtype=np.int32) for _ in range(2))
        rounds = (np.full(whole, NEVER, dtype=np.int8) for _ in range(2))
        return cls(of_anchors, *counts, [0], *rounds)

    def feed(self, index: int, step: int, lost: np.ndarray, gained: np.ndarray) -> None:
        self.count(step, lost, gained)
        self.look(index)

    def count(self, step: int, lost: np.ndarray, gained: np.ndarray) -> None:
        self.lost += lost
        self.gained += gained
        self.fed[0] += step

    def look(self, index: int) -> None:
        for anchor, rule in enumerate(self.rules):
            fails, passes = _judge_counts(rule, self.lost[anchor], self.gained[anchor], self.fed[0])
            for first, now in ((self.fail_round[anchor], fails), (self.pass_round[anchor], passes)):
                first[now & (first == NEVER)] = index


def _judge_counts(
    rule: Rule, lost: np.ndarray, gained: np.ndarray, n_fed: int
) -> tuple[Bool[np.ndarray, "commits cells"], Bool[np.ndarray, "commits cells"]]:
    """FAIL and PASS by what this round's counts say: every pair of counts in their range is judged once."""
    low_b, low_c = int(lost.min()), int(gained.min())
    b, c = np.ogrid[low_b : int(lost.max()) + 1, low_c : int(gained.max()) + 1]
    is_full = n_fed == rule.n_items
    same = np.maximum(n_fed - b - c, 0)  # corners of the range that no cell has may exceed the items
    above = p_loss_above(b, c, n_fed, rule.m0) if is_full else None
    below = p_loss_below(b, c, n_fed, rule.m1) if is_full else None
    fails = anytime_p(log_e_fail(b, c, same, rule.m0), rule.fail_share, above) < rule.level_fail
    passes = anytime_p(log_e_pass(b, c, same, rule.m1), rule.pass_share, below) < rule.level_pass
    at = (lost - low_b, gained - low_c)
    return fails[at], passes[at]


def _conclude(pool: _Unit, units: Sequence[_Unit]) -> Found:
    """A pool is fed until it fails against one anchor or passes against both; a task as long, or until it is decided too."""
    last_round = len(round_ends(1)) - 1
    pool_fail, pool_pass = pool.fail_round.min(0), pool.pass_round.max(0)
    pool_red = (pool_fail <= pool_pass) & (pool_fail < NEVER)
    pool_end = np.minimum(np.minimum(pool_fail, pool_pass), last_round)
    red, used = pool_red.copy(), np.zeros(pool_red.shape)
    for unit, n in zip(units, TASKS, strict=True):
        fail, decided = unit.fail_round.min(0), np.minimum(unit.fail_round.min(0), unit.pass_round.max(0))
        end = np.where(pool_red, pool_end, np.minimum(np.maximum(pool_end, decided), last_round))
        red |= fail <= end
        used += np.array(round_ends(n))[end]
    passed = (pool.pass_round[0] < NEVER) & (pool.pass_round[0] < pool.fail_round[0])
    return Found(red.any(1), pool_red.any(1), used.mean(1) / sum(TASKS), passed.ravel())


if __name__ == "__main__":
    main()
