"""Geometry of what runs over a model's layers: lines with their intervals, and maps of layers by heads.

Layers go from left to right in both, so that a line and a map can be read one above the other. Heights and shades share one
scale for all cells that are drawn together. A gap is where a value is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.report.plots import decimals
from harness.report.scatter import TickView, nice_step

WIDTH, HEIGHT = 372, 230
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 10.0, 36.0
SHADES = 8
"""Shades of a map, from the lightest; the page's style has a class for each."""

MOST_MARKS = 8
"""Markers on a line, which tell lines apart without colour."""

_LEAST_REACH = 0.02
_CELL = 9


@dataclass(frozen=True, slots=True)
class Spread:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CurveView:
    """One drawn line: paths of the line and of the band of its intervals, and the places of its markers."""

    number: int
    line: str
    band: str
    marks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ChartView:
    """Lines over layers with their axes."""

    width: int
    height: int
    left: str
    right: str
    bottom: str
    middle: str
    x_ticks: tuple[TickView, ...]
    y_ticks: tuple[TickView, ...]
    reference: str
    curves: tuple[CurveView, ...]


@dataclass(frozen=True, slots=True)
class MapView:
    """A map of layers (across) by heads (down): one path for each shade that occurs."""

    width: int
    height: int
    shades: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class _Frame:
    n_layers: int
    low: float
    high: float

    def x(self, layer: float) -> str:
        return decimals(LEFT + (WIDTH - LEFT - RIGHT) * (layer + 0.5) / self.n_layers)

    def y(self, value: float) -> str:
        return decimals(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / (self.high - self.low))


def draw_chart(
    curves: Sequence[Sequence[Spread | None]], *, top: float | None = None, reference: float | None = None
) -> ChartView:
    """Lines over layers, each numbered by its place, on one upward axis that reaches ``top`` where that is given.

    ``reference``: the height of a dashed line. At least one value must be defined.
    """
    ends = [end for curve in curves for one in curve if one is not None for end in (one.low, one.high)]
    ends += [given for given in (top, reference) if given is not None]
    step = nice_step(max(max(ends) - min(ends), _LEAST_REACH) / 4)
    first, last = math.floor(min(ends) / step + 1e-9), math.ceil(max(ends) / step - 1e-9)
    first = min(first, last - 1)
    frame = _Frame(max(len(curve) for curve in curves), first * step, last * step)
    digits = next(n for n in range(10) if round(step, n) == round(step, 10))
    every = math.ceil(frame.n_layers / 8)
    return ChartView(
        width=WIDTH,
        height=HEIGHT,
        left=decimals(LEFT),
        right=decimals(WIDTH - RIGHT),
        bottom=decimals(HEIGHT - BOTTOM),
        middle=decimals((LEFT + WIDTH - RIGHT) / 2),
        x_ticks=tuple(TickView(frame.x(layer), str(layer)) for layer in range(0, frame.n_layers, every)),
        y_ticks=tuple(TickView(frame.y(i * step), f"{i * step:.{digits}f}") for i in range(first, last + 1)),
        reference="" if reference is None else frame.y(reference),
        curves=tuple(_curve(number, curve, frame) for number, curve in enumerate(curves)),
    )


def draw_map(rows: Sequence[Sequence[float | None]], low: float, high: float) -> MapView:
    """A map of ``rows`` (layers) of heads; ``low`` has the lightest shade and ``high`` the darkest.

    >>> draw_map([[0.0, 1.0], [None, 1.0]], 0.0, 1.0).shades
    ((0, 'M0 0h9v9h-9Z'), (7, 'M0 9h9v9h-9ZM9 9h9v9h-9Z'))
    """
    paths: dict[int, list[str]] = {}
    for layer, heads in enumerate(rows):
        for head, value in enumerate(heads):
            if value is not None:
                share = (value - low) / (high - low) if high > low else 1.0
                shade = min(SHADES - 1, max(0, int(share * SHADES)))
                paths.setdefault(shade, []).append(f"M{layer * _CELL} {head * _CELL}h{_CELL}v{_CELL}h-{_CELL}Z")
    return MapView(
        width=len(rows) * _CELL,
        height=max((len(heads) for heads in rows), default=0) * _CELL,
        shades=tuple((shade, "".join(paths[shade])) for shade in sorted(paths)),
    )


def _curve(number: int, curve: Sequence[Spread | None], frame: _Frame) -> CurveView:
    parts = list(_unbroken(curve))
    every = math.ceil(len(curve) / MOST_MARKS)
    known = [(layer, one) for layer, one in enumerate(curve) if one is not None]
    marked = [(layer, one) for layer, one in known if layer % every == number % every] or known[:1]
    return CurveView(
        number=number,
        line="".join(_path([(layer, one.value) for layer, one in part], frame) for part in parts),
        band="".join(
            _path([*((layer, one.high) for layer, one in part), *((layer, one.low) for layer, one in part[::-1])], frame) + "Z"
            for part in parts
        ),
        marks=tuple((frame.x(layer), frame.y(one.value)) for layer, one in marked),
    )


def _unbroken(curve: Sequence[Spread | None]) -> Iterator[list[tuple[int, Spread]]]:
    """The stretches of a line without a gap in them."""
    for is_known, part in groupby(enumerate(curve), key=lambda one: one[1] is not None):
        if is_known:
            yield [(layer, one) for layer, one in part if one is not None]


def _path(points: Iterable[tuple[int, float]], frame: _Frame) -> str:
    return "M" + "L".join(f"{frame.x(layer)} {frame.y(value)}" for layer, value in points)
