"""What loosens the gate is found, whatever it hides in; what tightens it or leaves it alone is not called so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.baseline import INFORMATIVE_AS_SHIPPED, Baseline, Informative, compare_baselines, loosened
from harness.baseline.noise import choose_stored, describe_repeats
from harness.baseline.record import make_baseline
from harness.core.records import CellRun
from harness.core.verdicts import POOLED, PairedCounts
from harness.stats.paired import tango_interval

SMALLER_POOL = "the A/A flip rate of pooled grows from 0.636 to 0.951 pt"  # fewer items exclude less

OTHER_SCORE = "kind of score: log_likelihood -> generation; scorer: plain 1 -> text 1"


def baseline(build: Any, *runs: CellRun) -> Baseline:
    repeats = build.repeats(*runs)
    stored = choose_stored(repeats)
    return make_baseline(stored.measured(), "for a test", describe_repeats(repeats, stored))


def two_tasks(build: Any, n_facts: int = 120, n_blank: int = 60, stability: str = "stable", **blank: Any) -> CellRun:
    tasks = {
        "facts": build.task("facts", build.right(200, n_facts)),
        "blank": build.task("blank", build.right(100, n_blank), **blank),
    }
    made: CellRun = build.run(tasks, stability=stability)
    return made


def without(run: CellRun, task: str) -> CellRun:
    record = replace(run.record, tasks={name: info for name, info in run.record.tasks.items() if name != task})
    return CellRun(record, {name: made for name, made in run.runs.items() if name != task})


def fewer(build: Any, n_gone: int, n_new: int = 0) -> CellRun:
    """The tasks with the last items of ``facts`` replaced by others, each right where its predecessor was."""
    run = two_tasks(build)
    items = (*build.items("facts", 200)[: 200 - n_gone], *build.items("other", n_new))
    correct = np.resize(build.right(200, 120), len(items))
    tasks = {**run.runs, "facts": build.task("facts", correct, items=items)}
    return CellRun(replace(run.record, tasks={name: task.info for name, task in tasks.items()}), tasks)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (lambda b: [two_tasks(b)], []),
        (lambda b: [two_tasks(b, n_facts=121)], []),
        (
            lambda b: [two_tasks(b, n_facts=119)],
            ["the accuracy of facts falls by 0.5 pt", "the accuracy of pooled falls by 0.333 pt"],
        ),
        (lambda b: [two_tasks(b, n_facts=123, n_blank=58)], ["the accuracy of blank falls by 2 pt"]),
        (lambda b: [without(two_tasks(b), "blank")], ["blank is dropped", SMALLER_POOL]),
        (lambda b: [two_tasks(b, pooled=False)], ["blank leaves the pool", SMALLER_POOL]),
        (lambda b: [two_tasks(b, majority=0.5)], ["blank comes too near to guessing to show a loss"]),
        (lambda b: [two_tasks(b, tie_rule="right")], ["blank counts its answers in another way (tie rule: wrong -> right)"]),
        (
            lambda b: [two_tasks(b, score_class="generation", scorer="text 1")],
            [f"blank counts its answers in another way ({OTHER_SCORE})"],
        ),
        (lambda b: [two_tasks(b, data_version="2", chance=0.05)], []),
        (lambda b: [two_tasks(b, stability="re-compressed")], ["the weights now move whenever the cell is compressed again"]),
    ],
)
def test_what_lets_later_runs_keep_less_is_named(build: Any, now: Callable[[Any], list[CellRun]], expected: list[str]) -> None:
    assert list(loosened(baseline(build, two_tasks(build)), baseline(build, *now(build)), INFORMATIVE_AS_SHIPPED)) == expected


def test_dropped_items_are_named_even_where_others_took_their_place(build: Any) -> None:
    before = baseline(build, two_tasks(build))
    assert "facts drops 3 of its 200 items" in loosened(before, baseline(build, fewer(build, 3)), INFORMATIVE_AS_SHIPPED)
    assert list(loosened(before, baseline(build, fewer(build, 3, n_new=3)), INFORMATIVE_AS_SHIPPED)) == [
        "facts drops 3 of its 200 items"
    ]


def test_more_noise_is_named_task_by_task_and_less_is_not(build: Any) -> None:
    quiet = baseline(build, two_tasks(build))
    run = two_tasks(build)
    noisy = baseline(build, run, build.flipped(run, lost=1), build.flipped(run, gained=1))
    assert list(loosened(quiet, noisy, INFORMATIVE_AS_SHIPPED)) == [
        f"the A/A {what} of {unit} grows from {was} to {now} pt"
        for unit, rows in (
            ("facts", (("spread", "0", "0.5"), ("flip rate", "0.951", "1.8"))),
            ("blank", (("spread", "0", "1"), ("flip rate", "1.88", "3.57"))),
            (POOLED, (("spread", "0", "0.667"), ("flip rate", "0.636", "1.7"))),
        )
        for what, was, now in rows
    ]
    assert list(loosened(noisy, quiet, INFORMATIVE_AS_SHIPPED)) == []


def test_relations_that_no_longer_stand_for_others_loosen(build: Any) -> None:
    before, now = baseline(build, two_tasks(build, n_clusters=24)), baseline(build, two_tasks(build))
    assert list(loosened(before, now, INFORMATIVE_AS_SHIPPED)) == [
        "blank's relations stood for others, and now only for themselves"
    ]
    assert list(loosened(now, before, INFORMATIVE_AS_SHIPPED)) == []


def test_where_nothing_is_accepted_nothing_is_loosened(build: Any) -> None:
    assert list(loosened(None, baseline(build, two_tasks(build)), INFORMATIVE_AS_SHIPPED)) == []


def test_the_policy_says_what_is_too_near_to_guessing(build: Any) -> None:
    before, now = baseline(build, two_tasks(build, n_blank=30)), baseline(build, two_tasks(build, n_blank=30, majority=0.18))
    assert "blank comes too near to guessing to show a loss" not in loosened(before, now, INFORMATIVE_AS_SHIPPED)
    assert "blank comes too near to guessing to show a loss" in loosened(before, now, Informative(margin=0.05))


# ------------------------------------------------------------------------------------------------ what changes


def test_changes_are_paired_by_digest_with_the_interval_of_the_loss(build: Any) -> None:
    run = two_tasks(build)
    now = build.reordered(build.flipped(run, lost=6, gained=2))
    changes = compare_baselines(baseline(build, run), baseline(build, now))
    facts, blank, pooled = changes.units
    assert [unit.name for unit in changes.units] == ["facts", "blank", POOLED]
    assert facts.counts == PairedCounts(6, 2, 192)
    assert pooled.counts == PairedCounts(12, 4, 284)
    assert (facts.loss.value, facts.loss.low, facts.loss.high) == pytest.approx((0.02, *tango_interval(6, 2, 200, 0.95)))
    assert blank.now.accuracy == pytest.approx(0.56)


def test_only_items_that_both_hold_are_paired(build: Any) -> None:
    changes = compare_baselines(baseline(build, two_tasks(build)), baseline(build, fewer(build, 5, n_new=9)))
    facts = changes.units[0]
    assert facts.counts == PairedCounts(0, 0, 195)
    assert (facts.before.n_items, facts.now.n_items) == (200, 204)
    assert not changes.is_nothing


def test_the_pool_is_compared_over_the_tasks_that_are_pooled_in_both(build: Any) -> None:
    before, now = baseline(build, two_tasks(build)), baseline(build, two_tasks(build, n_blank=10, pooled=False))
    pooled = compare_baselines(before, now).units[-1]
    assert (pooled.before.accuracy, pooled.now.accuracy, pooled.counts) == (0.6, 0.6, PairedCounts(0, 0, 200))


def test_a_task_that_came_or_went_has_one_side(build: Any) -> None:
    both, one = baseline(build, two_tasks(build)), baseline(build, without(two_tasks(build), "blank"))
    came, went = compare_baselines(one, both).units[1], compare_baselines(both, one).units[1]
    assert (came.name, came.before, came.counts) == ("blank", None, None)
    assert (went.name, went.now, went.loss) == ("blank", None, None)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"data_version": "2"}, "data version: 1 -> 2"),
        ({"spec_digest": "f" * 64}, "specification: .{12} -> ffffffffffff"),
        ({"n_clusters": 24}, "relations that stand for others: none -> 24"),
        ({"pooled": False}, "in the pool: yes -> no"),
        ({"chance": 0.05}, "chance: 0.1 -> 0.05"),
        ({"majority": 0.2}, "share of the commonest answer: 0.12 -> 0.2"),
    ],
)
def test_what_a_task_asks_or_means_in_another_way_is_shown(build: Any, changes: dict[str, Any], rule: str) -> None:
    found = compare_baselines(baseline(build, two_tasks(build)), baseline(build, two_tasks(build, **changes)))
    assert not found.is_nothing
    (told,) = found.units[1].rules
    assert re.fullmatch(rule, told)
    assert found.units[0].rules == found.units[-1].rules == ()


def test_nothing_is_nothing_only_where_items_answers_noise_and_engine_agree(build: Any) -> None:
    before = baseline(build, two_tasks(build))
    assert compare_baselines(before, baseline(build, two_tasks(build))).is_nothing
    assert compare_baselines(before, baseline(build, build.reordered(two_tasks(build)))).is_nothing
    run = two_tasks(build)
    traded = build.flipped(run, lost=1, gained=1)
    assert not compare_baselines(before, baseline(build, traded)).is_nothing
    assert not compare_baselines(before, baseline(build, run, build.flipped(run, lost=1, gained=1), run)).is_nothing
    other = build.run(dict(run.runs), engine={"torch": "2"})
    assert not compare_baselines(before, baseline(build, other)).is_nothing
    assert compare_baselines(None, before).is_nothing is False


def test_counts_hold_for_any_order_of_items(build: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        was, is_now = rng.random(50) < 0.5, rng.random(50) < 0.5
        run = build.run({"facts": build.task("facts", was)})
        later = build.reordered(build.run({"facts": build.task("facts", is_now)}))
        counts = compare_baselines(baseline(build, run), baseline(build, later)).units[0].counts
        assert (counts.n_lost, counts.n_gained) == (int((was & ~is_now).sum()), int((~was & is_now).sum()))
