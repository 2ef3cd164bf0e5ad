"""The gate tests itself: how often it errs, what it finds and what it costs, for these recorded cells and this policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Bool, Float

from harness.core.records import SCHEMA_VERSION, record
from harness.gate.promises import Promise, UnitRates, commit_promises, is_kept, unit_promises, unit_rates
from harness.gate.recorded import AnchorUnits, Injection, Recorded, draw_fates_of, simulated_cell
from harness.gate.replay import Check, check_aa_runs, check_damage, check_simulation, check_unchanged, merged
from harness.gate.simulation import SimulatedCell, draw_fates, simulate
from harness.stats.intervals import wilson

LOSSES = (0.005, 0.01, 0.02, 0.05)
"""What cells are tried to have lost everywhere, as fractions of all items."""

_INTERVAL = 0.95
_BLOCK = 5000
Tell = Callable[[int, int], None]
"""Told how many cells are done, of how many."""


@record
class LossRates:
    """What became of simulated commits that lost ``loss`` everywhere: the share that is red with its 95 % interval, the share
    whose pool (each anchor's) passes, and the mean share of the items that were fed."""

    loss: float
    red: float
    red_low: float
    red_high: float
    passed: float
    used: float


@record
class CellRates:
    """One cell: its anchors, whether only its last round decides (``at_full_n``: it was compressed again), and its rates.

    ``tolerated``: the loss that is no more than m0 for any of its units.
    """

    cell: str
    n_items: int
    anchors: tuple[str, ...]
    at_full_n: bool
    tolerated: float
    losses: tuple[LossRates, ...]
    units: tuple[UnitRates, ...]


@record
class SelfTest:
    """All that was found. ``commits``: of commits on which every tested cell lost the same; ``untested``: cells, and why."""

    schema_version: int
    profile: str
    n_commits: int
    seed: int
    flips: float | None
    alpha_commit: float
    power: float
    commits: tuple[LossRates, ...]
    cells: tuple[CellRates, ...]
    promises: tuple[Promise, ...]
    checks: tuple[Check, ...]
    untested: dict[str, str]

    @property
    def is_kept(self) -> bool:
        """Whether every promise is shown to be kept, and every check came out as it had to."""
        return is_kept(self.promises) and all(check.is_kept for check in self.checks)


def self_test(
    cells: Sequence[Recorded],
    *,
    profile: str,
    n_commits: int,
    seed: int,
    flips: float | None = None,
    untested: Mapping[str, str] | None = None,
    n_replayed: int = 3,
    tell: Tell | None = None,
) -> SelfTest:
    """Everything about at least one cell of a profile.

    ``flips``: the share of items that flip when nothing changed; None for each task's f_ref. ``n_replayed`` commits of each
    loss are fed and judged as records too. A cell's numbers depend on the seed, the cell and its place only.
    """
    policy, found = cells[0].policy, []
    for index, recorded in enumerate(cells):
        if tell is not None:
            tell(index, len(cells))
        of_cell = _Asked(n_commits, flips, n_replayed, np.random.default_rng([seed, index]))
        found.append(_test_cell(recorded, of_cell))
    if tell is not None:
        tell(len(cells), len(cells))
    rates = [one.rates for one in found]
    commits = {name: reduce(_Commits.and_also, (one.commits[name] for one in found)) for name in found[0].commits}
    told = _kinds(max(one.tolerated for one in rates))
    of_units = (promise for cell in rates for one in cell.units for promise in unit_promises(cell.cell, one, policy))
    return SelfTest(
        schema_version=SCHEMA_VERSION,
        profile=profile,
        n_commits=n_commits,
        seed=seed,
        flips=flips,
        alpha_commit=policy.alpha_commit,
        power=policy.power,
        commits=tuple(commits[name].rates(loss) for name, loss in told.items()),
        cells=tuple(rates),
        promises=(*commit_promises(policy, {name: one.red for name, one in commits.items()}), *of_units),
        checks=merged([check for one in found for check in one.checks]),
        untested=dict(untested or {}),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked about a cell, and its random numbers."""

    n_commits: int
    flips: float | None
    n_replayed: int
    rng: np.random.Generator


@dataclass(frozen=True, slots=True, eq=False)
class _Tested:
    """What was found about a cell: its rates, its part of every kind of commit, and the checks of its records."""

    rates: CellRates
    commits: Mapping[str, _Commits]
    checks: tuple[Check, ...]


def _test_cell(recorded: Recorded, asked: _Asked) -> _Tested:
    units, rng = recorded.units(), asked.rng
    cell = simulated_cell(recorded, units, asked.flips)
    exact = tuple(one for at, anchor in enumerate(units) for one in unit_rates(recorded, anchor, cell, at, asked.flips))
    kinds = _kinds(min((one.m0 for one in exact), default=0.0))
    found = {
        loss: _simulate(recorded, units, cell, Injection(loss, asked.flips), asked) for loss in dict.fromkeys(kinds.values())
    }
    replayed = [loss for loss in (0.0, *LOSSES) for _ in range(asked.n_replayed)]
    rates = CellRates(
        cell=recorded.id,
        n_items=cell.n_items,
        anchors=tuple(one.anchor for one in units),
        at_full_n=any(unit.spread.sigma > 0 for one in units for unit in one.all.values()),
        tolerated=kinds["tolerated"],
        losses=tuple(found[loss].rates(loss) for loss in kinds.values()),
        units=exact,
    )
    checks = (
        check_unchanged(recorded),
        check_aa_runs(recorded, rng),
        check_damage(recorded),
        check_simulation(recorded, units, cell, replayed, rng=rng, flips=asked.flips),
    )
    return _Tested(rates, {name: found[loss] for name, loss in kinds.items()}, checks)


def _kinds(tolerated: float) -> dict[str, float]:
    """The kinds of commits that are simulated, and what every cell loses in each."""
    return {"unchanged": 0.0, "tolerated": tolerated, **{f"{loss}": loss for loss in LOSSES}}


@dataclass(frozen=True, slots=True, eq=False)
class _Commits:
    """Simulated commits of one kind, one cell or several: which are red, which pass, how many of their items were fed."""

    red: Bool[np.ndarray, " n"]
    passed: Bool[np.ndarray, " n"]
    used: Float[np.ndarray, " n"]
    n_items: int

    def and_also(self, other: _Commits) -> _Commits:
        """The same commits with another cell's part in them."""
        n_items = self.n_items + other.n_items
        used = (self.used * self.n_items + other.used * other.n_items) / n_items
        return _Commits(self.red | other.red, self.passed & other.passed, used, n_items)

    def rates(self, loss: float) -> LossRates:
        interval = wilson(int(self.red.sum()), len(self.red), _INTERVAL)
        return LossRates(
            loss=loss,
            red=interval.value,
            red_low=interval.low,
            red_high=interval.high,
            passed=float(self.passed.mean()),
            used=float(self.used.mean()),
        )


def _simulate(
    recorded: Recorded, units: Sequence[AnchorUnits], cell: SimulatedCell, injection: Injection, asked: _Asked
) -> _Commits:
    """So many commits of one kind, in blocks that fit into memory."""
    parts = []
    for start in range(0, asked.n_commits, _BLOCK):
        n = min(_BLOCK, asked.n_commits - start)
        fates = draw_fates_of(recorded, units, injection, n, asked.rng)
        outcome = simulate(cell, n, draw_fates(cell, fates, asked.rng))
        parts.append((outcome.red, outcome.pool_passed.all(0), outcome.share_used(cell)))
    red, passed, used = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Commits(red, passed, used, cell.n_items)
