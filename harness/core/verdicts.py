"""What the gate says and what it rests on: estimates, counts, evidence, verdicts. Frozen, like all records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Literal

from harness.core.records import Cell, record


@record
class Estimate:
    """A value with its interval at confidence ``level`` and the name of the method behind it."""

    value: float
    low: float
    high: float
    level: float
    method: str


@record
class NotEstimable:
    """An undefined quantity and why; callers must face it."""

    reason: str


class Status(str, Enum):
    """What the gate says of a task or a cell. See docs and ``gate.judge`` for the exact rules."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    IMPROVED = "IMPROVED"
    REGRESSED = "REGRESSED"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNINFORMATIVE = "UNINFORMATIVE"
    INVALID = "INVALID"

    def __str__(self) -> str:
        return self.value


@record
class PairedCounts:
    """Items lost (right in the baseline, wrong now), gained, and unchanged."""

    n_lost: int
    n_gained: int
    n_unchanged: int

    @property
    def n_items(self) -> int:
        """All items, unchanged ones too."""
        return self.n_lost + self.n_gained + self.n_unchanged

    @property
    def loss(self) -> float:
        """The share of all items lost net of those gained, in [-1, 1]; positive is worse."""
        return (self.n_lost - self.n_gained) / self.n_items


@record
class Evidence:
    """The numbers behind a verdict. ``loss`` is a fraction of all items, positive = worse than the baseline.

    ``level_fail`` and ``level_pass`` are what ``p_fail`` and ``p_pass`` are compared with. ``proven_margin`` is the
    smallest loss that the data exclude at ``level_pass``. ``min_detectable_loss`` is in fractions of all items.
    ``retention`` is that of the
    baseline's right answers. ``items_needed`` says how many more items would decide, where the verdict is INCONCLUSIVE.
    ``n_planned``: the items of the unit; where ``counts`` hold fewer, the gate decided early. ``n_clusters``: the relations
    that stood for others and were tested as clusters, ``n_clustered``: the items in them; None where items were.
    """

    counts: PairedCounts
    accuracy_baseline: Estimate
    accuracy_candidate: Estimate
    loss: Estimate
    retention: Estimate | NotEstimable
    m0: float
    m1: float
    p_fail: float
    p_pass: float
    level_fail: float
    level_pass: float
    sigma_recompression: float
    proven_margin: float | None
    min_detectable_loss: float | None
    items_needed: int | None
    n_planned: int
    n_clusters: int | None = None
    n_clustered: int | None = None


@record
class RecoveryEvidence:
    """The numbers behind a verdict on a cell's recovery, in fractions of all items.

    Per item X = what recovery gained in the baseline minus what it gains now, both over the compressed sibling. ``counts``: of
    items with X = -2, -1, 0, 1, 2. ``loss``: the mean of X, positive where less is won back. The rest as in ``Evidence``.
    """

    counts: tuple[int, int, int, int, int]
    gain_baseline: float
    gain_candidate: float
    loss: Estimate
    m0: float
    m1: float
    p_fail: float
    p_pass: float
    level_fail: float
    level_pass: float
    sigma_recompression: float
    items_needed: int | None
    n_planned: int
    n_clusters: int | None = None
    n_clustered: int | None = None

    @property
    def n_items(self) -> int:
        """The items that were compared."""
        return sum(self.counts)


@record
class ChoiceShift:
    """How a choice among prompts moved on the same items from the baseline to the run; a hint, never a verdict.

    ``before`` and ``now``: the items asked behind each prompt; one whose requests differ counts in equal parts. ``n_moved``
    items were asked behind another one. ``p_value``: of "each prompt is chosen as often as before". ``warning`` is a sentence,
    "" where there is nothing to warn of.
    """

    n_items: int
    before: tuple[float, ...]
    now: tuple[float, ...]
    n_moved: int
    p_value: float
    warning: str = ""


Anchor = Literal["last", "release", "dense"]
"""What a verdict compares with: the accepted baseline, the one that was frozen at a release, or the model's dense cell."""


@record
class Verdict:
    """The gate's word on one task of a cell, on the cell (``task == "pooled"``), or on its recovery (``"recovery"``).

    ``reason`` is one sentence for people. ``evidence`` is None where nothing could be compared (INVALID, an UNINFORMATIVE
    task, INCONCLUSIVE of too few relations), and of a recovery, whose numbers are in ``gain``. ``identical``: PASS because
    nothing changed.
    ``fails``: whether the policy makes it a failure. ``choice``: of a task that is asked behind chosen prompts.
    """

    cell: str
    task: str
    status: Status
    identical: bool
    fails: bool
    reason: str
    evidence: Evidence | None
    anchor: Anchor = "last"
    gain: RecoveryEvidence | None = None
    choice: ChoiceShift | None = None


POOLED = "pooled"
"""The name of a cell's own case beside those of its tasks; no task may be called so."""

RECOVERED = "recovery"
"""The name of the case that asks whether a cell's recovery wins back what it did; no task may be called so."""


@record
class CellVerdict:
    """All verdicts of a cell: per task in matrix order, then the pool (None, "skipped", when declared tasks were left out).

    ``recovery``: None for cells without one, and skipped with the pool or when the compressed sibling was not measured.
    """

    cell: Cell
    profile: str
    tasks: tuple[Verdict, ...]
    pooled: Verdict | None
    recovery: Verdict | None = None

    @property
    def all(self) -> tuple[Verdict, ...]:
        """The verdicts of the tasks, then the pool's and the recovery's where there are any."""
        return (*self.tasks, *(verdict for verdict in (self.pooled, self.recovery) if verdict is not None))

    def said(self, put: Callable[[str], str]) -> CellVerdict:
        """The same verdicts with their reasons as ``put`` words them."""
        tasks = tuple(replace(verdict, reason=put(verdict.reason)) for verdict in self.tasks)
        pooled, recovery = (
            None if verdict is None else replace(verdict, reason=put(verdict.reason))
            for verdict in (self.pooled, self.recovery)
        )
        return replace(self, tasks=tasks, pooled=pooled, recovery=recovery)

    @property
    def status(self) -> Status:
        """The cell's colour: red if it or one of its tasks is, then INVALID, then INCONCLUSIVE; else what the pool says.

        Without a pool: PASS if a task passed, else UNINFORMATIVE.
        """
        found = {verdict.status for verdict in self.all}
        for status in (Status.REGRESSED, Status.INVALID, Status.INCONCLUSIVE):
            if status in found:
                return status
        if self.pooled is not None:
            return self.pooled.status
        return Status.PASS if found & {Status.PASS, Status.IMPROVED} else Status.UNINFORMATIVE
