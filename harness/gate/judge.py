"""The judge: a measured cell, its baseline and the policy in; one verdict per task and one for the pool out.

In this order: what can't be compared is INVALID; what the baseline never knew is UNINFORMATIVE; what did not change is
PASS *identical*; the rest is decided by the paired tests of ``gate.decision``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.baseline import Baseline, propose_command, recompression_sigma
from harness.core.errors import EXIT_INCONCLUSIVE, EXIT_INVALID, EXIT_PASS, EXIT_REGRESSED
from harness.core.records import Cell, CellFailure, CellRun
from harness.core.verdicts import POOLED, CellVerdict, Estimate, Evidence, PairedCounts, Status, Verdict
from harness.gate.comparison import Comparison, Incomparable, compare
from harness.gate.decision import Unit, decide, weigh
from harness.gate.policy import Family, Mode, Policy
from harness.gate.reasons import explain, explain_identical, explain_uninformative
from harness.stats.intervals import wilson

Compared = Mapping[str, Comparison | Incomparable]


def judge(
    run: CellRun | CellFailure,
    baseline: Baseline | None,
    policy: Policy,
    family: Family,
    *,
    mode: Mode,
    declared_tasks: Sequence[str],
) -> CellVerdict:
    """The verdicts on one cell.

    ``family`` counts what the profile declares, so that a verdict does not depend on what else ran. Tasks of the run that
    are not declared are left alone; when a declared one is missing from the run there is no pooled verdict.
    """
    if isinstance(run, CellFailure):
        bench = _Bench(run.cell, run.profile, policy, family, mode)
        return bench.all_invalid(run.reason, declared_tasks)
    bench = _Bench(run.record.cell, run.record.profile, policy, family, mode)
    names = [name for name in declared_tasks if name in run.runs]
    whole = len(names) == len(declared_tasks)
    problem = _cell_problem(run, baseline)
    if problem is not None or baseline is None:
        return bench.all_invalid(problem or "", names, pooled=whole)
    noise = _Noise.of(run, baseline)
    compared = {name: compare(run, baseline, name) for name in names}
    tasks = tuple(bench.task(name, found, noise) for name, found in compared.items())
    return CellVerdict(bench.cell, bench.profile, tasks, bench.pool(compared, noise) if whole else None)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """What a run ends with: 1 if anything regressed, else 11 if anything is invalid, else 10 if something inconclusive
    fails under the mode, else 0. That nothing was judged at all is for the caller to notice."""
    failing = {verdict.status for verdict in verdicts if verdict.fails}
    for status, code in (
        (Status.REGRESSED, EXIT_REGRESSED),
        (Status.INVALID, EXIT_INVALID),
        (Status.INCONCLUSIVE, EXIT_INCONCLUSIVE),
    ):
        if status in failing:
            return code
    return EXIT_PASS


def _cell_problem(run: CellRun, baseline: Baseline | None) -> str | None:
    cell = run.record.cell
    if baseline is None:
        return f"{cell.id} has no baseline to be compared with: {propose_command(cell.id)} makes one for review."
    known = baseline.record
    if (known.cell, known.profile) != (cell, run.record.profile):
        mine = f"{run.record.profile}/{cell.id}"
        return f"the baseline is that of {known.profile}/{known.cell.id}, not of {mine}: load the right one."
    if _Noise.of(run, baseline).unknown:
        return (
            f"{cell.id} was compressed again, which moves it although nothing regressed, and its baseline does not know "
            f"by how much: {propose_command(cell.id, replaces=True)} measures that."
        )
    return None


@dataclass(frozen=True, slots=True)
class _Noise:
    """Whether the cell was compressed again, and what its baseline knows of the spread that this alone makes."""

    recompressed: bool
    baseline: Baseline

    @classmethod
    def of(cls, run: CellRun, baseline: Baseline) -> _Noise:
        same_weights = run.record.provenance.weights_digest == baseline.record.provenance.weights_digest
        moves = "re-compressed" in (run.record.compression.stability, baseline.record.compression.stability)
        return cls(moves and not same_weights, baseline)

    @property
    def unknown(self) -> bool:
        return self.recompressed and self.baseline.record.noise is None

    def sigma(self, members: Sequence[Comparison]) -> float:
        noise = self.baseline.record.noise
        if not self.recompressed or noise is None:
            return 0.0
        return recompression_sigma(noise.runs, {member.name: len(member.digests) for member in members})


@dataclass(frozen=True, slots=True)
class _Bench:
    """Everything of a verdict that is the same for all units of a cell."""

    cell: Cell
    profile: str
    policy: Policy
    family: Family
    mode: Mode

    def all_invalid(self, reason: str, names: Sequence[str], pooled: bool = True) -> CellVerdict:
        tasks = tuple(self._verdict(name, Status.INVALID, reason) for name in names)
        return CellVerdict(self.cell, self.profile, tasks, self._verdict(POOLED, Status.INVALID, reason) if pooled else None)

    def task(self, name: str, found: Comparison | Incomparable, noise: _Noise) -> Verdict:
        """The guard on one task."""
        if isinstance(found, Incomparable):
            return self._verdict(name, Status.INVALID, found.reason)
        if not self._informative(found):
            floor = max(found.info.chance, found.info.majority)
            reason = explain_uninformative(name, self._accuracy_before(found), floor, self.policy.informative_margin)
            return self._verdict(name, Status.UNINFORMATIVE, reason)
        unit = Unit(
            counts=found.counts,
            n_correct_before=int(found.before.sum()),
            margins=self.policy.task,
            flip_rate=self.policy.flip_rates.of(found.info.score_class, noise.recompressed),
            chance=found.info.chance,
            level_fail=self.family.task_level(self.policy),
            sigma=noise.sigma([found]),
        )
        return self._decide(name, unit, reused=found.reused, limited=found.limited)

    def pool(self, compared: Compared, noise: _Noise) -> Verdict:
        """The cell's own verdict: the items of its informative pooled tasks, each task capped, taken together."""
        broken = [name for name, found in compared.items() if isinstance(found, Incomparable)]
        if broken:
            return self._verdict(
                POOLED, Status.INVALID, f"no pool without {', '.join(broken)}, INVALID for the reason given there."
            )
        members = [
            found.capped(self.policy.pool_cap_items)
            for found in compared.values()
            if isinstance(found, Comparison) and found.info.pooled and self._informative(found)
        ]
        if not members:
            return self._verdict(POOLED, Status.UNINFORMATIVE, "none of the cell's pooled tasks can show a loss.")
        n_items = sum(len(member.digests) for member in members)
        rates = [self.policy.flip_rates.of(member.info.score_class, noise.recompressed) for member in members]
        unit = Unit(
            counts=_total(member.counts for member in members),
            n_correct_before=sum(int(member.before.sum()) for member in members),
            margins=self.policy.cell,
            flip_rate=sum(rate * len(member.digests) for rate, member in zip(rates, members, strict=True)) / n_items,
            chance=0.0,
            level_fail=self.family.cell_level(self.policy),
            sigma=noise.sigma(members),
        )
        return self._decide(
            POOLED,
            unit,
            reused=all(member.reused for member in members),
            limited=any(member.limited for member in members),
        )

    def _decide(self, name: str, unit: Unit, *, reused: bool, limited: bool) -> Verdict:
        if unit.counts.n_lost == unit.counts.n_gained == 0 and (reused or not limited):
            evidence = weigh(unit, self.policy)
            if reused:  # the same machine on the same items: nothing can differ on any other item either
                nothing = Estimate(0.0, 0.0, 0.0, evidence.loss.level, "identity")
                evidence = replace(evidence, loss=nothing, proven_margin=0.0)
            return self._verdict(name, Status.PASS, explain_identical(name, evidence, reused), evidence, identical=True)
        status, evidence = decide(unit, self.policy)
        return self._verdict(name, status, explain(self.cell.id, name, status, evidence), evidence)

    def _informative(self, found: Comparison) -> bool:
        floor = max(found.info.chance, found.info.majority) + self.policy.informative_margin
        return self._accuracy_before(found).low > floor

    def _accuracy_before(self, found: Comparison) -> Estimate:
        return wilson(int(found.before.sum()), len(found.before), self.policy.interval_level)

    def _verdict(
        self, task: str, status: Status, reason: str, evidence: Evidence | None = None, identical: bool = False
    ) -> Verdict:
        fails = self.policy.fails_in(self.mode, status)
        return Verdict(self.cell.id, task, status, identical, fails, reason, evidence)


def _total(counts: Iterable[PairedCounts]) -> PairedCounts:
    every = list(counts)
    return PairedCounts(sum(c.n_lost for c in every), sum(c.n_gained for c in every), sum(c.n_unchanged for c in every))
