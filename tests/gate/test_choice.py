"""The early warning on a choice among prompts: it tells what moved since the baseline, and never fails anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.core.records import Cell, CellRun
from harness.core.verdicts import CellVerdict, Status
from harness.gate import Family, Policy, judge

N = 300
CELL = Cell("llama", "4bit-rtn", "idp")
BEFORE = tuple((i % 3,) for i in range(N))


@pytest.fixture
def judged(build: Any, policy: Policy) -> Any:
    def made(choices: Any, before: Any = BEFORE, *, order: int = 1) -> CellVerdict:
        right = build.right(N, 200)

        def run(rows: Any, weights: str, order: int = 1) -> CellRun:
            task = build.task("facts", right, cell=CELL)
            outcomes = replace(task.outcomes, choices=rows)
            if order < 0:
                columns = ("correct", "answers", "ranks", "margins_nats", "near_ties")
                turned = {name: getattr(outcomes, name)[::-1] for name in columns}
                digests, rows = outcomes.digests[::-1], None if rows is None else rows[::-1]
                outcomes = replace(outcomes, digests=digests, choices=rows, option_logliks_nats=None, **turned)
                task = replace(task, items=task.items[::-1], outcomes=outcomes)
            return build.run({"facts": replace(task, outcomes=outcomes)}, cell=CELL, weights=weights)

        known = build.baseline(run(before, "w1"))
        return judge(run(choices, "w2", order), known, policy, Family(2, 2), mode="commit", declared_tasks=("facts",))

    return made


def test_a_choice_that_moved_is_told_in_numbers_and_fails_nothing(judged: Any) -> None:
    verdict = judged(tuple((2,) if i % 4 == 0 else row for i, row in enumerate(BEFORE)))
    (task,) = verdict.tasks
    assert verdict.status is Status.PASS
    assert task.choice is not None
    assert (task.choice.n_items, task.choice.n_moved) == (300, 50)
    assert task.choice.before == (100, 100, 100)
    assert task.choice.now == (75, 75, 150)
    assert task.choice.warning.startswith(
        "facts: the choice of prompts moved: 50 of 300 items are asked behind another prompt than in the baseline "
        "(33 / 33 / 33 % of them behind each then, 25 / 25 / 50 % now, p 1e-11). It fails nothing"
    )


@pytest.mark.parametrize("order", [1, -1])
def test_items_are_joined_by_their_digests(judged: Any, order: int) -> None:
    found = judged(BEFORE, order=order).tasks[0].choice
    assert (found.n_moved, found.p_value, found.warning) == (0, 1.0, "")


def test_choices_that_move_to_and_fro_warn_of_nothing(judged: Any) -> None:
    moved = np.random.default_rng(0).permutation(N)[:60]
    swapped = list(BEFORE)
    for i in moved:
        swapped[i] = ((swapped[i][0] + 1) % 3,)
    found = judged(tuple(swapped)).tasks[0].choice
    assert found.n_moved == 60
    assert found.warning == ""


def test_an_item_behind_several_prompts_is_a_kind_of_its_own(judged: Any) -> None:
    found = judged(tuple((0, 1) if i < 60 else row for i, row in enumerate(BEFORE))).tasks[0].choice
    assert found.n_moved == 60
    assert found.now == (80 + 30, 80 + 30, 80)
    assert found.warning


@pytest.mark.parametrize(("choices", "before"), [(None, BEFORE), (BEFORE, None), (None, None)])
def test_where_one_side_knows_of_no_choice_nothing_is_said(judged: Any, choices: Any, before: Any) -> None:
    assert judged(choices, before).tasks[0].choice is None
