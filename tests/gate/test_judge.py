"""What the judge says, and in which order it asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import special

from harness.core.records import CellFailure, CellRun
from harness.core.verdicts import CellVerdict, PairedCounts, Status, Verdict
from harness.gate import Family, Policy, exit_code, judge, undecided
from harness.stats.intervals import wilson

ALONE = Family(n_cells=1, n_tasks=1)


@pytest.fixture
def ruled(policy: Policy) -> Any:
    def call(run: Any, baseline: Any, family: Family = ALONE, mode: Any = "commit", declared: Any = ("facts",)) -> CellVerdict:
        return judge(run, baseline, policy, family, mode=mode, declared_tasks=declared)

    return call


def only(verdict: CellVerdict) -> tuple[Verdict, Verdict]:
    assert len(verdict.tasks) == 1
    assert verdict.pooled is not None
    return verdict.tasks[0], verdict.pooled


# ------------------------------------------------------------------------------------------------ INVALID


def test_a_failed_measurement_is_invalid_with_its_own_reason(build: Any, ruled: Any) -> None:
    verdict = ruled(CellFailure(build.one(9, 5).record.cell, "embedded", "a score is NaN"), None)
    assert {v.status for v in verdict.all} == {Status.INVALID}
    assert all(v.reason == "a score is NaN" and v.fails for v in verdict.all)
    assert exit_code(verdict.all) == 11


def test_without_a_baseline_the_one_command_is_named(build: Any, ruled: Any) -> None:
    task, pooled = only(ruled(build.one(500, 300), None))
    assert task.status is pooled.status is Status.INVALID
    assert '`harness baseline propose llama_4bit-rtn_none --reason "..."`' in task.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scorer": "plain 2"}, "scorer differs ('plain 1' in the baseline, 'plain 2' now)"),
        ({"tie_rule": "first"}, "tie rule differs"),
        ({"data_version": "2"}, "data version differs"),
        ({"protocol": "blank"}, "protocol differs"),
        ({"spec_digest": "0" * 64}, "set up differently"),
    ],
)
def test_another_way_of_asking_is_invalid(build: Any, ruled: Any, change: dict[str, Any], words: str) -> None:
    task, pooled = only(ruled(build.one(500, 300, **change), build.baseline(build.one(500, 300, weights="w1"))))
    assert task.status is pooled.status is Status.INVALID
    assert words in task.reason
    assert task.evidence is None


def test_missing_new_and_relabelled_items_are_counted_apart(build: Any, ruled: Any) -> None:
    baseline = build.baseline(build.one(500, 300, weights="w1"))
    items = list(build.items("facts", 500))
    items[7] = replace(items[7], gold=(0,))
    items[8] = replace(items[8], gold=(0, 1))
    items[9] = replace(items[9], prompt="reworded")
    task, _ = only(ruled(build.one(500, 300, items=tuple(items)), baseline))
    assert task.status is Status.INVALID
    assert "3 are missing and 3 are new, 2 of them re-labelled" in task.reason
    task, _ = only(ruled(build.one(490, 300), baseline))
    assert "of 500 there, 10 are missing and 0 are new" in task.reason


def test_a_limited_run_is_compared_on_its_own_items_of_a_full_baseline(build: Any, ruled: Any) -> None:
    task, _ = only(ruled(build.one(200, 120, limit=200), build.baseline(build.one(500, 300, weights="w1"))))
    assert task.evidence is not None
    assert task.evidence.counts.n_items == 200


def test_a_run_without_any_declared_task_is_invalid(build: Any, ruled: Any) -> None:
    """A task that was renamed in the matrix leaves nothing to judge, which is no pass."""
    run = build.one(500, 300)
    made = ruled(run, build.baseline(run), declared=["renamed"])
    assert [(verdict.task, verdict.status) for verdict in made.all] == [
        ("renamed", Status.INVALID),
        ("pooled", Status.INVALID),
    ]
    assert "the run of llama_4bit-rtn_none holds facts, and the matrix declares renamed" in made.all[0].reason


def test_an_unlimited_run_that_lacks_items_is_invalid(build: Any, ruled: Any) -> None:
    task, _ = only(ruled(build.one(50, 30), build.baseline(build.one(500, 300, weights="w1"))))
    assert task.status is Status.INVALID
    assert "450 are missing" in task.reason


def test_a_limited_run_with_an_item_that_the_baseline_does_not_know_is_invalid(build: Any, ruled: Any) -> None:
    task, _ = only(ruled(build.one(80, 60, limit=80), build.baseline(build.one(50, 30, weights="w1"))))
    assert task.status is Status.INVALID
    assert "30 are new" in task.reason


def test_an_item_that_stands_twice_is_invalid(build: Any, ruled: Any) -> None:
    items = build.items("facts", 500)
    twice = (*items[:-1], items[0])
    task, _ = only(ruled(build.one(500, 300, items=twice), build.baseline(build.one(500, 300, weights="w1", items=twice))))
    assert task.status is Status.INVALID
    assert "more than once" in task.reason


def test_items_are_joined_by_digest_never_by_position(build: Any, ruled: Any) -> None:
    items = build.items("facts", 500)
    correct = build.right(500, 300, lost=3, gained=2)
    order = np.random.default_rng(1).permutation(500)
    shuffled = build.run({"facts": build.task("facts", correct[order], items=tuple(items[i] for i in order))}, weights="w2")
    task, pooled = only(ruled(shuffled, build.baseline(build.one(500, 300, weights="w1"))))
    for verdict in (task, pooled):
        assert verdict.evidence is not None
        assert (verdict.evidence.counts.n_lost, verdict.evidence.counts.n_gained) == (3, 2)


def test_the_baseline_of_another_cell_is_refused(build: Any, ruled: Any) -> None:
    other = build.run({"facts": build.task("facts", build.right(500, 300))}, profile="gpu")
    task, _ = only(ruled(build.one(500, 300), build.baseline(other)))
    assert task.status is Status.INVALID
    assert "gpu/llama_4bit-rtn_none" in task.reason


def test_one_invalid_task_makes_the_pool_invalid_only_where_it_is_compared(build: Any, ruled: Any) -> None:
    before = build.run({name: build.task(name, build.right(500, 300)) for name in ("facts", "blank")})
    now = build.run(
        {"facts": build.task("facts", build.right(500, 300)), "blank": build.task("blank", build.right(500, 300), scorer="x")},
        weights="w2",
    )
    verdict = ruled(now, build.baseline(before), declared=("facts", "blank"))
    assert [v.status for v in verdict.all] == [Status.PASS, Status.INVALID, Status.INVALID]
    assert "blank" in verdict.pooled.reason
    assert verdict.status is Status.INVALID


# ------------------------------------------------------------------------------------------------ nothing changed


def test_the_baselines_own_outcomes_pass_as_identical_without_doubt(build: Any, ruled: Any) -> None:
    before = build.one(500, 300, weights="w1")
    verdict = ruled(build.one(500, 300, weights="w1", origin="baseline"), build.baseline(before))
    for found in only(verdict):
        assert found.status is Status.PASS
        assert found.identical
        assert found.evidence.loss.high == 0.0
    assert exit_code(verdict.all) == 0


@pytest.mark.parametrize("changed", [{"weights": "w2"}, {"recovery": "lora"}, {"engine": {"torch": "2"}}])
def test_outcomes_of_the_baseline_under_changed_weights_or_engine_are_refused(
    build: Any, ruled: Any, changed: dict[str, Any]
) -> None:
    baseline = build.baseline(build.one(500, 300, weights="w1"))
    reused = build.run({"facts": build.task("facts", build.right(500, 300), origin="baseline")}, **changed)
    task, _ = only(ruled(reused, baseline))
    assert task.status is Status.INVALID
    assert "measure it again" in task.reason


def test_a_fresh_run_without_a_flip_is_identical_and_says_what_that_proves(build: Any, ruled: Any) -> None:
    for found in only(ruled(build.one(500, 300), build.baseline(build.one(500, 300, weights="w1")))):
        assert found.status is Status.PASS
        assert found.identical
        assert 0.007 < found.evidence.proven_margin < 0.008
        assert "0.76 pt" in found.reason


@pytest.mark.parametrize(("weights", "ties_before"), [("w1", True), ("w1", False), ("w2", True)])
def test_of_the_same_weights_a_flip_between_two_near_ties_is_none_and_every_other_counts(
    build: Any, ruled: Any, weights: str, ties_before: bool
) -> None:
    """Other batches may turn near-ties, but not clear answers; what other weights turn is evidence."""
    before, now = build.one(400, 200, weights="w1"), build.one(400, 200, lost=40, weights=weights)
    everything = np.ones(400, dtype=np.bool_)

    def tied(run: CellRun) -> CellRun:
        task = run.runs["facts"]
        return replace(run, runs={"facts": replace(task, outcomes=replace(task.outcomes, near_ties=everything))})

    found = ruled(tied(now), build.baseline(tied(before) if ties_before else before)).tasks[0]
    is_noise = weights == "w1" and ties_before
    assert found.evidence.counts == (PairedCounts(0, 0, 400) if is_noise else PairedCounts(40, 0, 360))
    assert found.identical == is_noise


def test_a_measured_run_of_the_same_weights_is_still_judged_by_its_flips(build: Any, ruled: Any) -> None:
    baseline = build.baseline(build.one(2000, 1200, weights="w1"))
    assert ruled(build.one(2000, 1200, lost=200, weights="w1"), baseline).status is Status.REGRESSED


# ------------------------------------------------------------------------------------------------ what the counts say


def test_a_real_loss_is_red_and_says_all_a_developer_needs(build: Any, ruled: Any) -> None:
    verdict = ruled(build.one(1000, 600, lost=90, gained=10), build.baseline(build.one(1000, 600, weights="w1")))
    task, pooled = only(verdict)
    assert task.status is pooled.status is verdict.status is Status.REGRESSED
    assert "facts lost 8 pt (95 % interval of the loss 6.2 to 10.02 pt" in task.reason
    assert "90 of 1,000 items lost, 10 gained" in task.reason
    assert "harness baseline propose llama_4bit-rtn_none" in task.reason
    assert exit_code(verdict.all) == 1


def test_few_flips_pass_and_a_clear_gain_is_improved(build: Any, ruled: Any) -> None:
    baseline = build.baseline(build.one(1000, 600, weights="w1"))
    task, pooled = only(ruled(build.one(1000, 600, lost=4, gained=5), baseline))
    assert task.status is pooled.status is Status.PASS
    assert not task.identical
    task, pooled = only(ruled(build.one(1000, 600, lost=4, gained=60), baseline))
    assert task.status is pooled.status is Status.IMPROVED
    assert "nothing moved by itself" in task.reason


def test_between_the_margins_is_inconclusive_warns_and_fails_a_release(build: Any, ruled: Any) -> None:
    baseline = build.baseline(build.one(1000, 600, weights="w1"))
    run = build.one(1000, 600, lost=60, gained=55)
    verdict = ruled(run, baseline)
    assert verdict.pooled.status is verdict.status is Status.INCONCLUSIVE
    assert not verdict.pooled.fails
    assert exit_code(verdict.all) == 0
    assert exit_code(ruled(run, baseline, mode="release").all) == 10


def test_the_items_needed_would_decide_and_a_few_less_would_not(build: Any, policy: Policy) -> None:
    uncapped = replace(policy, pool_cap_items=1_000_000)

    def pooled(factor: float) -> Verdict:
        n, right, lost, gained = (round(count * factor) for count in (1000, 600, 60, 55))
        baseline = build.baseline(build.one(n, right, weights="w1"))
        return judge(
            build.one(n, right, lost, gained), baseline, uncapped, ALONE, mode="commit", declared_tasks=("facts",)
        ).pooled

    more = pooled(1).evidence.items_needed
    assert f"about {more:,} more items" in pooled(1).reason
    assert pooled(1.02 * (1000 + more) / 1000).status is Status.PASS
    assert pooled(0.95 * (1000 + more) / 1000).status is Status.INCONCLUSIVE


def test_regression_wins_over_pass(build: Any, ruled: Any) -> None:
    """A loss between m0 and m1, measured well enough, proves both; the gate is red."""
    baseline = build.baseline(build.one(2000, 1500, weights="w1"))
    task, _ = only(ruled(build.one(2000, 1500, lost=60, gained=0), baseline))
    assert task.evidence.p_fail < task.evidence.level_fail
    assert task.evidence.p_pass < task.evidence.level_pass
    assert task.status is Status.REGRESSED


def test_p_values_are_those_of_the_design(build: Any, ruled: Any) -> None:
    _, pooled = only(ruled(build.one(1000, 600, lost=30, gained=10), build.baseline(build.one(1000, 600, weights="w1"))))
    b, c, n, m = 30, 10, 1000, 0.005
    a, q_b, q_c = 2 * n, -b - c + (2 * n - b + c) * m, -c * m * (1 - m)
    q = ((q_b**2 - 4 * a * q_c) ** 0.5 - q_b) / (2 * a)
    tango = (b - c - n * m) / (n * (2 * q + m * (1 - m))) ** 0.5
    wald = ((b - c) / n - m) / (((b + c) / n - ((b - c) / n) ** 2) / n) ** 0.5
    assert pooled.evidence.p_fail == pytest.approx((1 - special.ndtr(min(tango, wald))) / 0.8)


def test_task_margins_shrink_by_chance_and_pooled_ones_do_not(build: Any, ruled: Any) -> None:
    task, pooled = only(
        ruled(build.one(1000, 800, lost=3, chance=0.25), build.baseline(build.one(1000, 800, weights="w1", chance=0.25)))
    )
    assert (task.evidence.m0, task.evidence.m1) == pytest.approx((0.0075, 0.0375))
    assert pooled.evidence.m0 == 0.005


def test_a_larger_family_asks_for_more_evidence(build: Any, ruled: Any) -> None:
    baseline = build.baseline(build.one(1000, 600, weights="w1"))
    run = build.one(1000, 600, lost=24, gained=6)
    assert ruled(run, baseline).status is Status.REGRESSED
    assert ruled(run, baseline, family=Family(24, 312)).status is not Status.REGRESSED


# ------------------------------------------------------------------------------------------------ the pool


def test_a_task_that_knows_nothing_is_uninformative_and_stays_out_of_the_pool(build: Any, ruled: Any) -> None:
    def cell(weights: str, lost: int) -> Any:
        facts = build.task("facts", build.right(500, 300))
        return build.run({"facts": facts, "weak": build.task("weak", build.right(500, 70, lost=lost))}, weights=weights)

    verdict = ruled(cell("w2", 60), build.baseline(cell("w1", 0)), declared=("facts", "weak"))
    assert [v.status for v in verdict.all] == [Status.PASS, Status.UNINFORMATIVE, Status.PASS]
    assert verdict.pooled.evidence.counts.n_items == 500
    assert verdict.tasks[1].evidence is None
    assert not verdict.tasks[1].fails


def test_a_cell_of_uninformative_tasks_is_uninformative(build: Any, ruled: Any) -> None:
    verdict = ruled(build.one(500, 60), build.baseline(build.one(500, 60, weights="w1")))
    assert verdict.status is verdict.pooled.status is Status.UNINFORMATIVE
    assert exit_code(verdict.all) == 0


def test_the_same_facts_asked_another_way_are_guards_outside_the_pool(build: Any, ruled: Any) -> None:
    def cell(weights: str, lost: int) -> Any:
        blank = build.task("blank", build.right(500, 300, lost=lost), pooled=False)
        return build.run({"facts": build.task("facts", build.right(500, 300)), "blank": blank}, weights=weights)

    verdict = ruled(cell("w2", 80), build.baseline(cell("w1", 0)), declared=("facts", "blank"))
    assert [v.status for v in verdict.all] == [Status.PASS, Status.REGRESSED, Status.PASS]
    assert verdict.status is Status.REGRESSED
    assert verdict.pooled.evidence.counts.n_items == 500


def test_a_large_task_enters_the_pool_with_the_same_2000_items_whatever_their_order(build: Any, ruled: Any) -> None:
    baseline = build.baseline(build.one(3000, 1500, weights="w1"))
    items, correct = build.items("facts", 3000), build.right(3000, 1500, lost=40, gained=30)
    first = ruled(build.one(3000, 1500, lost=40, gained=30), baseline).pooled.evidence
    order = np.random.default_rng(2).permutation(3000)
    again = build.run({"facts": build.task("facts", correct[order], items=tuple(items[i] for i in order))}, weights="w2")
    assert first.counts.n_items == 2000
    assert ruled(again, baseline).pooled.evidence == first
    kept = set(sorted(item.digest for item in items)[:2000])
    was_right = build.right(3000, 1500)
    lost = sum(items[i].digest in kept for i in np.flatnonzero(was_right & ~correct))
    assert first.counts.n_lost == lost


@pytest.mark.parametrize("limit", [1, 5, 500, 2000])
def test_all_items_of_a_limited_run_enter_the_pool_where_they_are_no_more_than_it_takes(
    build: Any, ruled: Any, limit: int
) -> None:
    """Of 5 items of 3,000 perhaps none is among the 2,000 that a whole run gives."""
    items, right = build.items("facts", 3000), build.right(3000, 1500)
    chosen = np.random.default_rng(limit).permutation(3000)[:limit]
    task = build.task("facts", right[chosen], items=tuple(items[i] for i in chosen), limit=limit)
    found = ruled(build.run({"facts": task}, weights="w2"), build.baseline(build.one(3000, 1500, weights="w1")))
    assert found.pooled.evidence.counts == found.tasks[0].evidence.counts
    assert found.pooled.evidence.counts.n_items == limit


def test_a_pool_that_a_limited_run_gives_no_item_can_show_nothing(build: Any, policy: Policy) -> None:
    baseline, items = build.baseline(build.one(200, 120, weights="w1")), build.items("facts", 200)
    outside = sorted(range(200), key=lambda i: items[i].digest)[3:23]
    right = build.right(200, 120)
    task = build.task("facts", right[outside], items=tuple(items[i] for i in outside), limit=20)
    run, few = build.run({"facts": task}, weights="w2"), replace(policy, pool_cap_items=3)
    found = judge(run, baseline, few, ALONE, mode="commit", declared_tasks=("facts",))
    assert (found.pooled.status, found.tasks[0].status) == (Status.UNINFORMATIVE, Status.PASS)
    assert undecided(run, baseline, few, ALONE, declared_tasks=("facts",)) == frozenset()


def test_with_tasks_left_out_there_is_no_pool_and_the_rest_is_the_same(build: Any, ruled: Any) -> None:
    names = ("facts", "blank")
    before = build.baseline(build.run({name: build.task(name, build.right(500, 300)) for name in names}))
    now = {name: build.task(name, build.right(500, 300, lost=2)) for name in names}
    whole = ruled(build.run(now, weights="w2"), before, declared=names)
    part = ruled(build.run({"blank": now["blank"]}, weights="w2"), before, declared=names)
    assert part.pooled is None
    assert part.tasks == whole.tasks[1:]
    assert part.all == part.tasks
    assert part.status is Status.PASS


# ------------------------------------------------------------------------------------------------ compressed again


def recompressed(build: Any, n: int, right: int, *, lost: int = 0, gained: int = 0, weights: str = "w2") -> Any:
    task = build.task("facts", build.right(n, right, lost, gained))
    return build.run({"facts": task}, weights=weights, stability="re-compressed")


def test_compressing_again_is_not_a_regression_where_its_spread_explains_the_loss(build: Any, ruled: Any) -> None:
    before = recompressed(build, 1000, 600, weights="w1")
    run = recompressed(build, 1000, 600, lost=70, gained=35)
    wide, narrow = build.noise((0.57, 0.60, 0.63)), build.noise((0.599, 0.6, 0.601))
    assert ruled(run, build.baseline(before, wide)).status is Status.INCONCLUSIVE
    assert ruled(run, build.baseline(before, narrow)).status is Status.REGRESSED
    evidence = ruled(run, build.baseline(before, wide)).pooled.evidence
    assert evidence.sigma_recompression == pytest.approx(0.03 * (1 + 0.449) ** 0.5, rel=1e-3)  # the stored run varies too
    measured = wilson(180, 2000, 0.95).high  # 90 of 1,000 items flipped in each of the two runs that were not stored
    assert evidence.m1 == pytest.approx(4 * (measured / 1000) ** 0.5)
    assert "re-compressing alone moves it by 3.61 pt" in ruled(run, build.baseline(before, wide)).pooled.reason


def test_a_spread_too_wide_for_any_number_of_items_is_said_so(build: Any, ruled: Any) -> None:
    baseline = build.baseline(recompressed(build, 1000, 600, weights="w1"), build.noise((0.5, 0.6, 0.7)))
    pooled = ruled(recompressed(build, 1000, 600, lost=50, gained=50), baseline).pooled
    assert pooled.status is Status.INCONCLUSIVE
    assert pooled.evidence.items_needed is None
    assert "no number of items" in pooled.reason


def test_with_the_same_weights_a_recompressed_cell_is_judged_like_any_other(build: Any, ruled: Any) -> None:
    baseline = build.baseline(recompressed(build, 1000, 600, weights="w1"), build.noise((0.57, 0.60, 0.63)))
    evidence = ruled(recompressed(build, 1000, 600, lost=3, gained=3, weights="w1"), baseline).pooled.evidence
    assert evidence.sigma_recompression == 0
    assert evidence.m1 == pytest.approx(4 * (0.01 / 1000) ** 0.5)


def test_a_recompressed_cell_whose_baseline_knows_no_spread_is_invalid(build: Any, ruled: Any) -> None:
    verdict = ruled(recompressed(build, 1000, 600), build.baseline(recompressed(build, 1000, 600, weights="w1")))
    assert verdict.status is Status.INVALID
    assert "harness baseline propose" in verdict.pooled.reason


# ------------------------------------------------------------------------------------------------ whole commits


def test_exit_codes_rank_regression_over_invalid_over_inconclusive(build: Any, ruled: Any) -> None:
    baseline = build.baseline(build.one(1000, 600, weights="w1"))
    red = ruled(build.one(1000, 600, lost=99), baseline)
    invalid = ruled(build.one(1000, 600), None)
    inconclusive = ruled(build.one(1000, 600, lost=60, gained=55), baseline, mode="release")
    green = ruled(build.one(1000, 600), baseline)
    assert exit_code([*green.all, *inconclusive.all, *invalid.all, *red.all]) == 1
    assert exit_code([*green.all, *inconclusive.all, *invalid.all]) == 11
    assert exit_code([*green.all, *inconclusive.all]) == 10
    assert exit_code(green.all) == 0


def test_an_a_a_replay_is_never_red_and_2_points_lost_everywhere_are_found(build: Any, ruled: Any) -> None:
    family, names, n = Family(n_cells=24, n_tasks=96), ("a", "b", "c", "d"), 1000
    rng = np.random.default_rng(11)
    state = {name: rng.random(n) < 0.5 for name in names}
    before = build.baseline(build.run({name: build.task(name, state[name]) for name in names}))

    def commit(flips: float, loss: float) -> Status:
        now = {}
        for name in names:
            u, was = rng.random(n), state[name]
            now[name] = build.task(name, np.where(was, u >= flips + 2 * loss, u < flips))
        return ruled(build.run(now, weights="w2"), before, family=family, declared=names).status

    for flips in (0.005, 0.03, 0.10):
        assert Status.REGRESSED not in {commit(flips, 0.0) for _ in range(8)}
    assert {commit(0.005, 0.02) for _ in range(8)} == {Status.REGRESSED}


def test_13_tasks_in_another_order_are_joined_by_digest(build: Any, policy: Policy) -> None:
    names = tuple(f"t{i}" for i in range(13))
    before = build.baseline(build.run({name: build.task(name, build.right(1000, 600)) for name in names}))
    order = np.random.default_rng(0).permutation(1000)
    now = {}
    for name in names:
        items, correct = build.items(name, 1000), build.right(1000, 600, lost=20, gained=19)
        now[name] = build.task(name, correct[order], items=tuple(items[i] for i in order))
    run = build.run(now, weights="w2")
    verdict = judge(run, before, policy, Family(24, 312), mode="commit", declared_tasks=names)
    counts = [task.evidence.counts for task in verdict.tasks if task.evidence]
    assert [(c.n_lost, c.n_gained, c.n_unchanged) for c in counts] == [(20, 19, 961)] * 13
