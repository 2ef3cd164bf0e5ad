"""Geometry of the page's small drawings, as numbers with fixed decimals; templates only place them.

Loss plots of one report share one axis, so that they can be compared down a column: it reaches twice the widest margin to both
sides of zero, and an interval that leaves it ends in an arrow (its numbers stand beside it).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.core.verdicts import Evidence, Verdict

WIDTH = 160
_INSET = 8.0


@dataclass(frozen=True, slots=True)
class LossPlot:
    """One loss with its interval on the common axis, in drawing units; ``words`` say the same to a screen reader."""

    zero: str
    tolerated: str
    margin: str
    low: str
    high: str
    value: str
    value_inside: bool
    beyond_left: bool
    beyond_right: bool
    right_edge: str
    beyond_width: str
    words: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Losses from ``-reach`` to ``+reach`` over ``WIDTH`` units."""

    reach: float

    @classmethod
    def over(cls, verdicts: Iterable[Verdict]) -> Axis:
        """The axis that fits the margins of all verdicts with evidence."""
        return cls(2 * max((v.evidence.m1 for v in verdicts if v.evidence is not None), default=0.01))

    def place(self, loss: float) -> float:
        """Where a loss is drawn; beyond the reach, at the edge."""
        share = (min(max(loss / self.reach, -1.0), 1.0) + 1) / 2
        return _INSET + share * (WIDTH - 2 * _INSET)


def plot_loss(evidence: Evidence, axis: Axis, words: str) -> LossPlot:
    """A loss plot: zero, what is tolerated (m0), the margin (m1), the interval and the value."""
    loss = evidence.loss
    return LossPlot(
        zero=decimals(axis.place(0.0)),
        tolerated=decimals(axis.place(evidence.m0)),
        margin=decimals(axis.place(evidence.m1)),
        low=decimals(axis.place(loss.low)),
        high=decimals(axis.place(loss.high)),
        value=decimals(axis.place(loss.value)),
        value_inside=abs(loss.value) <= axis.reach,
        beyond_left=loss.low < -axis.reach,
        beyond_right=loss.high > axis.reach,
        right_edge=decimals(WIDTH - _INSET),
        beyond_width=decimals(WIDTH - axis.place(evidence.m1)),
        words=words,
    )


def decimals(value: float) -> str:
    """A drawing coordinate with one decimal.

    >>> decimals(12.34), decimals(-0.0)
    ('12.3', '0.0')
    """
    return f"{value + 0.0:.1f}".replace("-0.0", "0.0")
