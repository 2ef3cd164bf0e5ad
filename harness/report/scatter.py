"""Geometry of a scatter panel: size across, what is kept upwards; points carry whiskers and labels that do not overlap.

Pure arithmetic on fixed-width guesses of text: the same points give the same drawing on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.report import format as fmt
from harness.report.plots import decimals

LEFT, RIGHT, TOP, BOTTOM = 52.0, 28.0, 14.0, 42.0
CHARACTER = 6.6
"""Width of a label's character at 11.5 px, of a wide font."""
LINE = 14.0
APART = 11.0
"""Points nearer to each other than this stand side by side."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """One cell: its label, size, and what it keeps with its interval (fractions). ``shape`` and ``hollow`` draw its marker."""

    label: str
    size_bytes: int
    value: float
    low: float
    high: float
    shape: str
    hollow: bool
    tone: str
    words: str


@dataclass(frozen=True, slots=True)
class Scale:
    """The common upward axis: from ``low`` to ``high`` in steps of ``step``, all fractions."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, points: Iterable[Point]) -> Scale:
        """The scale that holds every interval, and 100 %."""
        ends = [1.0, *(end for point in points for end in (point.low, point.high))]
        low, high = max(0.0, min(ends)), max(ends)
        step = nice_step((high - low) / 5) if high > low else 0.1
        bottom = max(0.0, math.floor(low / step - 0.25) * step)
        return cls(bottom, math.ceil(high / step + 0.1) * step, step)


@dataclass(frozen=True, slots=True)
class TickView:
    """A line of the grid and its words."""

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class MarkView:
    """A drawn point, its whisker and its label; ``leader`` is a path from the point to a label that had to move away."""

    x: str
    y: str
    low: str
    high: str
    shape: str
    hollow: bool
    tone: str
    label: str
    label_x: str
    label_y: str
    label_end: bool
    leader: str
    words: str


@dataclass(frozen=True, slots=True)
class PanelView:
    """One panel. ``reference`` is the height of the dense model's line, at 100 %, ``dense_at`` is where its size lies."""

    width: int
    height: int
    left: str
    right: str
    top: str
    bottom: str
    x_ticks: tuple[TickView, ...]
    y_ticks: tuple[TickView, ...]
    middle: str
    reference: str
    dense_at: str
    marks: tuple[MarkView, ...]


@dataclass(frozen=True, slots=True)
class _Frame:
    width: float
    height: float
    reach: float
    scale: Scale

    def x(self, size_bytes: float) -> float:
        return LEFT + (self.width - LEFT - RIGHT) * size_bytes / self.reach

    def y(self, value: float) -> float:
        inside = min(max(value, self.scale.low), self.scale.high)
        share = (inside - self.scale.low) / (self.scale.high - self.scale.low)
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * share


def draw_panel(points: Sequence[Point], dense_bytes: int, scale: Scale, n_panels: int) -> PanelView:
    """A panel of the points of one model, one of ``n_panels``; ``dense_bytes`` is the dense model's size, on the axis too."""
    width, height = (580, 340) if n_panels == 1 else (372, 300) if len(points) <= 8 else (576, 440)
    largest = max([1, dense_bytes, *(point.size_bytes for point in points)])
    step = nice_step(largest / 4)
    n_steps = math.ceil(largest / step + 0.15)
    frame = _Frame(width, height, n_steps * step, scale)
    return PanelView(
        width=width,
        height=height,
        left=decimals(LEFT),
        right=decimals(width - RIGHT),
        top=decimals(TOP),
        bottom=decimals(height - BOTTOM),
        x_ticks=tuple(TickView(decimals(frame.x(i * step)), fmt.round_size(round(i * step))) for i in range(n_steps + 1)),
        y_ticks=tuple(TickView(decimals(frame.y(y)), fmt.percent(y, 0)) for y in _steps(scale)),
        middle=decimals((LEFT + width - RIGHT) / 2),
        reference=decimals(frame.y(1.0)),
        dense_at=decimals(frame.x(dense_bytes)),
        marks=tuple(_marks(points, frame)),
    )


def _steps(scale: Scale) -> Iterator[float]:
    for i in range(round((scale.high - scale.low) / scale.step) + 1):
        yield round(scale.low + i * scale.step, 6)


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 × 10^k that is not below ``rough``.

    >>> [nice_step(x) for x in (0.11, 3.0, 20.0, 23.0)]
    [0.2, 5.0, 20.0, 25.0]
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(round(m * power, 9) for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))


def _marks(points: Sequence[Point], frame: _Frame) -> Iterator[MarkView]:
    places = _side_by_side(points, frame)
    labels: list[Box] = []
    drawn: list[Box] = [
        (x - 6, frame.y(p.value) - 6, x + 6, frame.y(p.value) + 6) for p, x in zip(points, places, strict=True)
    ]
    drawn += [(x - 2, frame.y(p.high), x + 2, frame.y(p.low)) for p, x in zip(points, places, strict=True)]
    drawn.append((LEFT, frame.y(1.0) - 1, frame.width, frame.y(1.0) + 1))
    for point, x in zip(points, places, strict=True):
        y = frame.y(point.value)
        label_x, label_y, is_end = _place_label(len(point.label) * CHARACTER, (x, y), frame, labels, drawn)
        moved = abs(label_y - y) > LINE / 2
        leader = (
            f"M{decimals(x)} {decimals(y)}L{decimals(label_x + (2 if is_end else -2))} {decimals(label_y)}" if moved else ""
        )
        yield MarkView(
            x=decimals(x),
            y=decimals(y),
            low=decimals(frame.y(point.low)),
            high=decimals(frame.y(point.high)),
            shape=point.shape,
            hollow=point.hollow,
            tone=point.tone,
            label=point.label,
            label_x=decimals(label_x),
            label_y=decimals(label_y + 4),
            label_end=is_end,
            leader=leader,
            words=point.words,
        )


def _side_by_side(points: Sequence[Point], frame: _Frame) -> tuple[float, ...]:
    """Where points stand sideways: at their size, or beside the one that already stands there at the same height."""
    placed: dict[int, float] = {}
    for i in sorted(range(len(points)), key=lambda i: (points[i].size_bytes, i)):
        x = frame.x(points[i].size_bytes)
        overlap = [j for j in placed if points[i].low <= points[j].high and points[j].low <= points[i].high]
        while any(abs(placed[j] - x) < APART - 0.01 for j in overlap):
            x += APART
        placed[i] = min(x, frame.width - RIGHT - 4)
    return tuple(placed[i] for i in range(len(points)))


def _place_label(
    wide: float, place: tuple[float, float], frame: _Frame, labels: list[Box], drawn: Sequence[Box]
) -> tuple[float, float, bool]:
    """The nearest free place beside a point, right of it if possible; ``labels`` gets it. Over what is drawn where
    nothing else is free, and over other labels where that is not either."""
    x, y = place
    for taken in ([*labels, *drawn], labels):
        for at, middle, is_end in _places(x, y, frame):
            box = (at - wide, middle - 7, at, middle + 7) if is_end else (at, middle - 7, at + wide, middle + 7)
            inside = box[0] > LEFT and box[2] < frame.width - 2 and box[1] > 0 and box[3] < frame.height - BOTTOM
            roomy = (box[0] - 3, box[1], box[2] + 3, box[3])
            if inside and not any(_overlap(roomy, other) for other in taken):
                labels.append(box)
                return at, middle, is_end
    return x + 9, y, False


def _places(x: float, y: float, frame: _Frame) -> Iterator[tuple[float, float, bool]]:
    """Where a label may stand: nearer places first, up to the panel's ends; heights are rounded as they are printed."""
    n_steps = math.ceil(2 * frame.height / LINE)
    for dy in (0.0, *(sign * k * LINE / 2 for k in range(2, n_steps) for sign in (-1.0, 1.0))):
        gap = 9.0 if dy == 0 else 13.0
        for is_end in (False, True):
            yield (x - gap if is_end else x + gap), round(y + dy, 1), is_end


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
