"""One pytest case a (cell, task), and one for the cell's pool: how a verdict becomes a pytest outcome."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from harness.core.verdicts import POOLED, Status, Verdict
from harness.execution.matrix import CellPlan, Matrix

CASE = re.compile(r"\[(?P<cell>[a-z0-9.\-]+_[a-z0-9.\-]+_[a-z0-9.]+)[^\[]*-[^\[]*\]$")
"""How a case ends the id of its test; ``cell`` ends at the recovery's first hyphen."""


@dataclass(frozen=True, slots=True)
class CaseId:
    """Which case: a cell of the matrix and one of its tasks, or ``pooled``."""

    matrix: Matrix
    plan: CellPlan
    task: str

    def __str__(self) -> str:
        return f"{self.plan.cell.id}-{self.task}"


def case_ids(matrix: Matrix) -> list[CaseId]:
    """Every case of a profile: cell by cell, a cell's tasks in matrix order, its pool last."""
    return [CaseId(matrix, plan, task) for plan in matrix.cells.values() for task in (*plan.tasks, POOLED)]


@dataclass(frozen=True, slots=True)
class GateCase:
    """A judged case as a test sees it."""

    id: str
    verdict: Verdict | None
    left_out: tuple[str, ...]

    def check(self) -> None:
        """End the test as the verdict says: pass, fail, or skip with the verdict's own sentence."""
        if self.verdict is None:
            pytest.skip(f"the pool of {self.id} needs every task of the cell; left out here: {', '.join(self.left_out)}")
        if self.verdict.fails:
            pytest.fail(self.verdict.reason, pytrace=False)
        if self.verdict.status is Status.UNINFORMATIVE:
            pytest.skip(self.verdict.reason)
