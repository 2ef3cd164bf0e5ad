"""The dense floor: a cell against its model's dense cell, by a pattern in the policy; nothing changes without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from harness.baseline import Baseline
from harness.core.errors import ConfigError
from harness.core.records import Cell, CellRun
from harness.core.verdicts import CellVerdict, Status, Verdict
from harness.gate import Dense, Family, Policy, exit_code, judge, read_policy, undecided
from harness.gate.policy import DenseFloor
from harness.stats.recompression import p_loss_above, p_loss_below
from harness.stats.sequential import round_ends

N = 1000
DENSE = Cell("llama", "none", "none")
FAMILY = Family(n_cells=5, n_tasks=5)


@pytest.fixture
def floored(policy: Policy) -> Policy:
    return replace(policy, dense_floor=(DenseFloor("*_4bit-rtn_*", 0.12),))


@pytest.fixture
def compressed(build: Any) -> Any:
    """A cell that knows 600 of the dense model's 700 facts and 20 others: it lost 8 pt; more where ``lost`` says so."""

    def run(lost: int = 0, weights: str = "w2", n: int = N, **task: Any) -> CellRun:
        return build.run({"facts": build.task("facts", build.right(n, 700, 100 + lost, 20), **task)}, weights=weights)

    return run


@pytest.fixture
def dense(build: Any) -> CellRun:
    return build.run({"facts": build.task("facts", build.right(N, 700), cell=DENSE)}, cell=DENSE, weights="dense")


@pytest.fixture
def ruled(floored: Policy, compressed: Any, build: Any, dense: CellRun) -> Any:
    last = build.baseline(compressed(weights="w1"))

    def call(run: CellRun, found: Dense | None = None, *, policy: Policy = floored, **more: Any) -> CellVerdict:
        found = Dense(dense) if found is None else found
        given = {"mode": "commit", "declared_tasks": ("facts",), "dense": found, **more}
        return judge(run, given.pop("last", last), policy, FAMILY, **given)

    return call


def pool(verdict: CellVerdict) -> Verdict:
    assert verdict.pooled is not None
    return verdict.pooled


# ------------------------------------------------------------------------------------------------ what it says


def test_a_loss_beyond_the_floor_is_red_although_the_last_baseline_has_it_too(
    ruled: Any, compressed: Any, build: Any, floored: Policy
) -> None:
    accepted = build.baseline(compressed(90, weights="w1"))
    verdict = ruled(compressed(90), last=accepted)
    found = pool(verdict)
    assert (found.status, found.anchor, verdict.status) == (Status.REGRESSED, "dense", Status.REGRESSED)
    assert found.reason.startswith("against llama_none_none: pooled lost 17 pt")
    assert "a loss above the 12 pt margin is proven" in found.reason
    assert "raise max_loss of its [[dense_floor]] in the policy" in found.reason
    assert verdict.tasks[0].status is Status.PASS
    assert exit_code(verdict.all) == 1
    assert pool(ruled(compressed(90), last=accepted, policy=replace(floored, dense_floor=()))).status is Status.PASS


def test_a_loss_within_the_floor_leaves_the_last_word_to_the_last_baseline(ruled: Any, compressed: Any) -> None:
    found = pool(ruled(compressed()))
    assert (found.status, found.anchor) == (Status.PASS, "last")


def test_too_near_to_the_floor_is_inconclusive_and_fails_a_release(ruled: Any, compressed: Any, build: Any) -> None:
    accepted = build.baseline(compressed(37, weights="w1"))
    found = pool(ruled(compressed(37), last=accepted))
    assert (found.status, found.anchor, found.fails) == (Status.INCONCLUSIVE, "dense", False)
    assert "neither a loss above 12 pt nor one below 12 pt is proven; about" in found.reason
    assert pool(ruled(compressed(37), last=accepted, mode="release")).fails
    on_it = pool(ruled(compressed(40), last=build.baseline(compressed(40, weights="w1"))))
    assert "the loss lies on the margin itself, where no number of items decides" in on_it.reason


def test_the_evidence_is_that_of_the_same_items_in_both(ruled: Any, compressed: Any, build: Any) -> None:
    evidence = pool(ruled(compressed(90), last=build.baseline(compressed(90, weights="w1")))).evidence
    assert evidence is not None
    assert (evidence.counts.n_lost, evidence.counts.n_gained, evidence.counts.n_items) == (190, 20, N)
    assert (evidence.m0, evidence.m1) == (0.12, 0.12)
    assert evidence.p_fail == pytest.approx(float(p_loss_above(190, 20, N, 0.12)) / 0.8)
    assert evidence.accuracy_baseline.value == 0.7


def test_a_floor_is_for_these_weights_however_much_compressing_again_moves_them(
    ruled: Any, build: Any, compressed: Any
) -> None:
    moving = compressed(90)
    moves = replace(moving.record, compression=replace(moving.record.compression, stability="re-compressed"))
    noise = build.noise((0.40, 0.45, 0.50))
    found = pool(ruled(CellRun(moves, moving.runs), last=build.baseline(compressed(90, weights="w1"), noise)))
    assert (found.status, found.anchor) == (Status.REGRESSED, "dense")


# ------------------------------------------------------------------------------------------------ the level


def test_every_anchor_of_a_cell_takes_an_equal_part_of_its_level_and_tasks_pay_nothing(
    ruled: Any, compressed: Any, build: Any, policy: Policy, floored: Policy
) -> None:
    release = build.baseline(compressed(weights="w0"))
    for anchor, n_anchors, n_guards in ((None, 2, 1), (release, 3, 2)):
        verdict = ruled(compressed(), release=anchor)
        without = ruled(compressed(), release=anchor, policy=policy)
        assert pool(verdict).evidence.level_fail == pytest.approx(FAMILY.cell_level(floored) / n_anchors)
        assert verdict.tasks[0].evidence.level_fail == pytest.approx(FAMILY.task_level(floored) / n_guards)
        assert verdict.tasks == without.tasks


@pytest.mark.parametrize("n", [200, 600])
@pytest.mark.parametrize("floor", [0.05, 0.12, 0.3])
def test_a_cell_exactly_on_its_floor_is_red_no_more_often_than_its_level_says(n: int, floor: float) -> None:
    """By enumeration of all counts, over the shares of items that a compression gains while it loses."""
    lost, gained = (part[part_of(n)] for part in np.indices((n + 1, n + 1)))
    p_fail, p_pass = p_loss_above(lost, gained, n, floor) / 0.8, p_loss_below(lost, gained, n, floor) / 0.5
    for gains in (0.0, 0.002, 0.02, 0.1, 0.2):
        shares = (floor + gains, gains, 1 - floor - 2 * gains)
        counts = (lost, gained, n - lost - gained)
        log_p = special.gammaln(n + 1) + sum(
            special.xlogy(count, share) - special.gammaln(count + 1) for count, share in zip(counts, shares, strict=True)
        )
        chances = np.exp(log_p)
        assert chances.sum() == pytest.approx(1)
        for n_anchors in (2, 3):
            level = 0.025 / 5 / n_anchors
            assert chances[p_fail < level].sum() <= level
        assert chances[p_pass < 0.05].sum() <= 0.03  # half of the level is kept for early verdicts


def part_of(n: int) -> np.ndarray:
    return np.indices((n + 1, n + 1)).sum(0) <= n


@settings(deadline=None, max_examples=25)
@given(lost=st.integers(0, 120), more=st.integers(0, 60), has_release=st.booleans())
def test_without_a_floor_nothing_about_the_dense_cell_matters(
    build: Any, policy: Policy, lost: int, more: int, has_release: bool
) -> None:
    def cell(lost: int, weights: str) -> CellRun:
        return build.run({"facts": build.task("facts", build.right(400, 250, lost))}, weights=weights)

    last, release = build.baseline(cell(lost, "w1")), build.baseline(cell(0, "w0")) if has_release else None
    given = {"mode": "commit", "declared_tasks": ("facts",), "release": release}
    run = cell(lost + more, "w2")
    elsewhere = replace(policy, dense_floor=(DenseFloor("*_3bit-rtn_*", 0.001),))
    plain = judge(run, last, policy, FAMILY, **given)
    assert judge(run, last, policy, FAMILY, dense=Dense(cell(0, "dense")), **given) == plain
    assert judge(run, last, elsewhere, FAMILY, dense=Dense(), **given) == plain


# ------------------------------------------------------------------------------------------------ which dense record


def test_without_any_record_of_the_dense_cell_the_one_command_is_named(ruled: Any, compressed: Any) -> None:
    for dense in (Dense(), None):
        verdict = judge_without(ruled, compressed(), dense)
        found = pool(verdict)
        assert (found.status, found.anchor) == (Status.INVALID, "dense")
        assert "llama_none_none neither has an accepted baseline nor was measured whole in this run" in found.reason
        assert '`harness baseline propose llama_none_none --reason "..."`' in found.reason
        assert exit_code(verdict.all) == 11


def judge_without(ruled: Any, run: CellRun, dense: Dense | None) -> CellVerdict:
    return ruled(run, dense) if dense is not None else ruled(run, Dense(), dense=None)


def test_the_dense_cell_of_this_run_comes_first_and_its_baseline_where_it_was_not_measured_whole(
    ruled: Any, compressed: Any, build: Any, dense: CellRun, floored: Policy
) -> None:
    knows_less = build.run({"facts": build.task("facts", build.right(N, 500), cell=DENSE)}, cell=DENSE, weights="dense")
    run, stored = compressed(90), build.baseline(dense)
    accepted = build.baseline(compressed(90, weights="w1"))
    assert pool(ruled(run, Dense(knows_less, stored), last=accepted)).status is Status.PASS
    assert pool(ruled(run, Dense(build.cut(knows_less, 300), stored), last=accepted)).status is Status.REGRESSED
    assert pool(ruled(run, Dense(build.cut(dense, 300)), last=accepted)).status is Status.INVALID


def test_a_limited_run_is_held_against_the_same_items_of_the_whole_dense_cell(
    ruled: Any, compressed: Any, build: Any, dense: CellRun, floored: Policy
) -> None:
    run = build.cut(compressed(250, limit=300), 300)
    task = run.runs["facts"]
    limited = CellRun(run.record, {"facts": replace(task, info=replace(task.info, n_items=300))})
    accepted = build.baseline(compressed(250, weights="w1"))
    assert (
        pool(ruled(limited, Dense(build.cut(dense, 300), build.baseline(dense)), last=accepted)).evidence.counts.n_items == 300
    )


@pytest.mark.parametrize(
    "change",
    [
        ("dense_digest", "other dense weights"),
        ("config_digest", "other model config"),
        ("tokenizer_digest", "other tokenizer"),
    ],
)
def test_the_dense_cell_of_another_model_is_no_floor(
    ruled: Any, compressed: Any, build: Any, dense: CellRun, change: tuple[str, str]
) -> None:
    field, words = change
    other = replace(dense.record, provenance=replace(dense.record.provenance, **{field: "0" * 64}))
    old = build.baseline(CellRun(other, dense.runs))
    found = pool(ruled(compressed(), Dense(None, old)))
    assert found.status is Status.INVALID
    assert words in found.reason
    assert "measure llama_none_none in the same run" in found.reason
    assert pool(ruled(compressed(), Dense(dense, old))).status is Status.PASS
    assert pool(ruled(compressed(), Dense(CellRun(other, dense.runs), build.baseline(dense)))).status is Status.PASS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scorer": "plain 2"}, "the scorer differs ('plain 2' in the dense cell, 'plain 1' now)"),
        ({"spec_digest": "0" * 64}, "set up differently"),
        ({"name": "blank"}, "llama_none_none has no task 'facts'"),
    ],
)
def test_a_dense_cell_that_was_asked_otherwise_is_invalid_and_says_what_to_do(
    ruled: Any, compressed: Any, build: Any, change: dict[str, Any], words: str
) -> None:
    name = change.get("name", "facts")
    items = build.items("facts", N)
    asked = build.task(
        "facts", build.right(N, 700), cell=DENSE, items=items, **{k: v for k, v in change.items() if k != "name"}
    )
    stored = build.baseline(build.run({name: asked}, cell=DENSE, weights="dense"))
    found = pool(ruled(compressed(), Dense(None, stored)))
    assert (found.status, found.anchor) == (Status.INVALID, "dense")
    assert words in found.reason
    assert "harness baseline propose llama_none_none" in found.reason


def test_what_the_policy_requires_to_be_the_same_is_required_of_the_dense_cell_too(
    ruled: Any, compressed: Any, build: Any, dense: CellRun, floored: Policy
) -> None:
    engine = {**dense.record.provenance.engine, "torch": "0.9"}
    old = replace(dense.record, provenance=replace(dense.record.provenance, engine=engine))
    strict = replace(floored, require_same=("torch",))
    found = pool(ruled(compressed(), Dense(None, build.baseline(CellRun(old, dense.runs))), policy=strict))
    assert found.status is Status.INVALID
    assert "requires the torch: 0.9 -> 1 of llama_none_none" in found.reason


# ------------------------------------------------------------------------------------------------ rounds


def test_a_cell_is_fed_until_the_floor_is_decided_too(
    ruled: Any, compressed: Any, build: Any, dense: CellRun, floored: Policy
) -> None:
    policy = replace(floored, dense_floor=())
    run, last = compressed(20), build.baseline(compressed(20, weights="w1"))
    given = {"declared_tasks": ("facts",), "dense": Dense(dense)}
    n_fed = {
        chosen: next(
            (end for end in round_ends(N) if not undecided(build.cut(run, end), last, chosen_policy, FAMILY, **given)), N
        )
        for chosen, chosen_policy in (("floor", floored), ("none", policy))
    }
    assert n_fed["none"] < n_fed["floor"]
    early = build.cut(run, n_fed["none"])
    assert pool(ruled(early, last=last, policy=policy)).status is Status.PASS
    found = pool(ruled(early, last=last))
    assert (found.status, found.anchor) == (Status.INVALID, "dense")
    assert "run the cell again" in found.reason


def test_a_floor_that_is_missed_stops_the_cell_and_what_that_cut_off_is_not_invalid(
    ruled: Any, compressed: Any, build: Any, dense: CellRun, floored: Policy
) -> None:
    run, last = compressed(400), build.baseline(compressed(400, weights="w1"))
    given = {"declared_tasks": ("facts",), "dense": Dense(dense)}
    n_fed = next(end for end in round_ends(N) if not undecided(build.cut(run, end), last, floored, FAMILY, **given))
    assert n_fed < N / 5
    verdict = ruled(build.cut(run, n_fed), last=last)
    assert (pool(verdict).status, pool(verdict).anchor) == (Status.REGRESSED, "dense")
    assert verdict.tasks[0].status in (Status.INCONCLUSIVE, Status.PASS)


def test_nothing_is_fed_for_the_sake_of_a_floor_that_can_not_be_judged(
    build: Any, compressed: Any, baseline_of_it: Baseline, floored: Policy, policy: Policy
) -> None:
    for end in round_ends(N)[:-1]:
        part = build.cut(compressed(), end)
        assert undecided(part, baseline_of_it, floored, FAMILY, declared_tasks=("facts",)) >= undecided(
            part, baseline_of_it, policy, FAMILY, declared_tasks=("facts",)
        )
    part = build.cut(compressed(), round_ends(N)[-2])
    assert not undecided(part, baseline_of_it, floored, FAMILY, declared_tasks=("facts",))


@pytest.fixture
def baseline_of_it(build: Any, compressed: Any) -> Baseline:
    return build.baseline(compressed(weights="w1"))


# ------------------------------------------------------------------------------------------------ the policy


def test_the_first_pattern_that_fits_is_a_cells_floor_and_a_dense_cell_has_none(policy: Policy) -> None:
    ruled = replace(
        policy, dense_floor=(DenseFloor("opt_3bit-*_none", 0.4), DenseFloor("*_3bit-*", 0.3), DenseFloor("*", 0.1))
    )
    found = {
        cell: floor.max_loss if (floor := ruled.floor_of(Cell.parse(cell))) else None
        for cell in ("opt_3bit-rtn_none", "opt_3bit-rtn_idp", "llama_8bit-rtn_none", "llama_none_none", "llama_none_idp")
    }
    assert list(found.values()) == [0.4, 0.3, 0.1, None, 0.1]
    assert policy.floor_of(Cell.parse("opt_3bit-rtn_none")) is None


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('cells = "*"\nmax_loss = 12', "expected a loss between 0 and 1 (both excluded), got 12.0 for cells '*'"),
        ('cells = "*"', "max_loss"),
        ('cells = "*"\nmax_los = 0.1', "max_los"),
    ],
)
def test_a_mistake_in_a_floor_is_told_with_its_key(tmp_path: Path, table: str, sentence: str) -> None:
    shipped = (Path(__file__).parents[2] / "suites" / "policy.toml").read_text()
    path = tmp_path / "policy.toml"
    path.write_text(f"{shipped}\n[[dense_floor]]\n{table}\n")
    with pytest.raises(ConfigError) as caught:
        read_policy(path)
    assert sentence in str(caught.value)
    assert "dense_floor" in str(caught.value)
