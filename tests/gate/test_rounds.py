"""A cell is decided as early as its items prove something, on all of its tasks, and against both anchors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.baseline import Baseline
from harness.core.records import CellRun
from harness.core.verdicts import CellVerdict, Status
from harness.gate import Family, Policy, judge, undecided
from harness.stats.sequential import ROUND_SHARES, round_ends

N = 1500
TASKS = ("facts", "blank")
FAMILY = Family(n_cells=5, n_tasks=10)


@pytest.fixture
def make(build: Any):
    """A run of two tasks, (lost, gained) for each."""

    def run(facts: Any, blank: Any, *, weights: str = "w2", pooled: bool = True, **more: Any) -> CellRun:
        tasks = {
            name: build.task(name, build.right(N, 900, *flips), pooled=pooled or name == "facts")
            for name, flips in zip(TASKS, (facts, blank), strict=True)
        }
        return build.run(tasks, weights=weights, **more)

    return run


@pytest.fixture
def baseline(build: Any, make: Any) -> Baseline:
    return build.baseline(make((0, 0), (0, 0), weights="w1"))


def judged(run: CellRun, before: Baseline | None, policy: Policy, release: Baseline | None = None) -> CellVerdict:
    return judge(run, before, policy, FAMILY, mode="commit", declared_tasks=TASKS, release=release)


def still_open(run: CellRun, before: Baseline | None, policy: Policy, release: Baseline | None = None) -> frozenset[str]:
    return undecided(run, before, policy, FAMILY, declared_tasks=TASKS, release=release)


def stop(build: Any, run: CellRun, before: Baseline, policy: Policy) -> int:
    """How many items of each task are fed until nothing is open."""
    return next(end for end in round_ends(N) if end == N or not still_open(build.cut(run, end), before, policy))


def test_a_cell_that_hardly_changed_passes_on_a_part_of_its_items(
    build: Any, make: Any, baseline: Baseline, policy: Policy
) -> None:
    run = make((3, 3), (2, 2))
    n_fed = stop(build, run, baseline, policy)
    assert n_fed < N / 2
    verdict = judged(build.cut(run, n_fed), baseline, policy)
    assert verdict.pooled is not None
    assert [v.status for v in verdict.all] == [Status.PASS] * 3
    evidence = verdict.pooled.evidence
    assert evidence is not None
    assert (evidence.counts.n_items, evidence.n_planned, evidence.loss.method) == (2 * n_fed, 2 * N, "betting")
    assert "decided early" in verdict.pooled.reason
    assert evidence.proven_margin is not None
    assert evidence.proven_margin <= evidence.m1


def test_a_ruined_cell_is_red_after_a_few_items_and_is_not_fed_further(
    build: Any, make: Any, baseline: Baseline, policy: Policy
) -> None:
    run = make((400, 10), (400, 10))
    n_fed = stop(build, run, baseline, policy)
    assert n_fed <= 0.1 * N
    verdict = judged(build.cut(run, n_fed), baseline, policy)
    assert verdict.pooled is not None
    assert verdict.pooled.status is Status.REGRESSED
    assert verdict.status is Status.REGRESSED


def test_a_limited_run_whose_first_items_were_wrong_before_is_fed_on(build: Any, policy: Policy) -> None:
    """Whether a task can show a loss is known from all that its baseline answered, not from what was fed so far."""
    known = np.arange(N) >= 30
    tasks = {name: build.task(name, known) for name in TASKS}
    before = build.baseline(build.run(tasks, weights="w1"))
    ruined = {name: build.task(name, np.zeros(200, dtype=np.bool_), limit=200) for name in TASKS}
    run = build.run(ruined, weights="w2")
    assert still_open(build.cut(run, 4), before, policy) == frozenset(TASKS)
    assert judged(run, before, policy).status is Status.REGRESSED


def test_a_task_of_an_undecided_pool_is_fed_whatever_it_says_itself(
    build: Any, make: Any, baseline: Baseline, policy: Policy
) -> None:
    run = make((0, 0), (40, 20))
    for end in round_ends(N)[:-1]:
        found = still_open(build.cut(run, end), baseline, policy)
        if found:
            alone = judged(build.cut(make((0, 0), (0, 0)), end), baseline, policy)
            assert "facts" in found or alone.tasks[0].status is Status.PASS
    early = build.cut(run, round_ends(N)[8])
    assert judged(early, baseline, policy).tasks[0].status in (Status.PASS, Status.INVALID)
    assert still_open(early, baseline, policy) == frozenset(TASKS)


def test_a_guard_stops_by_itself(make: Any, build: Any, policy: Policy) -> None:
    before = build.baseline(make((0, 0), (0, 0), weights="w1", pooled=False))
    run = make((12, 0), (0, 0), pooled=False)
    opened = [still_open(build.cut(run, end), before, policy) for end in round_ends(N)[:-1]]
    assert {"facts"} in opened or frozenset({"facts"}) in opened
    assert all("blank" not in later for later in opened[12:])


def test_a_run_that_stopped_too_soon_is_invalid_and_no_pass(build: Any, make: Any, baseline: Baseline, policy: Policy) -> None:
    verdict = judged(build.cut(make((6, 6), (6, 6)), round_ends(N)[0]), baseline, policy)
    assert {v.status for v in verdict.all} == {Status.INVALID}
    assert all("run the cell again" in v.reason for v in verdict.all)


def test_a_run_that_ends_within_a_round_was_cut_off_or_chosen_from(
    build: Any, make: Any, baseline: Baseline, policy: Policy
) -> None:
    """However good the items that are left: a run stops after rounds alone, and only then may it be decided early."""
    run = build.cut(make((0, 0), (0, 0)), round_ends(N)[11] + 1)
    verdict = judged(run, baseline, policy)
    assert {v.status for v in verdict.all} == {Status.INVALID}
    assert all("no whole number of rounds" in v.reason for v in verdict.tasks)


def test_a_recompressed_cell_has_no_early_verdict(make: Any, build: Any, policy: Policy) -> None:
    noise = build.noise((0.6, 0.6001, 0.6002), tasks=TASKS)
    before = build.baseline(make((0, 0), (0, 0), weights="w1", stability="re-compressed"), noise)
    run = make((0, 0), (0, 0), stability="re-compressed")
    assert all(still_open(build.cut(run, end), before, policy) == frozenset(TASKS) for end in round_ends(N)[:-1])
    assert judged(run, before, policy).status is Status.PASS


def test_the_full_run_never_contradicts_a_proof_that_came_early(
    build: Any, make: Any, baseline: Baseline, policy: Policy
) -> None:
    for lost in (5, 30, 60, 90, 150):
        run = make((lost, 5), (lost, 5))
        n_fed = stop(build, run, baseline, policy)
        early, full = judged(build.cut(run, n_fed), baseline, policy), judged(run, baseline, policy)
        if early.pooled is not None and early.pooled.status is Status.REGRESSED:
            assert full.pooled is not None
            assert full.pooled.status is Status.REGRESSED


def test_without_a_baseline_everything_is_measured(build: Any, make: Any, policy: Policy) -> None:
    assert still_open(build.cut(make((0, 0), (0, 0)), 30), None, policy) == frozenset(TASKS)


def test_items_that_are_not_the_baselines_are_invalid_however_few_were_fed(
    build: Any, make: Any, baseline: Baseline, policy: Policy
) -> None:
    run = make((0, 0), (0, 0))
    items = build.items("other", N)
    runs = {**run.runs, "blank": build.task("blank", build.right(N, 900), items=items)}
    early = build.cut(CellRun(run.record, runs), round_ends(N)[4])
    assert "blank" not in still_open(early, baseline, policy)
    verdict = judged(early, baseline, policy)
    assert verdict.tasks[1].status is Status.INVALID
    assert verdict.pooled is not None
    assert verdict.pooled.status is Status.INVALID


# ------------------------------------------------------------------------------------------------ the release anchor


def test_small_losses_that_each_pass_add_up_against_the_release_anchor(build: Any, make: Any, policy: Policy) -> None:
    release = build.baseline(make((0, 0), (0, 0), weights="w0"))
    last = build.baseline(make((52, 2), (52, 2), weights="w1"))
    run = make((56, 2), (56, 2))
    assert judged(run, last, policy).status is Status.PASS
    verdict = judged(run, last, policy, release)
    assert verdict.pooled is not None
    assert (verdict.pooled.status, verdict.pooled.anchor) == (Status.REGRESSED, "release")
    assert "release" in verdict.pooled.reason


def test_both_anchors_have_to_be_met_and_each_spends_half(build: Any, make: Any, baseline: Baseline, policy: Policy) -> None:
    run = make((3, 3), (2, 2))
    verdict = judged(run, baseline, policy, baseline)
    assert verdict.status is Status.PASS
    one, both = judged(run, baseline, policy).pooled, verdict.pooled
    assert one is not None
    assert both is not None
    assert one.evidence is not None
    assert both.evidence is not None
    assert both.evidence.level_fail == pytest.approx(one.evidence.level_fail / 2)
    wanted = still_open(build.cut(run, round_ends(N)[3]), baseline, policy, baseline)
    assert wanted >= still_open(build.cut(run, round_ends(N)[3]), baseline, policy)


# ------------------------------------------------------------------------------------------------ what must be the same


def test_a_policy_may_require_the_baselines_engine(make: Any, baseline: Baseline, policy: Policy) -> None:
    run = make((0, 0), (0, 0), engine={"torch": "9.9"})
    assert judged(run, baseline, policy).status is Status.PASS
    verdict = judged(run, baseline, replace(policy, require_same=("torch",)))
    assert verdict.status is Status.INVALID
    assert "torch: 1 -> 9.9" in verdict.tasks[0].reason


def test_the_rounds_are_those_of_the_design() -> None:
    assert len(ROUND_SHARES) == 26
    assert np.all(np.diff(round_ends(N)) > 0)
