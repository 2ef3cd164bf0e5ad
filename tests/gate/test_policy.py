"""The policy says what is wrong with it, with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from harness.core.verdicts import Status
from harness.gate import Family, Policy, read_policy

SHIPPED = Path(__file__).parents[2] / "suites" / "policy.toml"


def test_the_shipped_policy_holds_the_numbers_of_the_design(policy: Policy) -> None:
    assert (policy.alpha_commit, policy.pass_level, policy.pool_cap_items, policy.informative_margin) == (
        0.05,
        0.05,
        2000,
        0.02,
    )
    assert (policy.cell.m0, policy.task.m0) == (0.005, 0.01)
    assert policy.flip_rates.of("log_likelihood", recompressed=False) == 0.01
    assert policy.flip_rates.of("generation", recompressed=False) == 0.03
    assert policy.flip_rates.of("generation", recompressed=True) == 0.10


@pytest.mark.parametrize(
    ("n", "flips", "cell_m1", "task_m1"),
    [(13658, 0.01, 0.01, 0.05), (1000, 0.01, 0.0126491, 0.05), (1000, 0.10, 0.04, 0.05), (100, 0.10, 0.05, 0.1264911)],
)
def test_margins_follow_n_and_the_flip_rate_of_the_class(
    policy: Policy, n: int, flips: float, cell_m1: float, task_m1: float
) -> None:
    assert policy.cell.m1(n, flips) == pytest.approx(cell_m1, abs=1e-6)
    assert policy.task.m1(n, flips) == pytest.approx(task_m1, abs=1e-6)


def test_levels_are_bonferroni_over_what_the_profile_declares(policy: Policy) -> None:
    family = Family(n_cells=24, n_tasks=312)
    assert family.cell_level(policy) == pytest.approx(0.025 / 24)
    assert family.task_level(policy) == pytest.approx(0.025 / 312)


def test_inconclusive_warns_on_a_commit_and_fails_a_release(policy: Policy) -> None:
    assert not policy.fails_in("commit", Status.INCONCLUSIVE)
    assert policy.fails_in("release", Status.INCONCLUSIVE)
    assert policy.fails_in("commit", Status.INVALID)
    assert not policy.fails_in("release", Status.PASS)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("m1_floor = 0.01 ", "m1_floor = 0.005", "m1_floor = 0.005", ["'cell.m1_floor'", "more than m0 (0.005)"]),
        ("m0 = 0.01\n", "m_0 = 0.01\n", "m_0 = 0.01", ["unknown key 'task.m_0'", "Did you mean 'm0'?"]),
        ("alpha_commit = 0.05", "alpha_commit = 1.5", "alpha_commit", ["'alpha_commit'", "between 0 and 1", "1.5"]),
        ("power = 0.8", "power = 'high'", "power =", ["'power'", "valid number"]),
        ("power = 0.8", "power = nan", "power =", ["'power'", "finite"]),
        ("alpha_commit = 0.05", "alpha_commit = 5e-324", "alpha_commit", ["'alpha_commit'", "by 1e-09 at least"]),
        ("interval_level = 0.95", "interval_level = 0.9999999999999999", "interval_level", ["'interval_level'", "1e-09"]),
        ("informative_margin = 0.02", "informative_margin = 0.99", "informative_margin", ["0 to 0.5", "nothing would ever"]),
        ("[early] ", "[earli] ", "[earli]", ["unknown key 'earli'", "Did you mean 'early'?"]),
        ("pool_cap_items = 2000", "pool_cap_items = 0", "pool_cap_items", ["at least one item"]),
        ("m1_cap = 0.05", "m1_cap = 0.001", "m1_cap = 0.001", ["'cell.m1_cap'", "at least m1_floor"]),
        ("generation = 0.03", "generation = 0.0", "generation", ["'flip_rates.generation'"]),
        (
            'commit = ["REGRESSED", "INVALID"]',
            'commit = ["REGRESSED"]',
            "commit = [",
            ["'fails.commit'", "INVALID must be listed"],
        ),
        ('commit = ["REGRESSED"', 'commit = ["PASS", "REGRESSED"', "commit = [", ["PASS can't fail"]),
        ('commit = ["REGRESSED"', 'commit = ["REGRESSD"', "commit = [", ["REGRESSD"]),
        ("fail_share = 0.2\n", "", "[early]", ["'early.fail_share' is missing"]),
    ],
)
def test_every_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: str, words: list[str]) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert old in text
    broken = text.replace(old, new, 1)
    path = tmp_path / "policy.toml"
    path.write_text(broken, encoding="utf-8")
    number = next(i for i, row in enumerate(broken.splitlines(), start=1) if row.startswith(line))
    with pytest.raises(ConfigError) as raised:
        read_policy(path)
    assert str(raised.value).startswith(f"{path}:{number}: ")
    for word in words:
        assert word in str(raised.value)


def test_a_missing_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        read_policy(tmp_path / "nothing.toml")
