"""Cells built in memory (as the gate's tests build them) and a folder of baselines to propose and accept them in."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.baseline import (
    INFORMATIVE_AS_SHIPPED,
    Accepted,
    Baseline,
    Proposal,
    Repeat,
    accept,
    load_baseline,
    load_proposal,
    write_proposal,
)
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellFailure, CellRun

_SPEC = importlib.util.spec_from_file_location("gate_cells", Path(__file__).parents[1] / "gate" / "conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_CELLS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_CELLS)

CELL = Cell("llama", "4bit-rtn", "none")

MATRIX = """
[profiles.embedded.models.llama]
family = "decoder"
source = "dir:model"

[compressions.4bit-rtn]
method = "rtn"
bits = 4
[compressions.8bit-rtn]
method = "rtn"
bits = 8

[recoveries.none]
method = "none"

[tasks.facts]
suite = "facts"

[[grid]]
profiles = ["embedded"]
models = ["llama"]
compressions = ["4bit-rtn", "8bit-rtn"]
recoveries = ["none"]
tasks = ["facts"]
"""


class Builder(_CELLS.Builder):
    """The gate's builder, and A/A runs."""

    def flipped(self, run: CellRun, lost: int = 0, gained: int = 0) -> CellRun:
        """The run with so many right answers of each task wrong, and so many wrong ones right."""
        tasks = {name: replace(task, outcomes=self._flipped(task.outcomes, lost, gained)) for name, task in run.runs.items()}
        return CellRun(run.record, tasks)

    def reordered(self, run: CellRun) -> CellRun:
        """The same run, its items fed in another order."""
        tasks = {}
        for name, task in run.runs.items():
            order = np.arange(len(task.outcomes))[::-1]
            made = task.outcomes
            turned = Outcomes(
                digests=tuple(made.digests[i] for i in order),
                correct=made.correct[order],
                answers=made.answers[order],
                ranks=made.ranks[order],
                margins_nats=made.margins_nats[order],
                near_ties=made.near_ties[order],
                option_logliks_nats=None,
            )
            tasks[name] = replace(task, items=(), outcomes=turned)
        return CellRun(run.record, tasks)

    def repeats(self, *runs: CellRun | CellFailure) -> list[Repeat]:
        """These runs as A/A runs: the first as declared, the others varied; three of one run where only one is given."""
        named = runs * 3 if len(runs) == 1 else runs
        labels = ["as declared", *(f"batches of {256 * i} tokens" for i in range(1, len(named)))]
        return [Repeat(label, None, 1, None, run) for label, run in zip(labels, named, strict=True)]

    def _flipped(self, outcomes: Outcomes, lost: int, gained: int) -> Outcomes:
        correct = outcomes.correct.copy()
        correct[np.flatnonzero(outcomes.correct)[:lost]] = False
        correct[np.flatnonzero(~outcomes.correct)[:gained]] = True
        return replace(outcomes, correct=correct)


@dataclass(frozen=True)
class Desk:
    """A folder of baselines, and the steps of a baseline's life on it."""

    root: Path
    build: Builder

    def propose(self, *runs: CellRun | CellFailure, **said: Any) -> Proposal:
        repeats = said.pop("repeats", None) or self.build.repeats(*runs)
        return write_proposal(
            self.root,
            repeats,
            **{"reason": "first", "declared_tasks": ("facts",), "informative": INFORMATIVE_AS_SHIPPED, **said},
        )

    def accept(self, why: str | None = None, tasks: Sequence[str] = ("facts",), cell: Cell = CELL, **said: Any) -> Accepted:
        return accept(self.root, "embedded", {cell: tasks}, allow_loosening=why, informative=INFORMATIVE_AS_SHIPPED, **said)[0]

    def adopt(self, *runs: CellRun, why: str | None = None, tasks: Sequence[str] = ("facts",), **said: Any) -> Accepted:
        made = self.propose(*runs, declared_tasks=tasks, **said)
        return self.accept(why, tasks, made.record.cell)

    def load(self, cell: Cell = CELL) -> Baseline:
        found = load_baseline(self.root, "embedded", cell)
        assert found is not None
        return found

    def proposal(self, cell: Cell = CELL) -> Proposal | None:
        return load_proposal(self.root, "embedded", cell)

    @property
    def home(self) -> Path:
        return self.root / "embedded" / CELL.id

    @property
    def proposed(self) -> Path:
        return self.root / "embedded" / "proposals" / CELL.id

    def history(self) -> list[dict[str, Any]]:
        path = self.root / "embedded" / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.root / "embedded")) for path in (self.root / "embedded").rglob("*") if path.is_file()
        }


@pytest.fixture(scope="session")
def build() -> Builder:
    return Builder()


@pytest.fixture
def desk(tmp_path: Path, build: Builder) -> Desk:
    """An empty folder of baselines."""
    return Desk(tmp_path / "baselines", build)


@pytest.fixture
def accepted(desk: Desk, build: Builder) -> Desk:
    """A folder with an accepted baseline of one task: 120 of 200 right, without noise."""
    desk.adopt(build.one(200, 120, weights="w1"))
    return desk


@pytest.fixture
def matrix_file(tmp_path: Path) -> Path:
    """A matrix of two cells of one task, where the commands look for it."""
    path = tmp_path / "suites" / "matrix.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(MATRIX)
    return path
