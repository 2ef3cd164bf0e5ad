"""A recorded cell as something to inject losses into: copies of its records, and its units as the gate would test them.

A candidate is the recorded cell with other weights and some answers changed. Rules, margins, levels, noise and pools are those
that ``Bench`` makes of such a candidate; nothing is set here but how many items flip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from harness.baseline import Baseline, pooled_differences
from harness.core.digest import digest_text
from harness.core.outcomes import Outcomes
from harness.core.records import SCHEMA_VERSION, CellRecord, CellRun, TaskRun
from harness.core.verdicts import POOLED, CellVerdict, Status
from harness.gate.bench import Bench, Noise
from harness.gate.clusters import has_clusters
from harness.gate.comparison import Comparison, compare
from harness.gate.decision import Unit
from harness.gate.judge import judge, undecided
from harness.gate.policy import Family, Policy
from harness.gate.sides import benches
from harness.gate.simulation import Fates, SimulatedCell, SimulatedTask, bounds_of
from harness.stats.boundaries import Bounds
from harness.stats.recompression import draw_shifts
from harness.stats.sequential import round_ends

_CANDIDATE = digest_text("weights of a self-test: whatever they are, not the baseline's")


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A cell as it was recorded, whole, and what the gate judges it by."""

    run: CellRun
    last: Baseline
    release: Baseline | None
    policy: Policy
    family: Family

    @property
    def id(self) -> str:
        """The cell's id."""
        return self.run.record.cell.id

    @property
    def tasks(self) -> tuple[str, ...]:
        """The declared tasks."""
        return tuple(self.run.runs)

    @property
    def anchors(self) -> tuple[Baseline, ...]:
        """What candidates are compared with."""
        return (self.last,) if self.release is None else (self.last, self.release)

    def candidate(
        self,
        changed: Mapping[str, Bool[np.ndarray, " n"]] | None = None,
        order: Mapping[str, Int[np.ndarray, " n"]] | None = None,
    ) -> CellRun:
        """The records of a candidate: answers right as ``changed`` says, items fed in this ``order``."""
        made = self.run.record
        provenance = replace(made.provenance, weights_digest=_CANDIDATE)
        record = replace(made, provenance=provenance, origins=dict.fromkeys(self.tasks, "measured"))
        runs = {}
        for name, task in self.run.runs.items():
            right = task.outcomes.correct if changed is None else changed[name]
            rows = np.arange(len(right)) if order is None else order[name]
            runs[name] = replace(task, items=(), outcomes=taken(task.outcomes, right, rows), origin="measured")
        return CellRun(record, runs)

    def random_order(self, rng: np.random.Generator) -> dict[str, Int[np.ndarray, " n"]]:
        """An order in which each task's items may be fed."""
        return {name: rng.permutation(len(task.outcomes)) for name, task in self.run.runs.items()}

    def pool_order(
        self, cell: SimulatedCell, units: Sequence[AnchorUnits], rng: np.random.Generator
    ) -> dict[str, Int[np.ndarray, " n"]]:
        """The same, with as many items of the pool in each round as are simulated."""
        order = {}
        for task in cell.tasks:
            kept = units[0].compared[task.name].in_pool(self.policy.pool_cap_items)
            pool, rest = (rng.permutation(np.flatnonzero(kept == which)) for which in (True, False))
            pool_ends = task.pool_ends if task.n_in_pool else np.array(round_ends(len(kept)))
            cuts = pool_ends[:-1], (task.ends - pool_ends)[:-1]
            parts = zip(np.split(pool, cuts[0]), np.split(rest, cuts[1]), strict=True)
            order[task.name] = np.concatenate([part for pair in parts for part in pair])
        return order

    def judge(self, run: CellRun) -> CellVerdict:
        """The gate's verdicts on a run of this cell."""
        return judge(
            run,
            self.last,
            self.policy,
            self.family,
            mode="commit",
            declared_tasks=self.tasks,
            release=self.release,
        )

    def feed_and_judge(self, run: CellRun) -> tuple[CellVerdict, dict[str, int]]:
        """The verdicts on a run that is fed in rounds and stopped as a measuring run is; and the rounds of each task."""
        rounds, still = dict.fromkeys(self.tasks, 0), frozenset(self.tasks)
        n_rounds = len(round_ends(1))
        for index in range(n_rounds):
            rounds |= dict.fromkeys(still, index + 1)
            so_far = _cut(run, rounds)
            if index < n_rounds - 1:
                still = undecided(so_far, self.last, self.policy, self.family, declared_tasks=self.tasks, release=self.release)
            if not still:
                break
        return self.judge(_cut(run, rounds)), rounds

    def units(self) -> tuple[AnchorUnits, ...]:
        """What the gate tests of a candidate, against each anchor."""
        run = self.candidate()
        by = benches(run, self.policy, self.family, "commit", has_last=True, has_release=self.release is not None)
        return tuple(AnchorUnits.of(run, bench, baseline) for bench, baseline in zip(by.values(), self.anchors, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class AnchorUnits:
    """The units of a cell against one anchor: its informative tasks, and its pool where there is one."""

    anchor: str
    noise: Noise
    compared: Mapping[str, Comparison]
    tasks: Mapping[str, Unit]
    members: tuple[str, ...]
    pool: Unit | None
    flip_rates: Mapping[str, float]
    in_pool: Mapping[str, int]

    @classmethod
    def of(cls, run: CellRun, bench: Bench, baseline: Baseline) -> AnchorUnits:
        """The units of a run that can be compared with this anchor."""
        noise, policy = Noise.of(run, baseline), bench.policy
        found = {name: compare(run, baseline, name) for name in run.runs}
        compared = {name: one for name, one in found.items() if isinstance(one, Comparison)}
        members = bench.members(compared)
        rates = {name: noise.flip_rate(one, policy) for name, one in compared.items()}
        if members:
            rates[POOLED] = noise.pooled_flip_rate(members, policy)
        return cls(
            anchor=bench.anchor,
            noise=noise,
            compared=compared,
            tasks={name: bench.task_unit(one, noise) for name, one in compared.items() if bench.is_informative(one)},
            members=tuple(member.name for member in members),
            pool=bench.pool_unit(members, noise) if members else None,
            flip_rates=rates,
            in_pool={name: one.n_in_pool(policy.pool_cap_items) for name, one in compared.items()},
        )

    @property
    def all(self) -> dict[str, Unit]:
        """The units by name, the pool as "pooled"."""
        return {**self.tasks, **({} if self.pool is None else {POOLED: self.pool})}


def run_of_baseline(baseline: Baseline, model_family: str, tasks: Sequence[str]) -> CellRun:
    """An accepted baseline as a measured run of the declared tasks that it has."""
    made = baseline.record
    runs = {name: baseline.task_run(name) for name in tasks if name in made.tasks}
    record = CellRecord(
        schema_version=SCHEMA_VERSION,
        cell=made.cell,
        profile=made.profile,
        family=model_family,
        compression=made.compression,
        provenance=made.provenance,
        tasks={name: task.info for name, task in runs.items()},
        scorers={name: task.scorer for name, task in runs.items()},
        origins={name: task.origin for name, task in runs.items()},
        wall_s=dict.fromkeys(runs, 0.0),
    )
    return CellRun(record, runs)


def problem_of(recorded: Recorded, declared_tasks: Sequence[str]) -> str | None:
    """Why nothing can be injected into a cell: it is not whole, or the gate finds it INVALID as it stands."""
    run = recorded.run
    missing = [name for name in declared_tasks if name not in run.runs]
    if missing:
        return f"its records have no {', '.join(missing)}"
    short = [name for name, task in run.runs.items() if task.info.limit is not None or len(task.outcomes) < task.info.n_items]
    if short:
        return f"only a part of {', '.join(short)} was measured: --harness-full measures all"
    known = {name: task.info for name, task in recorded.last.record.tasks.items()}
    clustered = [name for name, task in run.runs.items() if name in known and has_clusters(task.info, known[name])]
    if clustered:
        return (
            f"relations of {', '.join(clustered)} stand for others, and how they move together can't be injected: "
            "benchmarks/clustered_cells.py simulates that"
        )
    invalid = [verdict for verdict in recorded.judge(recorded.candidate()).all if verdict.status is Status.INVALID]
    return invalid[0].reason if invalid else None


# ------------------------------------------------------------------------------------------------ what is simulated


@dataclass(frozen=True, slots=True)
class Injection:
    """What becomes of a cell: ``loss`` of every task, as a fraction of its items, on top of the flips that mean nothing.

    ``flips``: the share of the items that flip either way; None for each task's f_ref. Half of them are lost.
    """

    loss: float
    flips: float | None = None


def chances_to_flip(n_right: int, n_items: int, flips: float, loss: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "rows 2"]:
    """The chances of a right and of a wrong answer to change, so that ``flips`` of all items do and ``loss`` is lost.

    Never more than there is: as many are lost as gained, however few are right or wrong.

    >>> chances_to_flip(60, 100, 0.02, np.array([0.0, 0.03, -0.4])).round(4).tolist()
    [[0.0167, 0.025], [0.0667, 0.025], [0.0167, 1.0]]
    """
    right, wrong = n_right / n_items, 1 - n_right / n_items
    half = min(flips / 2, right, wrong)
    lost = np.minimum(half + np.maximum(loss, 0.0), right)
    gained = np.minimum(half + np.maximum(-loss, 0.0), wrong)
    return np.stack([lost / max(right, 1e-300), gained / max(wrong, 1e-300)], axis=1)


def draw_fates_of(
    recorded: Recorded, units: Sequence[AnchorUnits], injection: Injection, n_commits: int, rng: np.random.Generator
) -> tuple[Fates, ...]:
    """What may become of an item of each task. A re-compressed cell's loss also moves by itself, in every commit anew."""
    shifts = _shifts(recorded, units[0], n_commits, rng)
    return tuple(
        _fates(recorded.run.runs[name], [one.compared[name] for one in units], _flips(units[0], name, injection), loss)
        for name, loss in zip(recorded.tasks, (injection.loss + shifts).T, strict=True)
    )


def inject(
    recorded: Recorded,
    units: Sequence[AnchorUnits],
    injection: Injection,
    order: Mapping[str, Int[np.ndarray, " n"]],
    rng: np.random.Generator,
) -> CellRun:
    """A candidate's records, drawn as the simulation draws its counts: some of the recorded answers are changed."""
    changed = {}
    for name, loss in zip(recorded.tasks, (injection.loss + _shifts(recorded, units[0], 1, rng))[0], strict=True):
        right = recorded.run.runs[name].outcomes.correct
        flip = chances_to_flip(int(right.sum()), len(right), _flips(units[0], name, injection), np.array([loss]))[0]
        changed[name] = right ^ (rng.random(len(right)) < np.where(right, flip[0], flip[1]))
    return recorded.candidate(changed, order)


def simulated_cell(recorded: Recorded, units: Sequence[AnchorUnits], flips: float | None = None) -> SimulatedCell:
    """The cell's tasks and pools with their bounds."""

    def bounds(one: AnchorUnits, name: str, n_fed: Int[np.ndarray, " rounds"]) -> Bounds | None:
        unit = one.all.get(name)
        if unit is None:
            return None
        most = n_gained_most(unit, flips if flips is not None else one.flip_rates[name], drift(one, name))
        return bounds_of(unit.rule(recorded.policy), n_fed, most)

    tasks = []
    for name, task in recorded.run.runs.items():
        n = task.info.n_items
        in_pool = max((one.in_pool[name] for one in units if name in one.members), default=0)
        tasks.append(SimulatedTask(name, n, in_pool, tuple(bounds(one, name, np.array(round_ends(n))) for one in units)))
    pools = []
    for one in units:
        fed = [task.pool_ends for task in tasks if task.name in one.members]
        pools.append(bounds(one, POOLED, np.sum(fed, axis=0)) if fed else None)
    return SimulatedCell(tuple(tasks), tuple(pools))


def n_gained_most(unit: Unit, flips: float, drift: float) -> int:
    """More items than a unit can be expected to gain: all of them, where re-compressing alone moves it."""
    n = unit.trail.n_planned
    if unit.spread.sigma > 0:
        return n
    mean = n * min(1.0, flips / 2 + drift)
    return min(n, int(mean + 12 * mean**0.5) + 40)


def drift(one: AnchorUnits, name: str) -> float:
    """The share of a unit's items that the recorded state has gained since the anchor."""
    names = one.members if name == POOLED else (name,)
    gained = sum(one.compared[member].counts.n_gained for member in names)
    return gained / sum(one.compared[member].n_all for member in names)


def _flips(one: AnchorUnits, name: str, injection: Injection) -> float:
    return one.flip_rates[name] if injection.flips is None else injection.flips


def _shifts(recorded: Recorded, one: AnchorUnits, n: int, rng: np.random.Generator) -> Float[np.ndarray, "rows tasks"]:
    noise = one.noise.baseline.record.noise
    if not one.noise.recompressed or noise is None:
        return np.zeros((1, len(recorded.tasks)))
    return draw_shifts(np.stack([pooled_differences(noise.runs, {name: 1}) for name in recorded.tasks], axis=1), n, rng)


def _fates(task: TaskRun, compared: Sequence[Comparison], flips: float, loss: Float[np.ndarray, " rows"]) -> Fates:
    """Every way that an item can stand (right or wrong in the state and at each anchor), and flipped or not."""
    state = task.outcomes.correct
    flip = chances_to_flip(int(state.sum()), len(state), flips, loss)
    ways = np.stack([state, *(one.before for one in compared)])
    kinds, counts = np.unique(ways, axis=1, return_counts=True)
    chances: dict[tuple[tuple[bool, ...], tuple[bool, ...]], np.ndarray] = {}
    for kind, count in zip(kinds.T, counts, strict=True):
        flipping = flip[:, 0 if kind[0] else 1]
        for now, chance in ((not kind[0], flipping), (bool(kind[0]), 1 - flipping)):
            lost = tuple(bool(before and not now) for before in kind[1:])
            gained = tuple(bool(now and not before) for before in kind[1:])
            if any(lost) or any(gained):
                chances[lost, gained] = chances.get((lost, gained), np.zeros(len(loss))) + chance * count / len(state)
    effects = list(chances)
    return Fates(
        np.stack([chances[effect] for effect in effects], axis=1),
        np.array([lost for lost, _ in effects]).T,
        np.array([gained for _, gained in effects]).T,
    )


def taken(outcomes: Outcomes, right: Bool[np.ndarray, " n"], rows: Int[np.ndarray, " kept"]) -> Outcomes:
    """Some of the items' outcomes, in this order, right where ``right`` says so; without scores and texts of options.

    What is changed here is no near-tie any more: it is injected to be seen.
    """
    return Outcomes(
        digests=tuple(outcomes.digests[row] for row in rows),
        correct=right[rows],
        answers=outcomes.answers[rows],
        ranks=outcomes.ranks[rows],
        margins_nats=outcomes.margins_nats[rows],
        near_ties=(outcomes.near_ties & (right == outcomes.correct))[rows],
        option_logliks_nats=None,
    )


def _cut(run: CellRun, rounds: Mapping[str, int]) -> CellRun:
    """The run as it stood when each task had been fed so many rounds."""

    def part(task: TaskRun, end: int) -> TaskRun:
        return replace(task, outcomes=taken(task.outcomes, task.outcomes.correct, np.arange(end)))

    ends = {name: round_ends(task.info.n_items)[rounds[name] - 1] for name, task in run.runs.items()}
    return CellRun(run.record, {name: part(task, ends[name]) for name, task in run.runs.items()})
