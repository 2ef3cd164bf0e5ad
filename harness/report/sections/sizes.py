"""What a cell keeps against what it weighs: one panel per model, the same upward axis on all; the table has the numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.core.records import Cell, CellRun
from harness.core.verdicts import POOLED, Estimate
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.dense import DenseComparison, accuracy_in, compared_dense
from harness.report.front import on_front
from harness.report.scatter import PanelView, Point, Scale, draw_panel
from harness.report.status import IDENTICAL, PASS, StatusView, cell_status
from harness.report.view import CELL_ITSELF, EstimateView, accuracy_view, anchor

SHAPES = ("circle", "square", "triangle", "diamond", "wedge", "cross")
"""Markers of the methods, in the order in which they are met; after the last they begin again."""


@dataclass(frozen=True, slots=True)
class ShapeView:
    """A marker and the method that it stands for."""

    shape: str
    method: str


@dataclass(frozen=True, slots=True)
class ModelPanel:
    """One model's panel; ``words`` say what it is for who can't see it; ``front`` is the path that joins the Pareto front."""

    family: str
    model: str
    words: str
    dense_size: str
    front: str
    panel: PanelView


@dataclass(frozen=True, slots=True)
class SizeRow:
    """One cell in numbers. ``size_bytes`` orders what ``size`` shows; ``asked`` names the case that is compared; ``front``
    says that nothing beats it at size and retention both."""

    cell: str
    href: str
    status: StatusView
    family: str
    size: str
    size_bytes: int
    share: str
    bits: str
    asked: str
    accuracy: EstimateView
    retention: EstimateView
    front: str


@dataclass(frozen=True, slots=True)
class SizesView:
    """Every measured cell, drawn where it can be, and as a row."""

    title: str
    methods: tuple[ShapeView, ...]
    has_recovery: bool
    panels: tuple[ModelPanel, ...]
    rows: tuple[SizeRow, ...]
    not_drawn: str


def view_sizes(bundle: RunBundle) -> SizesView:
    """Size and retention of a run's cells."""
    runs = [entry for entry in bundle.cells if isinstance(entry, CellRun)]
    compared = compared_dense(bundle)
    methods = tuple(dict.fromkeys(run.record.compression.method for run in runs if not run.record.cell.is_dense))
    shapes = {method: SHAPES[i % len(SHAPES)] for i, method in enumerate(methods)}
    best = {cell for cells in fronts(bundle).values() for cell in cells}
    points: dict[tuple[str, str], list[Point]] = {}
    for run in runs:
        point = _point(bundle, run, compared[run.record.cell.id], shapes)
        if point is not None:
            points.setdefault((run.record.family, run.record.cell.model), []).append(point)
    scale = Scale.over(point for found in points.values() for point in found)
    n_missing = sum(not run.record.cell.is_dense for run in runs) - sum(map(len, points.values()))
    return SizesView(
        title="Size and retention",
        methods=tuple(ShapeView(shapes[method], method) for method in methods),
        has_recovery=any(point.hollow for found in points.values() for point in found),
        panels=tuple(_panel(bundle, name, points, scale) for name in sorted(points)),
        rows=tuple(_row(bundle, run, compared[run.record.cell.id], best) for run in runs),
        not_drawn=f"{fmt.plural(n_missing, 'cell')} without a retention can’t be drawn." if n_missing and points else "",
    )


def fronts(bundle: RunBundle) -> dict[str, tuple[str, ...]]:
    """By model, the cells that no other cell of it, nor the dense model, beats at size and retention both; smallest first."""
    compared = compared_dense(bundle)
    found: dict[str, list[tuple[int, float, str]]] = {}
    for run in (entry for entry in bundle.cells if isinstance(entry, CellRun)):
        cell = run.record.cell
        case = main_case(run, compared[cell.id])
        kept = None if case is None else compared[cell.id][case].retention
        if isinstance(kept, Estimate):
            found.setdefault(cell.model, []).append((run.record.compression.size_bytes, kept.value, cell.id))
    made: dict[str, tuple[str, ...]] = {}
    for model, cells in found.items():
        dense = (bundle.dense[model].compression.size_bytes, 1.0)
        best = on_front([*((size, kept) for size, kept, _ in cells), dense])
        made[model] = tuple(name for (_, _, name), is_best in sorted(zip(cells, best[:-1], strict=True)) if is_best)
    return made


def main_case(run: CellRun, cases: Mapping[str, object]) -> str | None:
    """The case that stands for a cell: its pool, or its only pooled task; None where there is neither."""
    pooled = [name for name, task in run.runs.items() if task.info.pooled]
    return POOLED if POOLED in cases else pooled[0] if len(pooled) == 1 and pooled[0] in cases else None


def _point(bundle: RunBundle, run: CellRun, cases: Mapping[str, DenseComparison], shapes: Mapping[str, str]) -> Point | None:
    case = main_case(run, cases)
    kept = None if case is None else cases[case].retention
    if not isinstance(kept, Estimate):
        return None
    cell, made = run.record.cell, run.record.compression
    status = cell_status(bundle.verdict_of(cell.id))
    label = _label(cell) if status in (PASS, IDENTICAL) else f"{_label(cell)}, {status.word.lower()}"
    words = (
        f"{cell.id}: {fmt.size(made.size_bytes)}, keeps {fmt.percent(kept.value)} {fmt.percent_interval(kept.low, kept.high)}"
    )
    return Point(
        label=label,
        size_bytes=made.size_bytes,
        value=kept.value,
        low=kept.low,
        high=kept.high,
        shape=shapes[made.method],
        hollow=cell.recovery != "none",
        tone=status.key,
        words=words,
    )


def _label(cell: Cell) -> str:
    return cell.compression if cell.recovery == "none" else f"{cell.compression} + {cell.recovery}"


def _panel(
    bundle: RunBundle, name: tuple[str, str], points: Mapping[tuple[str, str], list[Point]], scale: Scale
) -> ModelPanel:
    family, model = name
    dense = bundle.dense[model].compression.size_bytes
    said = "; ".join(point.words for point in points[name])
    words = f"{fmt.plural(len(points[name]), 'cell')} of {model}, size against retention. {said}"
    drawn = draw_panel(points[name], dense, scale, len(points))
    best = on_front([*((point.size_bytes, point.value) for point in points[name]), (dense, 1.0)])[:-1]
    marks = sorted((float(mark.x), float(mark.y)) for mark, is_best in zip(drawn.marks, best, strict=True) if is_best)
    front = "M" + "L".join(f"{x:g} {y:g}" for x, y in marks) if len(marks) > 1 else ""
    return ModelPanel(family, model, words, fmt.size(dense), front, drawn)


def _row(bundle: RunBundle, run: CellRun, cases: Mapping[str, DenseComparison], best: Collection[str]) -> SizeRow:
    cell, made = run.record.cell, run.record.compression
    dense = bundle.dense.get(cell.model)
    found = cases.get(main_case(run, cases) or "")
    asked, accuracy = _accuracy(bundle, run)
    return SizeRow(
        cell=cell.id,
        href=anchor("cell", cell.id),
        status=cell_status(bundle.verdict_of(cell.id)),
        family=run.record.family,
        size=fmt.size(made.size_bytes),
        size_bytes=made.size_bytes,
        share="unknown" if dense is None else fmt.percent(made.size_bytes / dense.compression.size_bytes),
        bits=fmt.bits(made.effective_bits),
        asked=asked,
        accuracy=accuracy_view(accuracy),
        front="Pareto front" if cell.id in best else "",
        retention=CELL_ITSELF if cell.is_dense else accuracy_view(found.retention if found else None),
    )


def _accuracy(bundle: RunBundle, run: CellRun) -> tuple[str, Estimate | None]:
    """What a cell knows: of its pool as judged, or of its only pooled task, or nothing that one number could say."""
    verdict = bundle.verdict_of(run.record.cell.id)
    if verdict is not None and verdict.pooled is not None and verdict.pooled.evidence is not None:
        evidence = verdict.pooled.evidence
        n, of = evidence.counts.n_items, evidence.n_planned
        part = f", {fmt.count(n)} of {fmt.plural(of, 'item')}" if n < of else ""
        return f"all tasks pooled{part}", evidence.accuracy_candidate
    only = main_case(run, run.runs)
    if only is None:
        return "several tasks", None
    return fmt.visible(only), accuracy_in(bundle, run.record.cell, run.runs[only])
