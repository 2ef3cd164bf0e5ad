"""What accepting a proposal changes, unit by unit, and which of it loosens the gate: lets later runs keep less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.baseline.compare import compare_provenance
from harness.baseline.noise import pair_correct
from harness.baseline.record import Baseline, BaselineTask
from harness.core.errors import EvidenceError
from harness.core.records import record
from harness.core.verdicts import POOLED, Estimate, PairedCounts
from harness.stats.intervals import wilson
from harness.stats.paired import tango_interval

INTERVAL_LEVEL = 0.95

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Informative:
    """When a task can show a loss: the lower end of its accuracy's interval at ``level`` exceeds chance and the majority
    answer by more than ``margin``. The values are those of the shipped policy."""

    margin: float = 0.02
    level: float = 0.95

    def holds(self, task: BaselineTask) -> bool:
        """Whether a task can show a loss."""
        low = wilson(task.n_correct, task.info.n_items, self.level).low
        return low > max(task.info.chance, task.info.majority) + self.margin


INFORMATIVE_AS_SHIPPED = Informative()
"""As the shipped policy has it."""


@record
class UnitState:
    """One task, or "pooled", of one baseline; in fractions of all items."""

    n_items: int
    accuracy: float
    sigma: float
    flip_rate: float


@record
class UnitChange:
    """One task, or "pooled", before and now; None on the side that does not have it.

    ``counts`` and ``loss`` (positive is worse) are over the items that both hold, None without any. ``rules`` says what is
    counted in another way, and of a task what is asked or meant in another way.
    """

    name: str
    before: UnitState | None
    now: UnitState | None
    counts: PairedCounts | None
    loss: Estimate | None
    rules: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether both hold the same items with the same answers, and the same noise."""
        same_items = self.now is not None and self.counts == PairedCounts(0, 0, self.now.n_items)
        return same_items and self.before == self.now and not self.rules


@record
class Changes:
    """All that differs: per task and for the pool, and in words what the model, engine, recipe, size and bits became."""

    units: tuple[UnitChange, ...]
    differences: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether both say the same of every item, and of their noise."""
        return not self.differences and all(unit.is_nothing for unit in self.units)


def compare_baselines(before: Baseline | None, now: Baseline) -> Changes:
    """What changes from the accepted baseline (None where there is none) to the proposed one."""
    if before is None:
        alone = [UnitChange(name, None, state, None, None, ()) for name, state in _states(now, _pool(now)).items()]
        return Changes(tuple(alone), ())
    pool = [name for name in _pool(now) if name in _pool(before)]
    old, new = _states(before, pool), _states(now, pool)
    names = sorted(dict.fromkeys([*new, *old]), key=lambda name: name == POOLED)  # the pool comes last
    units = tuple(_unit(name, before, now, pool, (old.get(name), new.get(name))) for name in names)
    was, is_now = before.record, now.record
    return Changes(units, tuple(compare_provenance(was.provenance, is_now.provenance, was.compression, is_now.compression)))


def loosened(before: Baseline | None, now: Baseline, informative: Informative) -> Iterator[str]:
    """Everything by which later runs would have to keep less than now, one phrase each; nothing where none is accepted."""
    if before is None:
        return
    if before.record.compression.stability == "stable" and now.record.compression.stability == "re-compressed":
        yield "the weights now move whenever the cell is compressed again"
    for unit in compare_baselines(before, now).units:
        if unit.before is None:
            continue
        if unit.now is None:
            yield f"{unit.name} is dropped"
            continue
        yield from _loosened_unit(unit.name, unit.before, unit.now)
        if unit.name != POOLED:
            yield from _loosened_task(unit.name, before, now, informative)


def points(fraction: float) -> str:
    """A fraction of all items in points, to three figures.

    >>> points(0.0131579), points(-0.5), points(0.00002)
    ('1.32', '-50', '0.002')
    """
    return f"{100 * fraction:.3g}"


def _loosened_unit(name: str, before: UnitState, now: UnitState) -> Iterator[str]:
    if now.accuracy < before.accuracy:
        yield f"the accuracy of {name} falls by {points(before.accuracy - now.accuracy)} pt"
    for what, was, is_now in (("spread", before.sigma, now.sigma), ("flip rate", before.flip_rate, now.flip_rate)):
        if is_now > was + _ROUNDING:
            yield f"the A/A {what} of {name} grows from {points(was)} to {points(is_now)} pt"


def _loosened_task(name: str, before: Baseline, now: Baseline, informative: Informative) -> Iterator[str]:
    old, new = before.record.tasks[name], now.record.tasks[name]
    n_gone = len(set(before.outcomes[name].digests).difference(now.outcomes[name].digests))
    if n_gone:
        yield f"{name} drops {n_gone:,} of its {old.info.n_items:,} items"
    if old.info.pooled and not new.info.pooled:
        yield f"{name} leaves the pool"
    if old.info.n_clusters is not None and new.info.n_clusters is None:
        yield f"{name}'s relations stood for others, and now only for themselves"
    if informative.holds(old) and not informative.holds(new):
        yield f"{name} comes too near to guessing to show a loss"
    if rules := _rules(old, new):
        yield f"{name} counts its answers in another way ({'; '.join(rules)})"


def _unit(
    name: str, before: Baseline, now: Baseline, pool: Sequence[str], states: tuple[UnitState | None, UnitState | None]
) -> UnitChange:
    members = pool if name == POOLED else [name]
    shared = [task for task in members if task in before.outcomes and task in now.outcomes]
    counts = _counts(before, now, shared)
    told = _rules if name == POOLED else _differences
    rules = [rule for task in shared for rule in told(before.record.tasks[task], now.record.tasks[task])]
    return UnitChange(name, *states, counts, None if counts is None else _loss(counts), tuple(dict.fromkeys(rules)))


def _states(baseline: Baseline, pool: Sequence[str]) -> dict[str, UnitState]:
    """Each task of a baseline, and under "pooled" those of ``pool`` together."""
    made, noise = baseline.record, baseline.record.noise
    if noise is None:
        raise EvidenceError(f"a baseline of {made.cell.id} tells no A/A runs: make it again.")
    units = {name: [task] for name, task in made.tasks.items()}
    if pool:
        units[POOLED] = [made.tasks[name] for name in pool]
    return {name: UnitState(*_right_of(tasks), noise.sigma[name], noise.flip_rate[name]) for name, tasks in units.items()}


def _right_of(tasks: Sequence[BaselineTask]) -> tuple[int, float]:
    n_items = sum(task.info.n_items for task in tasks)
    return n_items, sum(task.n_correct for task in tasks) / n_items


def _pool(baseline: Baseline) -> list[str]:
    return [name for name, task in baseline.record.tasks.items() if task.info.pooled]


def _counts(before: Baseline, now: Baseline, tasks: Sequence[str]) -> PairedCounts | None:
    pairs = [pair_correct(before.outcomes[task], now.outcomes[task]) for task in tasks]
    n_items = sum(len(was) for was, _ in pairs)
    lost = sum(int(np.count_nonzero(was & ~is_now)) for was, is_now in pairs)
    gained = sum(int(np.count_nonzero(~was & is_now)) for was, is_now in pairs)
    return PairedCounts(lost, gained, n_items - lost - gained) if n_items else None


def _loss(counts: PairedCounts) -> Estimate:
    low, high = tango_interval(counts.n_lost, counts.n_gained, counts.n_items, INTERVAL_LEVEL)
    return Estimate(counts.loss, low, high, INTERVAL_LEVEL, "tango")


def _rules(old: BaselineTask, new: BaselineTask) -> list[str]:
    pairs = (
        ("protocol", old.info.protocol, new.info.protocol),
        ("kind of score", old.info.score_class, new.info.score_class),
        ("tie rule", old.info.tie_rule, new.info.tie_rule),
        ("scorer", old.scorer, new.scorer),
    )
    return [f"{word}: {was} -> {is_now}" for word, was, is_now in pairs if was != is_now]


def _differences(old: BaselineTask, new: BaselineTask) -> list[str]:
    """Everything that two records of a task say of it in another way, but for its items and their outcomes."""
    pairs = (
        ("data version", old.info.data_version, new.info.data_version),
        ("specification", old.info.spec_digest[:12], new.info.spec_digest[:12]),
        ("in the pool", old.info.pooled, new.info.pooled),
        ("relations that stand for others", old.info.n_clusters, new.info.n_clusters),
        ("chance", old.info.chance, new.info.chance),
        ("share of the commonest answer", old.info.majority, new.info.majority),
    )
    changed = [f"{word}: {_told(was)} -> {_told(is_now)}" for word, was, is_now in pairs if was != is_now]
    return [*_rules(old, new), *changed]


def _told(value: str | int | float | bool | None) -> str:
    """A value for people.

    >>> [_told(value) for value in ("7", 0.1 + 0.2, True, False, None, 24)]
    ['7', '0.3', 'yes', 'no', 'none', '24']
    """
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
