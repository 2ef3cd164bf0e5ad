"""What `benchmarks/compression_findings.py` says of made-up cells, whose losses are known."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

N, RELATIONS = 210, 35


@pytest.fixture(scope="module")
def findings(benchmark_module: Any) -> ModuleType:
    return benchmark_module("compression_findings")


def row(compression: str, n_right: int, task: str) -> dict[str, Any]:
    """A cell of one task whose first items are right, spread over all relations."""
    return {
        "model": "llama",
        "compression": compression,
        "refused": None,
        "bits": 8.0,
        "size_bytes": 1_000_000,
        "sparsity": 0.5,
        "error_mean": None,
        "wall_s": 1.0,
        "tasks": {
            task: {
                "items": "the same",
                "groups": [f"P{i % RELATIONS}" for i in range(N)],
                "right": "".join("01"[i < n_right] for i in range(N)),
                "wall_s": 1.0,
            }
        },
    }


@pytest.mark.parametrize("task", ["facts", "lama_trex"])  # by items, and by relations
def test_losses_that_are_there_are_seen_and_those_the_other_way_reversed(
    task: str, findings: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    right = {"none": 180, "30pct": 160, "50pct": 140, "70pct": 30}
    rows = [row("none", right["none"], task)]
    for share in ("30pct", "50pct", "70pct"):
        rows.append(row(f"{share}-magnitude", right[share], task))
        rows.append(row(f"{share}-attention-magnitude", right[share] + 10, task))
        rows.append(row(f"{share}-feed-forward-magnitude", right[share] + 20, task))
    findings.show_table(rows)
    findings.show_findings(rows)
    told = capsys.readouterr().out
    together, parts, steps = (part.split("\n\n")[0] for part in told.split(" tests):\n")[1:])
    assert "  seen 6, reversed 0, open 0" in together
    assert "-> all" in together
    assert "  seen 0, reversed 3, open 0" in parts  # attention loses more here
    assert "20 items to 50 %, 110 to 70 %" in steps
    assert "  seen 3, reversed 0, open 0" in steps
    assert "160.0" not in told
    assert f"{100 * 140 / 210:.1f} [" in told


def test_cells_that_lose_the_same_leave_it_open(findings: ModuleType) -> None:
    before, after = (findings._task(row("x", 100, "facts"), "facts") for _ in range(2))
    for clustered in (False, True):
        tested = findings._tested("words", before, after, clustered=clustered)
        assert tested.loss.value == 0
        assert tested.p > 0.05


def test_other_items_are_refused(findings: ModuleType) -> None:
    with pytest.raises(SystemExit, match="was asked other items of facts"):
        findings._task(row("x", 3, "facts"), "facts", "others")


def test_clusters_are_the_relations(findings: ModuleType) -> None:
    """The mean over items is what both kinds of test are about."""
    before, after = (findings._task(row("x", n, "lama_trex"), "lama_trex") for n in (150, 90))
    by_items, by_relations = (findings._tested("w", before, after, clustered=one) for one in (False, True))
    assert by_relations.loss.value == pytest.approx(by_items.loss.value)
    assert np.isclose(by_relations.loss.value, 60 / N)
