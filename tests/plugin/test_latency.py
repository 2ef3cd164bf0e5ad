"""`suites/test_latency.py`: left out unless it is asked for, never red for being slow, its record drawn by the report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core.latency import read_latencies
from tests.plugin.conftest import make_project

REPOSITORY = Path(__file__).parents[2]


def collect(*arguments: str) -> list[str]:
    """The collected cases, each by its test and its id."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]


def test_a_run_of_cells_times_nothing() -> None:
    found = collect("suites", "-k", "llama")
    assert found
    assert not any(case.startswith("test_latency") for case in found)


@pytest.mark.parametrize("selection", [["suites", "-m", "latency"], ["suites/test_latency.py"]])
def test_it_is_asked_for_by_its_mark_or_by_name(selection: list[str]) -> None:
    phases = [(phase, batch) for phase in ("prefill", "decode") for batch in (1, 8)]
    assert sorted(collect(*selection)) == sorted(f"test_latency[llama-{phase}-batch{batch}]" for phase, batch in phases)


@pytest.fixture
def timed(pytester: pytest.Pytester, facts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite of a tiny model whose times are measured as seldom as can be."""
    pytest.importorskip("pytest_benchmark")
    pytest.importorskip("torch")
    from harness.execution import latency
    from harness.models.tiny import make_tiny

    monkeypatch.setattr(latency, "BUDGET_S", 0.01)
    monkeypatch.setattr(latency, "CONTEXT_TOKENS", 12)
    monkeypatch.setenv("HARNESS_CACHE", str(pytester.path / "cache"))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # pytest-benchmark times nothing in a worker
    make_project(pytester.path, make_tiny(pytester.path / "model"), facts_folder)
    shutil.copy(REPOSITORY / "suites" / "test_latency.py", pytester.path / "suites")
    return pytester


def test_times_are_kept_beside_the_cells(timed: pytest.Pytester) -> None:
    done = timed.runpytest_inprocess("suites", "-m", "latency", "--benchmark-json=times.json")
    done.assert_outcomes(passed=4, warnings=done.parseoutcomes().get("warnings", 0))
    ((made,), broken) = read_latencies(timed.path / "reports" / "latest")
    assert broken == ()
    assert [(one.phase, one.batch) for one in made.timings] == [("prefill", 1), ("prefill", 8), ("decode", 1), ("decode", 8)]
    for timing in made.timings:
        assert set(timing.seconds) == {side.name for side in made.sides}
        assert {len(seconds) for seconds in timing.seconds.values()} == {7}
    kept = json.loads((timed.path / "times.json").read_text())["benchmarks"][0]["extra_info"]["median_s"]
    assert set(kept) == set(made.timings[0].seconds)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--benchmark-disable"], 0, "*timing is switched off (--benchmark-disable)*"),
        (["-p", "no:benchmark"], 4, "*times are measured with pytest-benchmark, which is not installed*"),
    ],
)
def test_where_nothing_can_be_timed_that_is_said(options: list[str], code: int, says: str, timed: pytest.Pytester) -> None:
    done = timed.runpytest_inprocess("suites", "-m", "latency", "-rs", *options)
    assert done.ret == code
    (done.stderr if code else done.stdout).fnmatch_lines([says])
