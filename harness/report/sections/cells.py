"""Each cell in detail: what it knows beside its baseline and its dense model, and how the gate came to its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.records import CellFailure, CellRun, CompressionCost, TaskRun
from harness.core.verdicts import POOLED, RECOVERED, Evidence, RecoveryEvidence, Verdict
from harness.report import format as fmt
from harness.report.bundle import Reference, RunBundle, cell_of
from harness.report.dense import DenseComparison, accuracy_in, compared_dense
from harness.report.listing import flips_anchor, listed_anchors
from harness.report.plots import WIDTH, Axis, LossPlot, plot_loss
from harness.report.status import StatusView, cases_of, cell_status, view_status
from harness.report.view import CELL_ITSELF, NOT_COMPARED, EstimateView, accuracy_view, anchor, loss_view


@dataclass(frozen=True, slots=True)
class FactView:
    """One line of what a cell is or cost."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """What a cell knows: one case beside its baseline and its dense model. ``note`` says what sets it apart, or is ""."""

    task: str
    note: str
    status: StatusView
    n_items: str
    dense: EstimateView
    baseline: EstimateView
    candidate: EstimateView
    retention: EstimateView
    loss: EstimateView
    plot: LossPlot | None
    n_lost: str
    n_gained: str
    lost_href: str
    gained_href: str


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """How one case was judged; ``reason`` is the gate's sentence, the numbers are None where nothing was compared."""

    task: str
    note: str
    status: StatusView
    fails: bool
    reason: str
    numbers: EvidenceNumbers | None


@dataclass(frozen=True, slots=True)
class EvidenceNumbers:
    """The numbers behind a verdict."""

    m0: str
    m1: str
    p_fail: str
    level_fail: str
    p_pass: str
    level_pass: str
    proven: str
    detectable: str
    sigma: str
    needed: str
    retention_of_baseline: EstimateView


@dataclass(frozen=True, slots=True)
class CellView:
    """One cell."""

    id: str
    cell: str
    status: StatusView
    facts: tuple[FactView, ...]
    failure: str
    outcomes: tuple[OutcomeRow, ...]
    evidence: tuple[EvidenceRow, ...]


@dataclass(frozen=True, slots=True)
class CellsView:
    """All cells, in matrix order."""

    title: str
    plot_width: int
    plot_reach: str
    cells: tuple[CellView, ...]


def view_cells(bundle: RunBundle) -> CellsView:
    """The cells of a run in detail."""
    axis = Axis.over(case for verdict in bundle.verdicts for case in cases_of(verdict))
    listed = listed_anchors(bundle)
    cells = tuple(_cell(bundle, entry, axis, listed) for entry in bundle.cells)
    return CellsView("In detail", WIDTH, fmt.points(axis.reach, signed=False), cells)


def _cell(bundle: RunBundle, entry: CellRun | CellFailure, axis: Axis, listed: frozenset[str]) -> CellView:
    cell = cell_of(entry)
    verdict = bundle.verdict_of(cell.id)
    cases = cases_of(verdict) if verdict else ()
    dense = compared_dense(bundle).get(cell.id, {})
    return CellView(
        id=anchor("cell", cell.id),
        cell=cell.id,
        status=cell_status(verdict),
        facts=_facts(entry, bundle.baselines.get(cell.id)) if isinstance(entry, CellRun) else (),
        failure=fmt.visible(entry.reason) if isinstance(entry, CellFailure) else "",
        outcomes=tuple(
            _outcome(bundle, entry, case, dense.get(case.task), axis=axis, listed=listed)
            for case in cases
            if case.task != RECOVERED
        )
        if isinstance(entry, CellRun)
        else (),
        evidence=tuple(_evidence(case) for case in cases),
    )


def _facts(run: CellRun, baseline: Reference | None) -> tuple[FactView, ...]:
    made = run.record.compression
    share = f"{fmt.percent(made.n_weights_compressed / made.n_weights_total)} of {fmt.count(made.n_weights_total)} weights"
    size = fmt.size(made.size_bytes)
    if baseline is not None and baseline.compression.size_bytes != made.size_bytes:
        size += f" (baseline {fmt.size(baseline.compression.size_bytes)})"
    scored = sum(run.record.wall_s[name] for name in sorted(run.record.wall_s))
    return (
        FactView("Method", f"{made.method}, {made.stability}"),
        FactView("Size", size),
        FactView("Effective bits a weight", fmt.bits(made.effective_bits)),
        FactView("Compressed", share if made.n_weights_compressed else "nothing"),
        FactView("Time to compress", fmt.duration(made.wall_s) if made.n_weights_compressed else "nothing to do"),
        FactView("Time to score", fmt.duration(scored)),
        *_cost(made.cost),
    )


def _cost(cost: CompressionCost | None) -> tuple[FactView, ...]:
    """What compressing left and took, where it was measured."""
    if cost is None:
        return ()
    error = "not measured"
    if cost.error_mean is not None and cost.error_max is not None:
        error = f"{fmt.percent(cost.error_mean)}, at most {fmt.percent(cost.error_max)} ({fmt.visible(cost.worst_layer)})"
    return (
        FactView("Weights that are 0", fmt.percent(cost.sparsity)),
        FactView("Layers' change of weight", error),
        FactView("In memory here", fmt.size(cost.memory_bytes)),
        FactView("Peak while compressing", fmt.size(cost.peak_memory_bytes)),
    )


def case_name(task: str) -> str:
    """A case's name on the page."""
    return {POOLED: "all tasks pooled", RECOVERED: "won back by recovery"}.get(task) or fmt.visible(task)


def _outcome(
    bundle: RunBundle, entry: CellRun, case: Verdict, dense: DenseComparison | None, *, axis: Axis, listed: frozenset[str]
) -> OutcomeRow:
    evidence = case.evidence
    run = entry.runs.get(case.task)
    measured = accuracy_in(bundle, entry.record.cell, run) if run and evidence is None else None
    n_items = evidence.counts.n_items if evidence else len(run.outcomes) if run else None
    n_planned = evidence.n_planned if evidence else run.info.n_items if run else None
    loss = loss_view(evidence.loss if evidence else None)
    words = f"loss {loss.text}, interval {loss.interval}"
    of_dense = accuracy_view(dense.retention if dense else None)
    anchors = [flips_anchor(case.cell, case.task, "baseline", lost) for lost in (True, False)]
    return OutcomeRow(
        task=case_name(case.task),
        status=view_status(case),
        note=", ".join(note for note in (anchor_note(case), _answers_note(run) if run else "") if note),
        n_items=_of_planned(n_items, n_planned),
        dense=CELL_ITSELF if entry.record.cell.is_dense else accuracy_view(dense.accuracy_dense if dense else None),
        baseline=accuracy_view(evidence.accuracy_baseline) if evidence else NOT_COMPARED,
        candidate=accuracy_view(evidence.accuracy_candidate if evidence else measured),
        retention=CELL_ITSELF if entry.record.cell.is_dense else of_dense,
        loss=loss,
        plot=plot_loss(evidence, axis, words) if evidence else None,
        n_lost=fmt.count(evidence.counts.n_lost) if evidence else "–",
        n_gained=fmt.count(evidence.counts.n_gained) if evidence else "–",
        lost_href=anchors[0] if evidence and anchors[0] in listed else "",
        gained_href=anchors[1] if evidence and anchors[1] in listed else "",
    )


def anchor_note(case: Verdict) -> str:
    """What a case is compared with where that is not its last accepted baseline."""
    return {"last": "", "release": "against the release baseline", "dense": "against the dense cell"}[case.anchor]


def _answers_note(run: TaskRun) -> str:
    """What of a task's answers could not be read, where they were generated, and what of its contexts did not fit."""
    outcomes = run.outcomes
    unparsed = f"{fmt.count(outcomes.n_unparsed)} unparsed" if run.info.score_class == "generation" else ""
    cut = f"{fmt.plural(outcomes.n_cut, 'context')} cut to the window" if outcomes.n_cut else ""
    return ", ".join(note for note in (unparsed, cut) if note)


def _of_planned(n_items: int | None, n_planned: int | None) -> str:
    """How many items were asked, and of how many where that is not all."""
    if n_items is None:
        return "unknown"
    return fmt.count(n_items) if n_planned in (None, n_items) else f"{fmt.count(n_items)} of {fmt.count(n_planned or 0)}"


def _evidence(case: Verdict) -> EvidenceRow:
    numbers = _numbers(case.evidence) if case.evidence else _numbers_of_gain(case.gain) if case.gain else None
    return EvidenceRow(
        case_name(case.task), anchor_note(case), view_status(case), case.fails, fmt.visible(case.reason), numbers
    )


def _numbers(evidence: Evidence) -> EvidenceNumbers:
    proven, detectable = evidence.proven_margin, evidence.min_detectable_loss
    return EvidenceNumbers(
        m0=fmt.points(evidence.m0, 2, signed=False),
        m1=fmt.points(evidence.m1, 2, signed=False),
        p_fail=fmt.p_value(evidence.p_fail),
        level_fail=fmt.level(evidence.level_fail),
        p_pass=fmt.p_value(evidence.p_pass),
        level_pass=fmt.level(evidence.level_pass),
        proven="none" if proven is None else fmt.points(proven, 2, signed=False),
        detectable="none" if detectable is None else fmt.points(detectable, 2, signed=False),
        sigma="none" if evidence.sigma_recompression == 0 else fmt.points(evidence.sigma_recompression, 2, signed=False),
        needed="" if evidence.items_needed is None else f"{fmt.count(evidence.items_needed)} more",
        retention_of_baseline=accuracy_view(evidence.retention),
    )


def _numbers_of_gain(gain: RecoveryEvidence) -> EvidenceNumbers:
    """The same of a recovery: margins and levels are of how much less it wins back."""
    return EvidenceNumbers(
        m0=fmt.points(gain.m0, 2, signed=False),
        m1=fmt.points(gain.m1, 2, signed=False),
        p_fail=fmt.p_value(gain.p_fail),
        level_fail=fmt.level(gain.level_fail),
        p_pass=fmt.p_value(gain.p_pass),
        level_pass=fmt.level(gain.level_pass),
        proven="–",
        detectable="–",
        sigma="none" if gain.sigma_recompression == 0 else fmt.points(gain.sigma_recompression, 2, signed=False),
        needed="" if gain.items_needed is None else f"{fmt.count(gain.items_needed)} more",
        retention_of_baseline=NOT_COMPARED,
    )
