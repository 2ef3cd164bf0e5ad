"""Cell by task, one tile each: status in a word, loss with its interval, retention of the dense model's knowledge."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.core.records import CellFailure, CellRun
from harness.core.verdicts import POOLED, RECOVERED, Verdict
from harness.report import format as fmt
from harness.report.bundle import RunBundle, cell_of
from harness.report.dense import compared_dense
from harness.report.sections.cells import anchor_note, case_name
from harness.report.status import INVALID, LEGEND, NOT_RUN, StatusView, cases_of, cell_status, view_status
from harness.report.view import CELL_ITSELF, UNKNOWN, EstimateView, accuracy_view, anchor, loss_view

LONGEST_NOTE = 240


@dataclass(frozen=True, slots=True)
class TileView:
    """One case, or ``span`` cases that all say the same.

    ``loss`` and ``retention`` are None where nothing was compared; ``note`` then says why. With them, it says which other
    baseline than the last one the loss is against.
    """

    status: StatusView
    loss: EstimateView | None
    retention: EstimateView | None
    note: str
    span: int = 1


@dataclass(frozen=True, slots=True)
class RowView:
    """One cell: its parts, its cost, its tiles in column order."""

    cell: str
    model: str
    compression: str
    recovery: str
    cost: str
    status: StatusView
    href: str
    tiles: tuple[TileView, ...]


@dataclass(frozen=True, slots=True)
class MatrixView:
    """The matrix; its first column is the pool."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[RowView, ...]
    legend: tuple[StatusView, ...]


def view_matrix(bundle: RunBundle) -> MatrixView:
    """The matrix of a run: measured and failed cells in matrix order, then those that did not run."""
    rows = [_row(bundle, entry) for entry in bundle.cells]
    rows += [_row_not_run(bundle, left.cell.id, left.reason) for left in bundle.not_run if left.task is None]
    columns = tuple(case_name(name) for name in _columns(bundle))
    shown = {row.status for row in rows} | {tile.status for row in rows for tile in row.tiles}
    return MatrixView("Cells and tasks", columns, tuple(rows), tuple(s for s in LEGEND if s in shown))


def _columns(bundle: RunBundle) -> tuple[str, ...]:
    """The cases that have a column: the pool, the recovery where a cell of the run has one, the tasks."""
    is_judged = any(verdict.recovery is not None for verdict in bundle.verdicts)
    recovery = (RECOVERED,) if is_judged or RECOVERED in bundle.task_names else ()
    return (POOLED, *recovery, *(name for name in bundle.task_names if name != RECOVERED))


def _row(bundle: RunBundle, entry: CellRun | CellFailure) -> RowView:
    cell = cell_of(entry)
    href = anchor("cell", cell.id)
    verdict = bundle.verdict_of(cell.id)
    cases = {case.task: case for case in cases_of(verdict)} if verdict else {}
    of_dense = _retentions(bundle, entry)
    tiles = []
    for task in _columns(bundle):
        if task in cases:
            tiles.append(_tile(cases[task], of_dense.get(task)))
        elif isinstance(entry, CellFailure):
            tiles.append(TileView(INVALID, None, None, fmt.visible(entry.reason, LONGEST_NOTE)))
        else:
            tiles.append(_not_run(bundle.why_not_run(cell.id, task) or _unsaid(task)))
    if len(set(tiles)) == 1 and tiles[0].loss is None:
        tiles = [replace(tiles[0], span=len(tiles))]
    cost = "not measured" if isinstance(entry, CellFailure) else _cost(entry)
    return RowView(cell.id, cell.model, cell.compression, cell.recovery, cost, cell_status(verdict), href, tuple(tiles))


def _retentions(bundle: RunBundle, entry: CellRun | CellFailure) -> dict[str, EstimateView]:
    """Retention of the dense model's knowledge, per case."""
    if isinstance(entry, CellFailure):
        return {}
    if entry.record.cell.is_dense:
        return dict.fromkeys((POOLED, *entry.runs), CELL_ITSELF)
    return {task: accuracy_view(found.retention) for task, found in compared_dense(bundle)[entry.record.cell.id].items()}


def _tile(verdict: Verdict, retention: EstimateView | None) -> TileView:
    if verdict.evidence is None:
        return TileView(view_status(verdict), None, None, fmt.visible(verdict.reason, LONGEST_NOTE))
    return TileView(view_status(verdict), loss_view(verdict.evidence.loss), retention or UNKNOWN, anchor_note(verdict))


def _row_not_run(bundle: RunBundle, cell_id: str, reason: str) -> RowView:
    model, compression, recovery = cell_id.split("_")
    tile = replace(_not_run(reason), span=len(_columns(bundle)))
    return RowView(cell_id, model, compression, recovery, "not measured", NOT_RUN, anchor("not_measured"), (tile,))


def _not_run(reason: str) -> TileView:
    return TileView(NOT_RUN, None, None, fmt.visible(reason, LONGEST_NOTE))


def _unsaid(task: str) -> str:
    return "a task of the cell was left out" if task == POOLED else "not declared for this cell"


def _cost(entry: CellRun) -> str:
    compression = entry.record.compression
    return f"{fmt.size(compression.size_bytes)}, {fmt.bits(compression.effective_bits)} bits a weight"
