"""The gate's test of itself agrees with the judge, keeps its word for a sound gate, and finds a broken one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.baseline import Baseline, NoiseRun
from harness.core.verdicts import Status
from harness.gate import Family, Policy
from harness.gate import replay as replay_module
from harness.gate.promises import Shown, commit_promises, exact_promise, simulated_promise, unit_rates
from harness.gate.recorded import Injection, Recorded, draw_fates_of, inject, problem_of, simulated_cell
from harness.gate.replay import check_aa_runs, check_damage, check_simulation, check_unchanged
from harness.gate.selftest import SelfTest, self_test
from harness.gate.simulation import draw_fates, simulate
from harness.stats import boundaries, sequential
from harness.stats.recompression import p_loss_above

N = {"facts": 600, "blank": 400, "choice": 300}
FAMILY = Family(n_cells=2, n_tasks=6)


@pytest.fixture
def make(build: Any):
    """A cell of three tasks, the last one a guard; recorded as its baseline is, or some answers on."""

    def recorded(policy: Policy, *, release: bool = False, moves: bool = False, since: int = 0, **more: Any) -> Recorded:
        def run(lost: int) -> Any:
            tasks = {
                name: build.task(name, build.right(n, n * 6 // 10, lost=lost), pooled=name != "choice")
                for name, n in N.items()
            }
            return build.run(tasks, weights="w1", stability="re-compressed" if moves else "stable")

        accuracies = (0.600, 0.605, 0.595, 0.610, 0.590) if moves else (0.6,) * 3
        noise = tuple(
            NoiseRun(f"run {i}", i, 1, None, dict.fromkeys(N, a), dict.fromkeys(N, 30 if moves and i else 0))
            for i, a in enumerate(accuracies)
        )
        baseline: Baseline = build.baseline(run(0), noise)
        anchor = build.baseline(run(0), noise) if release else None
        return Recorded(run(since), baseline, anchor, policy, more.pop("family", FAMILY))

    return recorded


def self_tested(*cells: Recorded, n: int = 2000, **more: Any) -> SelfTest:
    return self_test(cells, profile="embedded", n_commits=n, seed=1, n_replayed=1, **more)


# ------------------------------------------------------------------------------------------------ as the judge does


@pytest.mark.parametrize("cap", [2000, 250])
@pytest.mark.parametrize("kind", [{}, {"release": True}, {"release": True, "since": 4}, {"moves": True}])
def test_the_simulation_gives_the_verdicts_of_the_judge(make: Any, policy: Policy, cap: int, kind: dict[str, Any]) -> None:
    recorded = make(replace(policy, pool_cap_items=cap), **kind)
    assert problem_of(recorded, tuple(N)) is None
    units = recorded.units()
    cell = simulated_cell(recorded, units)
    found = check_simulation(recorded, units, cell, (0.0, 0.005, 0.02, 0.04, 0.08, 0.2), rng=np.random.default_rng(2))
    assert found.n_tried == 6
    assert found.problems == ()


def test_a_simulation_by_other_bounds_is_found_out(make: Any, policy: Policy) -> None:
    recorded = make(policy)
    units = recorded.units()
    strict = replace(policy, alpha_commit=1e-6, pass_level=1e-6)
    cell = simulated_cell(replace(recorded, policy=strict), replace(recorded, policy=strict).units())
    found = check_simulation(recorded, units, cell, (0.0, 0.04, 0.08), rng=np.random.default_rng(2))
    assert found.problems
    assert not found.is_kept


def test_injected_losses_are_as_large_as_simulated_ones(make: Any, policy: Policy) -> None:
    recorded = make(policy)
    units, rng = recorded.units(), np.random.default_rng(3)
    for loss in (0.0, 0.03):
        runs = [inject(recorded, units, Injection(loss, 0.1), recorded.random_order(rng), rng) for _ in range(60)]
        before = recorded.run.runs["facts"].outcomes.correct
        lost = [before.mean() - run.runs["facts"].outcomes.correct.mean() for run in runs]
        fates = draw_fates_of(recorded, units, Injection(loss, 0.1), 1, rng)
        assert np.subtract(*fates[0].mean_chances(0)) == pytest.approx(loss)
        assert np.mean(lost) == pytest.approx(loss, abs=4 * np.sqrt(0.1 / 600 / 60))


# ------------------------------------------------------------------------------------------------ a sound gate


def test_a_sound_gate_keeps_every_promise(make: Any, policy: Policy) -> None:
    found = self_tested(make(policy), make(policy, release=True, moves=True))
    assert [one.name for one in found.promises if one.shown is not Shown.KEPT] == []
    assert [one.problems for one in found.checks] == [()] * 4
    assert found.is_kept
    stable, moving = found.cells
    assert (stable.anchors, moving.anchors) == (("last",), ("last", "release"))
    assert (stable.at_full_n, moving.at_full_n) == (False, True)
    assert moving.losses[0].used == 1.0
    reds = [one.red for one in stable.losses]
    assert reds[0] == 0.0
    assert reds == sorted(reds)
    assert reds[-1] > 0.5


def test_the_same_seed_finds_the_same_and_a_cell_does_not_depend_on_others(make: Any, policy: Policy) -> None:
    one, both = self_tested(make(policy), n=300), self_tested(make(policy), make(policy), n=300)
    assert both.cells[1].losses != one.cells[0].losses
    assert both.cells[0] == one.cells[0]


def test_a_state_that_has_lost_since_its_anchor_starts_from_there(make: Any, policy: Policy) -> None:
    found = self_tested(make(policy, since=60), n=300)
    assert found.cells[0].losses[0].red == 1.0
    assert not found.is_kept


# ------------------------------------------------------------------------------------------------ broken gates


@pytest.mark.parametrize(("family", "shown"), [(Family(1, 1), Shown.MISSED), (Family(6, 18), Shown.KEPT)])
def test_levels_that_forget_the_other_cells_are_missed(make: Any, policy: Policy, family: Family, shown: Shown) -> None:
    recorded, rng = make(policy, moves=True, family=family), np.random.default_rng(8)
    units = recorded.units()
    cell, m0 = simulated_cell(recorded, units), policy.cell.m0
    fates = draw_fates_of(recorded, units, Injection(m0), 12_000, rng)
    red = simulate(cell, 12_000, draw_fates(cell, fates, rng)).red.reshape(-1, 6).any(1)  # commits of six such cells
    found = list(commit_promises(policy, {"unchanged": red, "tolerated": red}))
    assert [one.shown for one in found] == [shown] * 2
    assert found[0].n_commits == 2000


def test_a_test_without_its_margin_is_missed(make: Any, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential, "p_loss_above", lambda b, c, n, margin, spread: p_loss_above(b, c, n, 0.0, spread))
    found = self_tested(make(policy), n=300)
    missed = [one.name for one in found.promises if one.shown is Shown.MISSED]
    assert any("lost m0" in name for name in missed)


def test_early_looks_at_the_fixed_level_are_missed(make: Any, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classical mistake: to look at a fixed-N test after every round."""

    def peeking(rule: Any, lost: np.ndarray, gained: np.ndarray, fed: np.ndarray) -> np.ndarray:
        return p_loss_above(lost[..., -1], gained[..., -1], int(fed[-1]), rule.m0)

    monkeypatch.setattr(boundaries, "p_fail", peeking)
    recorded = make(replace(policy, alpha_commit=0.5))
    units = recorded.units()
    rates = {one.unit: one for one in unit_rates(recorded, units[0], simulated_cell(recorded, units, 0.2), 0, 0.2)}
    assert rates["pooled"].red_at_m0 > 1.5 * rates["pooled"].level_fail


def test_a_judge_that_passes_everything_is_found_out(make: Any, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = make(policy)
    judged = recorded.judge(recorded.candidate())
    monkeypatch.setattr(Recorded, "judge", lambda self, run: judged)
    assert check_damage(recorded).problems
    assert len(check_damage(recorded).problems) == 2 * 2 * 3


def test_a_judge_that_cries_wolf_is_found_out(make: Any, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = make(policy)
    verdict = recorded.judge(recorded.candidate())
    red = replace(verdict, tasks=tuple(replace(one, status=Status.REGRESSED) for one in verdict.tasks))
    monkeypatch.setattr(Recorded, "judge", lambda self, run: red)
    for check in (check_unchanged(recorded), check_aa_runs(recorded, np.random.default_rng(4))):
        assert not check.is_kept
        assert "REGRESSED" in check.problems[0]


def test_more_flips_than_were_measured_break_the_promise_that_unchanged_cells_pass(make: Any, policy: Policy) -> None:
    found = self_tested(make(policy), n=300, flips=0.3)
    missed = [one.name for one in found.promises if one.shown is Shown.MISSED]
    assert missed
    assert all("unchanged, PASS" in name for name in missed)


# ------------------------------------------------------------------------------------------------ checks and promises


def test_damage_is_tried_on_every_task_and_is_invalid(make: Any, policy: Policy) -> None:
    found = check_damage(make(policy, release=True))
    assert (found.n_tried, found.problems, found.is_kept) == (6, (), True)


def test_recorded_aa_runs_have_the_flips_that_were_told(make: Any, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, runs = make(policy, moves=True), []
    judge = Recorded.judge
    monkeypatch.setattr(Recorded, "judge", lambda self, run: (runs.append(run), judge(self, run))[1])
    assert check_aa_runs(recorded, np.random.default_rng(5)).is_kept
    told = recorded.last.record.noise.runs
    assert len(runs) == len(told) == 5
    for one, run in zip(told, runs, strict=True):
        after = dict(zip(run.runs["facts"].outcomes.digests, run.runs["facts"].outcomes.correct, strict=True))
        before = recorded.run.runs["facts"].outcomes
        n_flips = sum(after[digest] != right for digest, right in zip(before.digests, before.correct, strict=True))
        assert abs(n_flips - one.n_flips["facts"]) <= 1


def test_a_check_that_tried_nothing_is_not_kept() -> None:
    assert not replay_module.Check("nothing", 0, ()).is_kept


@pytest.mark.parametrize(("n_red", "shown"), [(0, "kept"), (60, "kept"), (95, "NOT SHOWN"), (150, "MISSED")])
def test_noise_neither_fakes_nor_hides_a_simulated_rate(n_red: int, shown: str) -> None:
    assert str(simulated_promise("red", 0.05, np.arange(2000) < n_red).shown) == shown


def test_a_rate_beyond_its_limit_is_called_kept_once_in_a_thousand_at_most() -> None:
    rng = np.random.default_rng(6)
    draws = [simulated_promise("red", 0.05, rng.random(1000) < 0.0501).shown for _ in range(2000)]
    assert sum(one is Shown.KEPT for one in draws) <= 8
    assert sum(one is Shown.MISSED for one in draws) <= 8


def test_an_exact_rate_is_kept_or_missed() -> None:
    assert exact_promise("pass", 0.8, 0.8, at_least=True).shown is Shown.KEPT
    assert exact_promise("pass", 0.8, 0.799, at_least=True).shown is Shown.MISSED


def test_a_cell_that_is_not_whole_is_not_tested(make: Any, policy: Policy) -> None:
    recorded = make(policy)
    assert "no other" in str(problem_of(recorded, (*N, "other")))
    task = recorded.run.runs["facts"]
    limited = replace(task, info=replace(task.info, limit=600), items=())
    run = replace(recorded.run, runs={**recorded.run.runs, "facts": limited})
    assert "only a part of facts" in str(problem_of(replace(recorded, run=run), tuple(N)))
    noisy = make(policy, moves=True)
    unknown = Baseline(replace(noisy.last.record, noise=None), noisy.last.outcomes)
    assert "compressed again" in str(problem_of(replace(noisy, last=unknown), tuple(N)))
