"""Recovery's own rule in the gate: a cell, its compressed sibling, and both their baselines, item by item."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.records import Cell, CellFailure, CellRun
from harness.core.verdicts import CellVerdict, Status, Verdict
from harness.gate import Family, Policy, Sibling, exit_code, judge, undecided
from harness.gate.recovery import RecoveryUnit, decide_recovery
from harness.stats.recompression import NO_SPREAD, Spread
from harness.stats.recovery import count_losses_of_gain, log_e_fail_recovery, log_e_pass_recovery, p_recovery_worse
from harness.stats.sequential import anytime_p, round_ends

N = 1500
RECOVERED, COMPRESSED = Cell("llama", "4bit-rtn", "idp"), Cell("llama", "4bit-rtn", "none")
FAMILY = Family(n_cells=5, n_tasks=5)
RNG = np.random.default_rng(7)
ORDER = RNG.permutation(N)


def right(*spans: tuple[int, int]) -> np.ndarray:
    """The items of these spans are right; spans are of one fixed random order, as fed items are mixed."""
    made = np.zeros(N, dtype=bool)
    for start, end in spans:
        made[ORDER[start:end]] = True
    return made


COMPRESSED_BEFORE = right((0, 700))
RECOVERED_BEFORE = right((0, 900))
"""Recovery wins back 200 of 1,500 items, 13.3 pt."""


class Records:
    """The four records of a task: two runs and two baselines."""

    def __init__(self, build: Any, compressed: np.ndarray, recovered: np.ndarray, **changes: Any) -> None:
        self.build, self.changes = build, changes
        self.run = self.cell(RECOVERED, recovered, "w2")
        self.baseline = build.baseline(self.cell(RECOVERED, changes.get("recovered_before", RECOVERED_BEFORE), "w1"))
        before = self.cell(COMPRESSED, changes.get("compressed_before", COMPRESSED_BEFORE), "w1")
        self.sibling = Sibling(self.cell(COMPRESSED, compressed, "w2"), build.baseline(before))

    def cell(self, cell: Cell, correct: np.ndarray, weights: str) -> CellRun:
        return self.build.run({"facts": self.build.task("facts", correct, cell=cell)}, cell=cell, weights=weights)

    def judged(self, policy: Policy, **changes: Any) -> CellVerdict:
        given = {"mode": "commit", "declared_tasks": ("facts",), "sibling": self.sibling, **changes}
        return judge(given.pop("run", self.run), given.pop("baseline", self.baseline), policy, FAMILY, **given)


@pytest.fixture
def records(build: Any) -> Any:
    def make(compressed: np.ndarray = COMPRESSED_BEFORE, recovered: np.ndarray = RECOVERED_BEFORE, **changes: Any) -> Records:
        return Records(build, compressed, recovered, **changes)

    return make


def of(verdict: CellVerdict) -> Verdict:
    assert verdict.recovery is not None
    assert verdict.recovery.task == "recovery"
    return verdict.recovery


# ------------------------------------------------------------------------------------------------ what it says


def test_a_recovery_that_wins_back_less_is_red_although_the_cell_itself_lost_nothing(records: Any, policy: Policy) -> None:
    """The compressed model became better, the recovered one did not: then recovery does less than it did."""
    verdict = records(compressed=right((0, 800))).judged(policy)
    found = of(verdict)
    assert verdict.pooled is not None
    assert verdict.pooled.status is Status.PASS
    assert (found.status, verdict.status, exit_code(verdict.all)) == (Status.REGRESSED, Status.REGRESSED, 1)
    assert "recovery wins back 6.67 pt less than before" in found.reason
    assert "13.33 pt over llama_4bit-rtn_none in the baseline, 6.67 pt now, on 1,500 items" in found.reason
    assert "that more than 1 pt less is won back is proven" in found.reason
    assert 'harness baseline propose llama_4bit-rtn_idp --reason "..."' in found.reason


def test_the_evidence_is_the_rule_of_the_design(records: Any, policy: Policy) -> None:
    compressed, recovered = right((10, 705), (880, 890)), right((0, 870), (900, 905))
    gain = of(records(compressed, recovered).judged(policy)).gain
    assert gain is not None
    counts = count_losses_of_gain(COMPRESSED_BEFORE, RECOVERED_BEFORE, compressed, recovered)
    assert gain.counts == tuple(counts.tolist())
    assert (gain.gain_baseline, gain.gain_candidate) == (200 / N, 170 / N)
    assert gain.loss.value == pytest.approx(gain.gain_baseline - gain.gain_candidate)
    assert (gain.m0, gain.m1) == (0.01, max(0.02, 4 * (2 * 0.01 / N) ** 0.5))
    assert gain.level_fail == pytest.approx(0.025 / 5 / 2)
    early = [np.stack([cut_counts(compressed, recovered, end) for end in round_ends(N)], axis=1)]
    log_e = float(log_e_fail_recovery(early[0], 0.01).max())
    assert gain.p_fail == pytest.approx(float(anytime_p(log_e, 0.2, p_recovery_worse(counts, 0.01))))
    assert gain.p_pass == pytest.approx(min(1, np.exp(-log_e_pass_recovery(early[0], gain.m1).max())))


def cut_counts(compressed: np.ndarray, recovered: np.ndarray, end: int) -> np.ndarray:
    return count_losses_of_gain(COMPRESSED_BEFORE[:end], RECOVERED_BEFORE[:end], compressed[:end], recovered[:end])


def test_a_recovery_that_hardly_moved_passes_and_says_what_is_excluded(records: Any, policy: Policy) -> None:
    found = of(records(right((2, 702)), right((0, 899), (900, 902))).judged(policy))
    assert (found.status, found.identical) == (Status.PASS, False)
    assert (
        "2 pt less or worse is won back is excluded" in found.reason
        or "pt less or worse is won back is excluded" in found.reason
    )


def test_without_a_flip_in_either_cell_it_is_identical(records: Any, policy: Policy) -> None:
    found = of(records().judged(policy))
    assert (found.status, found.identical) == (Status.PASS, True)
    assert "not one of 1,500 items flipped, here or in llama_4bit-rtn_none" in found.reason
    moved_alike = right((0, 699), (700, 701)), right((0, 699), (700, 900))
    assert not of(records(*moved_alike).judged(policy)).identical


def test_between_the_margins_is_inconclusive_and_says_how_many_more_items(records: Any, policy: Policy) -> None:
    compressed = right((0, 725))
    found = of(records(compressed).judged(policy))
    assert found.status is Status.INCONCLUSIVE
    assert "neither a loss above 1 pt of it nor one below" in found.reason
    assert found.gain is not None
    assert found.gain.items_needed is not None
    assert f"about {found.gain.items_needed:,} more items would decide" in found.reason
    assert not found.fails
    assert of(records(compressed).judged(policy, mode="release")).fails


def test_the_items_needed_would_decide_and_a_few_less_would_not(policy: Policy) -> None:
    counts = np.array([0, 20, 1435, 45, 0])
    needed = decide_recovery(unit(counts[:, None]), policy)[1].items_needed
    assert needed is not None
    for times, decides in ((1.02, True), (0.95, False)):
        scaled = np.round(counts * times * (N + needed) / N).astype(np.int64)
        assert (decide_recovery(unit(scaled[:, None]), policy)[0] is not Status.INCONCLUSIVE) is decides


def unit(rounds: np.ndarray, spread: Spread = NO_SPREAD, n_planned: int | None = None) -> RecoveryUnit:
    n_items = int(rounds[:, -1].sum()) if n_planned is None else n_planned
    level = FAMILY.n_cells and 0.025 / 5 / 2
    return RecoveryUnit(rounds, (0.1, 0.1), n_items, flip_rate=0.02, level_fail=level, spread=spread)


# ------------------------------------------------------------------------------------------------ what it needs


def test_without_the_sibling_in_the_run_the_rest_is_judged_as_it_is_and_the_level_stays(records: Any, policy: Policy) -> None:
    made = records(compressed=right((0, 800)))
    alone, beside = made.judged(policy, sibling=None), made.judged(policy)
    assert alone.recovery is None
    assert (alone.tasks, alone.pooled) == (beside.tasks, beside.pooled)
    assert alone.pooled.evidence.level_fail == pytest.approx(FAMILY.cell_level(policy) / 2)
    assert alone.tasks[0].evidence.level_fail == pytest.approx(FAMILY.task_level(policy))


def test_a_cell_that_is_not_recovered_has_no_such_case(records: Any, policy: Policy) -> None:
    made = records()
    sibling = made.sibling
    verdict = judge(sibling.run, sibling.baseline, policy, FAMILY, mode="commit", declared_tasks=("facts",), sibling=sibling)
    assert verdict.recovery is None
    assert verdict.pooled.evidence.level_fail == pytest.approx(FAMILY.cell_level(policy))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda s: Sibling(None, None), "the matrix declares no llama_4bit-rtn_none, over which recovery wins something back"),
        (lambda s: Sibling(CellFailure(COMPRESSED, "embedded", "a NaN."), s.baseline), "could not be measured: a NaN."),
        (lambda s: Sibling(s.run, None), '`harness baseline propose llama_4bit-rtn_none --reason "..."`'),
        (lambda s: Sibling(CellRun(s.run.record, {}), s.baseline), "llama_4bit-rtn_none is not asked facts: list the task"),
        (lambda s: Sibling(other_scorer(s.run), s.baseline), "facts of llama_4bit-rtn_none: the scorer differs"),
    ],
)  # fmt: skip
def test_what_is_missing_of_the_sibling_is_invalid_and_says_what_to_do(
    records: Any, policy: Policy, broken: Any, words: str
) -> None:
    made = records()
    verdict = made.judged(policy, sibling=broken(made.sibling))
    found = of(verdict)
    assert found.status is Status.INVALID
    assert words in found.reason
    assert verdict.pooled.status is Status.PASS
    assert exit_code(verdict.all) == 11


def other_scorer(run: CellRun) -> CellRun:
    return CellRun(run.record, {name: replace(task, scorer="plain 2") for name, task in run.runs.items()})


def test_a_sibling_that_stopped_early_is_asked_for_whole(records: Any, build: Any, policy: Policy) -> None:
    made = records()
    found = of(made.judged(policy, sibling=replace(made.sibling, run=build.cut(made.sibling.run, 600))))
    assert found.status is Status.INVALID
    assert "lacks 900 of the 1,500 items of facts that were measured here: measure it whole" in found.reason


def test_a_cell_that_failed_or_has_no_baseline_is_invalid_here_too(records: Any, policy: Policy) -> None:
    made = records()
    for found in (made.judged(policy, run=CellFailure(RECOVERED, "embedded", "crash")), made.judged(policy, baseline=None)):
        assert {verdict.status for verdict in found.all} == {Status.INVALID}
        assert len(found.all) == 3


def test_with_a_task_left_out_there_is_no_verdict_on_the_recovery(records: Any, policy: Policy) -> None:
    assert records().judged(policy, declared_tasks=("facts", "blank")).recovery is None


def test_where_nothing_was_known_there_is_nothing_to_win_back(records: Any, policy: Policy) -> None:
    nothing = right((0, 150))
    made = records(nothing, nothing, compressed_before=nothing, recovered_before=nothing)
    assert of(made.judged(policy)).status is Status.UNINFORMATIVE


# ------------------------------------------------------------------------------------------------ items and the pool


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_items_are_joined_by_digest_whatever_order_the_sibling_was_fed_in(build: Any, policy: Policy, seed: int) -> None:
    made = Records(build, right((5, 740)), right((0, 880)))
    task = made.sibling.run.runs["facts"]
    order = np.random.default_rng(seed).permutation(N)
    shuffled = build.task("facts", task.outcomes.correct[order], cell=COMPRESSED, items=tuple(task.items[i] for i in order))
    sibling = replace(made.sibling, run=build.run({"facts": shuffled}, cell=COMPRESSED, weights="w2"))
    assert made.judged(policy, sibling=sibling) == made.judged(policy)


def test_a_large_task_gives_the_pool_of_its_recovery_the_same_items_as_its_own(records: Any, policy: Policy) -> None:
    verdict = records(right((0, 760))).judged(replace(policy, pool_cap_items=500))
    assert of(verdict).gain.n_items == verdict.pooled.evidence.counts.n_items == 500


def test_guards_outside_of_the_pool_have_no_say(build: Any, policy: Policy) -> None:
    def cell(cell: Cell, weights: str, facts: np.ndarray, blank: np.ndarray) -> CellRun:
        tasks = {"facts": build.task("facts", facts, cell=cell), "blank": build.task("blank", blank, cell=cell, pooled=False)}
        return build.run(tasks, cell=cell, weights=weights)

    before = build.baseline(cell(RECOVERED, "w1", RECOVERED_BEFORE, RECOVERED_BEFORE))
    compressed = build.baseline(cell(COMPRESSED, "w1", COMPRESSED_BEFORE, COMPRESSED_BEFORE))
    sibling = Sibling(cell(COMPRESSED, "w2", COMPRESSED_BEFORE, RECOVERED_BEFORE), compressed)
    run = cell(RECOVERED, "w2", RECOVERED_BEFORE, RECOVERED_BEFORE)
    verdict = judge(run, before, policy, FAMILY, mode="commit", declared_tasks=("facts", "blank"), sibling=sibling)
    assert of(verdict).identical


# ------------------------------------------------------------------------------------------------ rounds


def test_a_cell_is_fed_until_its_recovery_is_decided_too(records: Any, build: Any, policy: Policy) -> None:
    made = records(right((12, 712)), right((0, 899), (900, 901)))

    def n_fed(sibling: Sibling | None) -> int:
        given = {"declared_tasks": ("facts",), "sibling": sibling}
        return next(
            e for e in round_ends(N) if e == N or not undecided(build.cut(made.run, e), made.baseline, policy, FAMILY, **given)
        )

    alone, beside = n_fed(None), n_fed(made.sibling)
    assert alone < beside < N
    early = made.judged(policy, run=build.cut(made.run, beside))
    assert (early.pooled.status, of(early).status) == (Status.PASS, Status.PASS)
    assert f"on {beside:,} items, decided early of 1,500" in of(early).reason
    assert of(early).gain.loss.method == "betting"
    too_early = made.judged(policy, run=build.cut(made.run, alone))
    assert of(too_early).status is Status.INVALID
    assert "run the cell again" in of(too_early).reason


def test_a_recovery_that_broke_is_red_early(records: Any, build: Any, policy: Policy) -> None:
    made = records(recovered=COMPRESSED_BEFORE)
    verdict = made.judged(policy, run=build.cut(made.run, 600))
    assert of(verdict).status is Status.REGRESSED
    assert made.judged(policy).recovery.status is Status.REGRESSED


def test_what_a_red_cell_cut_off_of_its_recovery_is_inconclusive(records: Any, build: Any, policy: Policy) -> None:
    both_fell = records(right((0, 450)), right((0, 650)))
    given = {"declared_tasks": ("facts",), "sibling": both_fell.sibling}
    end = next(
        e for e in round_ends(N) if not undecided(build.cut(both_fell.run, e), both_fell.baseline, policy, FAMILY, **given)
    )
    verdict = both_fell.judged(policy, run=build.cut(both_fell.run, end))
    assert end < N / 2
    assert verdict.pooled.status is Status.REGRESSED
    assert of(verdict).status is Status.INCONCLUSIVE
    assert "the cell had regressed after" in of(verdict).reason


def test_nothing_is_fed_for_a_recovery_that_can_not_be_judged(records: Any, build: Any, policy: Policy) -> None:
    made = records()
    part = build.cut(made.run, round_ends(N)[-2])
    assert not undecided(part, made.baseline, policy, FAMILY, declared_tasks=("facts",), sibling=Sibling(None, None))


# ------------------------------------------------------------------------------------------------ compressed again


def test_where_compressing_again_moves_the_gain_its_spread_is_taken_off_and_nothing_is_early(policy: Policy) -> None:
    rounds = np.array([[0, 0], [4, 12], [740, 1462], [6, 26], [0, 0]])
    sure, moving = unit(rounds), unit(rounds, Spread(0.004, 8.0))
    assert decide_recovery(sure, policy)[1].p_pass < decide_recovery(moving, policy)[1].p_pass
    broken = np.array([[0], [0], [650], [100], [0]])
    assert decide_recovery(unit(broken, n_planned=N), policy)[0] is Status.REGRESSED
    held = decide_recovery(unit(broken, Spread(0.004, 8.0), n_planned=N), policy)[1]
    assert (held.p_fail, held.p_pass) == (1.0, 1.0)


def test_the_spread_is_at_most_that_of_both_cells(records: Any, build: Any, policy: Policy) -> None:
    made = records(right((0, 720)))
    noise = build.noise((0.59, 0.60, 0.61))

    def moving(run: CellRun) -> CellRun:
        compression = replace(run.record.compression, stability="re-compressed")
        return CellRun(replace(run.record, compression=compression), run.runs)

    sibling = Sibling(moving(made.sibling.run), build.baseline(moving(made.cell(COMPRESSED, COMPRESSED_BEFORE, "w1")), noise))
    baseline = build.baseline(moving(made.cell(RECOVERED, RECOVERED_BEFORE, "w1")), noise)
    found = of(made.judged(policy, run=moving(made.run), baseline=baseline, sibling=sibling))
    own = judge(moving(made.run), baseline, policy, FAMILY, mode="commit", declared_tasks=("facts",)).pooled
    assert found.gain.sigma_recompression == pytest.approx(2 * own.evidence.sigma_recompression)
    assert "re-compressing alone moves it by up to" in found.reason


def test_on_the_margins_it_errs_no_more_often_than_its_levels_say(policy: Policy) -> None:
    """20,000 commits, looked at after every round: X has exactly the mean of a margin."""
    rng, n_commits, level = np.random.default_rng(11), 20_000, 0.025 / 5 / 2
    m1 = policy.recovery.m1(N, 0.02)
    for twice, flips in ((0.0, 0.01), (0.002, 0.05), (0.005, 0.2)):
        for margin, side in ((0.01, "fail"), (m1, "pass")):
            shares = np.array([twice, flips / 2, 0.0, flips / 2 + margin, twice])
            shares[2] = 1 - shares.sum()
            steps = np.diff(round_ends(N), prepend=0)
            rounds = np.stack([rng.multinomial(step, shares, size=n_commits).T for step in steps], axis=-1).cumsum(-1)
            if side == "fail":
                full = p_recovery_worse(rounds[..., -1], margin)
                p = anytime_p(log_e_fail_recovery(rounds, margin).max(-1), policy.early.fail_share, full)
                assert (p < level).mean() <= level + 3 * (level / n_commits) ** 0.5
            else:
                p = np.exp(-log_e_pass_recovery(rounds, margin).max(-1))
                assert (p < policy.pass_level).mean() <= policy.pass_level
            for i in range(20):
                evidence = decide_recovery(unit(rounds[:, i]), policy)[1]
                assert (evidence.p_fail if side == "fail" else evidence.p_pass) == pytest.approx(min(1.0, float(p[i])))
