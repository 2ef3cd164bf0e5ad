"""Geometry of a small trend: values with their intervals in order, gaps where nothing was measured, the last one marked.

Steps are equal whatever time lies between. The upward axis is the trend's own, but never finer than ``LEAST_REACH``, so that
noise is not blown up into a landscape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.report.plots import decimals

WIDTH, HEIGHT = 180, 34
MOST_POINTS = 30
"""Newest points that a trend draws."""

LEAST_REACH = 0.05
_INSET = 6.0


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """A value with its interval, fractions. ``joins``: whether a line may lead here from the point before."""

    value: float
    low: float
    high: float
    joins: bool


@dataclass(frozen=True, slots=True)
class DotView:
    """A drawn point; ``last`` is the newest."""

    x: str
    y: str
    last: bool


@dataclass(frozen=True, slots=True)
class TrendView:
    """A drawn trend: ``line`` and ``whiskers`` are paths; ``words`` say the same."""

    width: int
    height: int
    line: str
    whiskers: str
    dots: tuple[DotView, ...]
    words: str


def draw_trend(points: Sequence[TrendPoint | None], words: str) -> TrendView | None:
    """The newest points of a trend, oldest first, None for a gap; None where there is no point at all."""
    shown = points[-MOST_POINTS:]
    known = [point for point in shown if point is not None]
    if not known:
        return None
    low, high = min(point.low for point in known), max(point.high for point in known)
    missing = max(0.0, LEAST_REACH - (high - low))
    low, high = low - missing / 2, high + missing / 2
    step = (WIDTH - 2 * _INSET) / max(1, len(shown) - 1)
    start = _INSET if len(shown) > 1 else WIDTH / 2

    def height(value: float) -> str:
        return decimals(HEIGHT - _INSET - (HEIGHT - 2 * _INSET) * (value - low) / (high - low))

    places = [(decimals(start + i * step), point) for i, point in enumerate(shown)]
    drawn = [(x, point) for x, point in places if point is not None]
    joined = [
        f"M{x0} {height(before.value)}L{x1} {height(after.value)}"
        for (x0, before), (x1, after) in pairwise(places)
        if before is not None and after is not None and after.joins
    ]
    return TrendView(
        width=WIDTH,
        height=HEIGHT,
        line="".join(joined),
        whiskers="".join(f"M{x} {height(point.high)}V{height(point.low)}" for x, point in drawn),
        dots=tuple(DotView(x, height(point.value), last=point is known[-1]) for x, point in drawn),
        words=words,
    )
