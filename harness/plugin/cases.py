"""One pytest case a (cell, task), one for the cell's pool, one for its recovery: how a verdict becomes a pytest outcome."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from harness.core.verdicts import POOLED, RECOVERED, Status, Verdict
from harness.execution.matrix import CellPlan, Matrix

CASE = re.compile(r"\[(?P<cell>[a-z0-9.\-]+_[a-z0-9.\-]+_[a-z0-9.]+)[^\[]*-[^\[]*\]$")
"""How a case ends the id of its test; ``cell`` ends at the recovery's first hyphen."""


@dataclass(frozen=True, slots=True)
class CaseId:
    """Which case: a cell of the matrix and one of its tasks, ``pooled`` or ``recovery``."""

    matrix: Matrix
    plan: CellPlan
    task: str

    def __str__(self) -> str:
        return f"{self.plan.cell.id}-{self.task}"


def case_ids(matrix: Matrix) -> list[CaseId]:
    """Every case of a profile: cell by cell, a cell's tasks in matrix order, then its pool, then its recovery."""
    return [CaseId(matrix, plan, task) for plan in matrix.cells.values() for task in (*plan.tasks, *_whole(plan))]


def _whole(plan: CellPlan) -> tuple[str, ...]:
    """The cases of a cell that need all of its tasks."""
    return (POOLED,) if plan.cell.sibling is None else (POOLED, RECOVERED)


@dataclass(frozen=True, slots=True)
class GateCase:
    """A judged case as a test sees it. ``skipped`` says why there is no verdict."""

    id: str
    verdict: Verdict | None
    skipped: str

    def check(self) -> None:
        """End the test as the verdict says: pass, fail, or skip with the verdict's own sentence."""
        if self.verdict is None:
            pytest.skip(self.skipped)
        if self.verdict.fails:
            pytest.fail(self.verdict.reason, pytrace=False)
        if self.verdict.status is Status.UNINFORMATIVE:
            pytest.skip(self.verdict.reason)
