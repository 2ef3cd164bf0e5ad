"""Copies of recorded cells through the real judge: each has to get the verdict that it has to get.

Everything here is known beforehand: recorded A/A runs are not red, records with fewer or with re-labelled items are INVALID,
and simulated commits get, as records that are fed round by round, the verdicts that the simulation gives their counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from harness.core.digest import digest_sequence, digest_text
from harness.core.records import CellRun, TaskRun, record
from harness.core.verdicts import POOLED, CellVerdict, Status, Verdict
from harness.gate.comparison import Comparison, compare
from harness.gate.recorded import AnchorUnits, Injection, Recorded, inject, taken
from harness.gate.simulation import Draw, Flips, Outcome, SimulatedCell, simulate
from harness.stats.sequential import round_ends

_FINE = (Status.PASS, Status.IMPROVED, Status.UNINFORMATIVE)


@record
class Check:
    """What was tried, how often, and one sentence for each time that something else came than had to."""

    name: str
    n_tried: int
    problems: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        """Whether it was tried at all, and always came out as it had to."""
        return self.n_tried > 0 and not self.problems


def check_unchanged(recorded: Recorded) -> Check:
    """The recorded answers, measured once more without one flip: nothing is red (and against the same state, PASS)."""
    return _check("the recorded answers once more are not red", [_problems(recorded, "unchanged", recorded.candidate())])


def check_aa_runs(recorded: Recorded, rng: np.random.Generator) -> Check:
    """The A/A runs that the baseline tells, with the flips that they had, on items chosen at random: never red."""
    noise = recorded.last.record.noise
    runs = noise.runs if noise is not None else ()
    found = []
    for told in runs:
        changed = {}
        for name, task in recorded.run.runs.items():
            loss = round((runs[0].accuracy[name] - told.accuracy[name]) * len(task.outcomes))
            lost, gained = (told.n_flips[name] + loss) // 2, (told.n_flips[name] - loss) // 2
            changed[name] = _flipped(task.outcomes.correct, lost, gained, rng)
        run = recorded.candidate(changed, recorded.random_order(rng))
        found.append(_problems(recorded, f"A/A run {told.label!r}", run))
    return _check("the recorded A/A runs are not red", found)


def check_damage(recorded: Recorded) -> Check:
    """Records with an item less, or with another right answer in one, are INVALID, in the task and in the pool."""
    found = []
    for name, task in recorded.run.runs.items():
        for what, damaged in (("without its last item", _shortened(task)), ("with a re-labelled item", _relabelled(task))):
            run = recorded.candidate()
            run = CellRun(run.record, {**run.runs, name: replace(damaged, items=(), origin="measured")})
            verdict = recorded.judge(run)
            wrong = [
                f"{recorded.id}-{one.task} is {one.status} though {name} came {what}"
                for one in verdict.all
                if one.task in (name, POOLED) and one.status is not Status.INVALID
            ]
            found.append(wrong)
    return _check("item files that are truncated or re-labelled are INVALID", found)


def check_simulation(
    recorded: Recorded,
    units: Sequence[AnchorUnits],
    cell: SimulatedCell,
    losses: Sequence[float],
    *,
    rng: np.random.Generator,
    flips: float | None = None,
) -> Check:
    """One commit of each loss as records that are fed in rounds and judged: the same verdicts, after the same rounds."""
    runs = [inject(recorded, units, Injection(loss, flips), recorded.pool_order(cell, units, rng), rng) for loss in losses]
    outcome = simulate(cell, len(runs), _draw_trails(recorded, cell, runs))
    found = []
    for index, (loss, run) in enumerate(zip(losses, runs, strict=True)):
        verdict, rounds = recorded.feed_and_judge(run)
        what = f"{recorded.id} with {100 * loss:g} pt lost"
        found.append([f"{what}: {told}" for told in _differences(outcome, cell, index, verdict, rounds)])
    return _check("the simulation decides as the judge does", found)


def merged(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The same check of several cells as one."""
    names = dict.fromkeys(check.name for check in checks)
    return tuple(
        Check(
            name,
            sum(check.n_tried for check in checks if check.name == name),
            tuple(problem for check in checks if check.name == name for problem in check.problems),
        )
        for name in names
    )


# ------------------------------------------------------------------------------------------------ what went wrong


def _check(name: str, found: Sequence[Sequence[str]]) -> Check:
    return Check(name, len(found), tuple(problem for problems in found for problem in problems))


def _problems(recorded: Recorded, what: str, run: CellRun) -> list[str]:
    """The units of a run in which nothing regressed that are red or INVALID all the same."""
    bad = [one for one in recorded.judge(run).all if one.status in (Status.REGRESSED, Status.INVALID)]
    return [f"{recorded.id}-{one.task}, {what}: {one.status}: {one.reason}" for one in bad]


def _differences(
    outcome: Outcome, cell: SimulatedCell, index: int, verdict: CellVerdict, rounds: Mapping[str, int]
) -> Iterator[str]:
    for t, task in enumerate(cell.tasks):
        if int(outcome.rounds[t, index]) != rounds[task.name]:
            yield f"{task.name} was fed {rounds[task.name]} rounds, {int(outcome.rounds[t, index])} simulated"
    by_name = {one.task: one for one in verdict.all}
    for t, task in enumerate(cell.tasks):
        judged = [bounds is not None for bounds in task.bounds]
        fails, passes = outcome.task_fails[t, judged, index], outcome.task_passes[t, judged, index]
        yield from _differs(by_name[task.name], fails, passes)
    judged = [bounds is not None for bounds in cell.pool]
    yield from _differs(by_name[POOLED], outcome.pool_fails[judged, index], outcome.pool_passes[judged, index])


def _differs(judged: Verdict, fails: Bool[np.ndarray, " anchors"], passes: Bool[np.ndarray, " anchors"]) -> Iterator[str]:
    red, fine = bool(fails.any()), bool((passes & ~fails).all())
    if (judged.status is Status.REGRESSED, judged.status in _FINE) != (red, fine):
        simulated = "red" if red else "passed" if fine else "undecided"
        yield f"{judged.task} is {judged.status}, {simulated} where simulated"


# ------------------------------------------------------------------------------------------------ perturbed copies


def _flipped(correct: Bool[np.ndarray, " n"], lost: int, gained: int, rng: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """The answers with so many right ones wrong and so many wrong ones right, or as many as there are."""
    changed: Bool[np.ndarray, " n"] = correct.copy()
    for is_right, n in ((True, lost), (False, gained)):
        places = np.flatnonzero(correct == is_right)
        changed[rng.choice(places, min(n, len(places)), replace=False)] = not is_right
    return changed


def _shortened(task: TaskRun) -> TaskRun:
    """The task as its file would say it without the last item."""
    out = task.outcomes
    kept = taken(out, out.correct, np.arange(len(out) - 1))
    info = replace(task.info, n_items=len(kept), items_digest=digest_sequence(kept.digests))
    return replace(task, items=(), outcomes=kept, info=info)


def _relabelled(task: TaskRun) -> TaskRun:
    """The task with another right answer in its first item: another digest, as the right answers are part of it."""
    out = task.outcomes
    digests = (digest_text(f"another right answer of {out.digests[0]}"), *out.digests[1:])
    info = replace(task.info, items_digest=digest_sequence(digests))
    kept = replace(taken(out, out.correct, np.arange(len(out))), digests=digests)
    return replace(task, items=(), outcomes=kept, info=info)


def _draw_trails(recorded: Recorded, cell: SimulatedCell, runs: Sequence[CellRun]) -> Draw:
    """The flips of these runs, round by round, in place of random ones."""
    cap = recorded.policy.pool_cap_items
    steps: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    for number, run in enumerate(runs):
        for t, task in enumerate(cell.tasks):
            compared = [compare(run, baseline, task.name) for baseline in recorded.anchors]
            found = [one for one in compared if isinstance(one, Comparison)]
            steps[number, t] = _steps(found, [None] * len(found)), _steps(found, [one.in_pool(cap) for one in found])

    def draw(task: int, index: int, commits: Int[np.ndarray, " n"]) -> Flips:
        fed, pool = (np.stack([steps[int(c), task][which][..., index] for c in commits], axis=-1) for which in (0, 1))
        return Flips(fed[0], fed[1], pool[0], pool[1])

    return draw


def _steps(
    compared: Sequence[Comparison], kept: Sequence[Bool[np.ndarray, " n"] | None]
) -> Int[np.ndarray, "sides anchors rounds"]:
    """Items lost and gained in each round, by anchor."""
    trails = [one.trail(chosen) for one, chosen in zip(compared, kept, strict=True)]
    rounds = len(round_ends(1))
    counts = np.array([[trail.n_lost for trail in trails], [trail.n_gained for trail in trails]]).reshape(2, -1, rounds)
    return np.asarray(np.diff(counts, axis=-1, prepend=0))
