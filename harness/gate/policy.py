"""What may be lost, and how often the gate may err: the settings of ``suites/policy.toml``, validated once.

All margins and rates are fractions of all items (0.01 is one point). m0 is what FAIL proves to be exceeded, m1 what PASS
proves not to be reached; between the two lies what a commit may cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from harness.baseline import ENGINE_PARTS
from harness.core.records import Cell, ScoreClass, record
from harness.core.serial import read_toml
from harness.core.verdicts import Status
from harness.stats.multiplicity import bonferroni

Mode = Literal["commit", "release"]
"""What is being gated: a commit (INCONCLUSIVE warns) or a release (it fails)."""


LEAST_SHARE = 1e-9
"""How near to 0 and to 1 a level may come: nearer, its normal quantile is rounding error, and a margin of it no number."""


@record
class Margins:
    """How much a cell or a task may lose: m1 = max(m1_floor, m1_flips sqrt(f_ref/N), m1_items/N), at most m1_cap."""

    m0: float
    m1_floor: float
    m1_flips: float
    m1_items: float
    m1_cap: float

    def m1(self, n_items: int, flip_rate: float) -> float:
        """The margin that a PASS proves, at ``n_items`` and the reference flip rate of the change class.

        >>> Margins(m0=0.01, m1_floor=0.05, m1_flips=4.0, m1_items=10.0, m1_cap=0.5).m1(100, 0.01)
        0.1
        """
        wanted = max(self.m1_floor, self.m1_flips * math.sqrt(flip_rate / n_items), self.m1_items / n_items)
        return min(wanted, self.m1_cap)


@record
class Early:
    """The share of each level that is spent by early verdicts; p-values at full N are divided by what remains."""

    fail_share: float
    pass_share: float


@record
class FlipRates:
    """f_ref: the share of items that flip either way when nothing regressed, per change class."""

    log_likelihood: float
    generation: float
    re_compressed: float

    def of(self, score_class: ScoreClass, recompressed: bool) -> float:
        """The rate for a task of this score class, or for any task of a cell that was compressed again."""
        if recompressed:
            return self.re_compressed
        return self.generation if score_class == "generation" else self.log_likelihood


@record
class Fails:
    """The verdicts that fail a commit, and those that fail a release."""

    commit: tuple[Status, ...]
    release: tuple[Status, ...]


@record
class DenseFloor:
    """What a cell may lose against the dense cell of its model, as a fraction of all items.

    ``cells`` is a pattern of cell ids, with ``*`` and ``?``: ``*_4bit-rtn_*`` are all cells of that compression.
    """

    cells: str
    max_loss: float

    @property
    def margins(self) -> Margins:
        """One line for both: FAIL proves that more was lost, PASS that less was, whatever N."""
        return Margins(m0=self.max_loss, m1_floor=self.max_loss, m1_flips=0.0, m1_items=0.0, m1_cap=self.max_loss)


@record
class Policy:
    """The gate's settings; see ``suites/policy.toml`` for what each means."""

    alpha_commit: float
    cell_share: float
    pass_level: float
    interval_level: float
    power: float
    pool_cap_items: int
    informative_margin: float
    early: Early
    flip_rates: FlipRates
    cell: Margins
    task: Margins
    release_cell: Margins
    release_task: Margins
    recovery: Margins
    fails: Fails
    require_same: tuple[str, ...]
    dense_floor: tuple[DenseFloor, ...] = ()

    def floor_of(self, cell: Cell) -> DenseFloor | None:
        """The first floor whose pattern is the cell's; None where it has none, as a dense cell never has."""
        if cell.is_dense:
            return None
        return next((floor for floor in self.dense_floor if fnmatchcase(cell.id, floor.cells)), None)

    def fails_in(self, mode: Mode, status: Status) -> bool:
        """Whether a verdict fails in this mode."""
        return status in (self.fails.release if mode == "release" else self.fails.commit)


@dataclass(frozen=True)
class Family:
    """How many verdicts a profile declares, whatever a run selects: its cells, and the tasks of all its cells together."""

    n_cells: int
    n_tasks: int

    def cell_level(self, policy: Policy) -> float:
        """The level of one cell's FAIL test: Bonferroni over the profile's cells."""
        return bonferroni(policy.alpha_commit * policy.cell_share, self.n_cells)

    def task_level(self, policy: Policy) -> float:
        """The level of one task's FAIL test: Bonferroni over all tasks of all cells of the profile."""
        return bonferroni(policy.alpha_commit * (1 - policy.cell_share), self.n_tasks)


def read_policy(path: Path) -> Policy:
    """The policy in a TOML file. Raises ConfigError with file, line and key for anything that is not one."""
    return read_toml(path, Policy, problems=policy_problems)


def policy_problems(policy: Policy) -> Iterator[tuple[str, str]]:
    """What is wrong with a policy of the right types: (dotted key, sentence)."""
    shares = {
        "alpha_commit": policy.alpha_commit,
        "cell_share": policy.cell_share,
        "pass_level": policy.pass_level,
        "interval_level": policy.interval_level,
        "power": policy.power,
        "early.fail_share": policy.early.fail_share,
        "early.pass_share": policy.early.pass_share,
        "flip_rates.log_likelihood": policy.flip_rates.log_likelihood,
        "flip_rates.generation": policy.flip_rates.generation,
        "flip_rates.re_compressed": policy.flip_rates.re_compressed,
    }
    for key, value in shares.items():
        if not LEAST_SHARE <= value <= 1 - LEAST_SHARE:
            yield key, f"expected a number between 0 and 1 (both excluded, by {LEAST_SHARE:g} at least), got {value}."
    if not 0 <= policy.informative_margin <= 0.5:
        why = "with more, hardly any task could show a loss, and nothing would ever be red"
        yield "informative_margin", f"expected a fraction from 0 to 0.5, got {policy.informative_margin}: {why}."
    if policy.pass_level * (1 - policy.early.pass_share) >= 0.5:
        yield (
            "pass_level",
            f"expected pass_level * (1 - early.pass_share) below 0.5, got {policy.pass_level}: PASS would prove nothing.",
        )
    if policy.pool_cap_items < 1:
        yield "pool_cap_items", f"expected at least one item, got {policy.pool_cap_items}."
    yield from _margin_problems("cell", policy.cell)
    yield from _margin_problems("task", policy.task)
    yield from _margin_problems("release_cell", policy.release_cell)
    yield from _margin_problems("release_task", policy.release_task)
    yield from _margin_problems("recovery", policy.recovery)
    for part in policy.require_same:
        if part not in ENGINE_PARTS:
            yield "require_same", f"{part!r} is no part of an engine; known: {', '.join(ENGINE_PARTS)}."
    for number, floor in enumerate(policy.dense_floor):
        if not 0 < floor.max_loss < 1:
            got = f"got {floor.max_loss} for cells {floor.cells!r}"
            yield f"dense_floor.{number}.max_loss", f"expected a loss between 0 and 1 (both excluded), {got}."
    yield from _fails_problems("fails.commit", policy.fails.commit)
    yield from _fails_problems("fails.release", policy.fails.release)


def _margin_problems(table: str, margins: Margins) -> Iterator[tuple[str, str]]:
    if not 0 < margins.m0 < 1:
        yield f"{table}.m0", f"expected a loss between 0 and 1 (both excluded), got {margins.m0}."
    if not margins.m0 < margins.m1_floor:
        yield f"{table}.m1_floor", f"expected more than m0 ({margins.m0}), got {margins.m1_floor}: PASS would contradict FAIL."
    if not margins.m1_floor <= margins.m1_cap < 1:
        yield f"{table}.m1_cap", f"expected at least m1_floor ({margins.m1_floor}) and below 1, got {margins.m1_cap}."
    for key, value in (("m1_flips", margins.m1_flips), ("m1_items", margins.m1_items)):
        if value < 0:
            yield f"{table}.{key}", f"expected 0 or more, got {value}."


def _fails_problems(key: str, statuses: tuple[Status, ...]) -> Iterator[tuple[str, str]]:
    for status in (Status.REGRESSED, Status.INVALID):
        if status not in statuses:
            yield key, f"{status} must be listed: a gate that lets it through is none."
    for status in statuses:
        if status not in (Status.REGRESSED, Status.INVALID, Status.INCONCLUSIVE):
            yield key, f"{status} can't fail: only REGRESSED, INVALID and INCONCLUSIVE can."
