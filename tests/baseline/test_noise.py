"""What a cell moves by when nothing changed is measured: flips by digest, their upper limit, the spread, the median run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from harness.baseline.noise import Repeat, choose_stored, count_flips, describe_repeats, make_noise, pair_correct
from harness.core.errors import EvidenceError
from harness.core.verdicts import POOLED


def test_flips_are_joined_by_digest_and_not_by_position(build: Any) -> None:
    run = build.one(200, 120)
    other = build.reordered(build.flipped(run, lost=3, gained=2))
    assert count_flips(run.runs["facts"].outcomes, other.runs["facts"].outcomes) == 5
    assert count_flips(run.runs["facts"].outcomes, build.reordered(run).runs["facts"].outcomes) == 0


def test_runs_over_other_items_are_no_repeats(build: Any) -> None:
    with pytest.raises(EvidenceError, match="only 150 of 200 are in both"):
        count_flips(build.one(200, 120).runs["facts"].outcomes, build.one(150, 120).runs["facts"].outcomes)


def test_pairs_hold_the_shared_items_in_the_order_of_the_first(build: Any) -> None:
    before = build.task("facts", np.array([True, False, True])).outcomes
    now = (
        build.reordered(build.run({"facts": build.task("facts", np.array([False, False, True, True]))})).runs["facts"].outcomes
    )
    was, is_now = pair_correct(before, now)
    assert (was.tolist(), is_now.tolist()) == ([True, False, True], [False, False, True])


def test_the_run_of_median_accuracy_is_stored_and_of_equal_ones_the_lowest_label(build: Any) -> None:
    base = build.one(200, 120)
    better, worse = build.flipped(base, gained=4), build.flipped(base, lost=4)
    assert choose_stored(build.repeats(better, base, worse)).run is base
    assert choose_stored(build.repeats(worse, base)).run is base  # of an even number the better of the middle two
    assert choose_stored(build.repeats(base, base, base)).label == "as declared"
    turned = build.repeats(base, base, base)[::-1]
    assert choose_stored(turned).label == "as declared"


def test_only_the_pool_decides_which_run_is_the_median(build: Any) -> None:
    def run(n_facts: int, n_blank: int) -> Any:
        blank = build.task("blank", build.right(100, n_blank), pooled=False)
        return build.run({"facts": build.task("facts", build.right(200, n_facts)), "blank": blank})

    runs = [run(120, 90), run(110, 50), run(100, 10)]
    assert choose_stored(build.repeats(*runs)).run is runs[1]


def test_the_stored_run_comes_first_and_flips_nothing(build: Any) -> None:
    base = build.one(200, 120)
    repeats = build.repeats(build.flipped(base, gained=4), base, build.flipped(base, lost=3))
    told = describe_repeats(repeats, repeats[1])
    assert [run.label for run in told] == ["batches of 256 tokens", "as declared", "batches of 512 tokens"]
    assert [run.n_flips["facts"] for run in told] == [0, 4, 3]
    assert [run.accuracy["facts"] for run in told] == pytest.approx([0.6, 0.62, 0.585])


def test_the_flip_rate_is_the_upper_wilson_limit_over_all_other_runs(build: Any) -> None:
    tasks = {
        "facts": build.task("facts", build.right(200, 120)),
        "blank": build.task("blank", build.right(50, 30), pooled=False),
    }
    base = build.run(tasks)
    repeats = build.repeats(base, build.flipped(base, lost=1, gained=1), build.flipped(base, lost=2, gained=1))
    noise = make_noise(describe_repeats(repeats, repeats[0]), {"facts": 200, "blank": 50}, ["facts"])
    for unit, n_items in (("facts", 200), ("blank", 50), (POOLED, 200)):
        expected = proportion_confint(5, 2 * n_items, alpha=0.05, method="wilson")[1]
        assert noise.flip_rate[unit] == pytest.approx(expected, rel=1e-9)


def test_the_pool_weighs_its_tasks_by_their_items(build: Any) -> None:
    tasks = {"facts": build.task("facts", build.right(300, 180)), "numbers": build.task("numbers", build.right(100, 60))}
    base = build.run(tasks)
    runs = [base, build.flipped(base, lost=6), build.flipped(base, gained=2)]
    repeats = build.repeats(*runs)
    noise = make_noise(describe_repeats(repeats, repeats[0]), {"facts": 300, "numbers": 100}, ["facts", "numbers"])
    by_task = {name: np.std([run.runs[name].outcomes.correct.mean() for run in runs], ddof=1) for name in tasks}
    pooled = [sum(int(task.outcomes.correct.sum()) for task in run.runs.values()) / 400 for run in runs]
    assert noise.sigma == pytest.approx({**by_task, POOLED: np.std(pooled, ddof=1)})
    assert noise.flip_rate[POOLED] == pytest.approx(proportion_confint(16, 800, method="wilson")[1])


def test_without_one_flip_the_flip_rate_is_still_no_zero(build: Any) -> None:
    repeats = build.repeats(build.one(200, 120))
    noise = make_noise(describe_repeats(repeats, repeats[0]), {"facts": 200}, ["facts"])
    assert noise.sigma["facts"] == 0
    assert noise.flip_rate["facts"] == pytest.approx(1.959964**2 / (400 + 1.959964**2), rel=1e-6)


def test_equal_accuracies_have_no_spread_whatever_their_last_digit(build: Any) -> None:
    for n_right in range(1, 60):
        repeats = build.repeats(build.one(59, n_right))
        assert make_noise(describe_repeats(repeats, repeats[0]), {"facts": 59}, ["facts"]).sigma == {"facts": 0, POOLED: 0}


def test_no_pool_no_pooled_noise(build: Any) -> None:
    repeats = build.repeats(build.one(200, 120, pooled=False))
    noise = make_noise(describe_repeats(repeats, repeats[0]), {"facts": 200}, [])
    assert set(noise.sigma) == set(noise.flip_rate) == {"facts"}


def test_two_runs_show_no_noise(build: Any) -> None:
    repeats = build.repeats(build.one(200, 120))[:2]
    with pytest.raises(EvidenceError, match="at least 3 A/A runs"):
        make_noise(describe_repeats(repeats, repeats[0]), {"facts": 200}, ["facts"])


def test_a_repeat_tells_what_was_varied(build: Any) -> None:
    run = build.one(200, 120)
    told = Repeat("calibration sample 1, 1 thread", 1, 1, None, run).against({"facts": run.runs["facts"].outcomes})
    assert (told.label, told.seed, told.threads, told.batch_tokens) == ("calibration sample 1, 1 thread", 1, 1, None)
