"""A cell in detail says what compressing it left and took, where that was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.core.records import CellRun, CompressionCost
from harness.report.raw import raw_report
from harness.report.sections.cells import view_cells

COST = CompressionCost(
    sparsity=0.3,
    error_mean=0.125,
    error_max=0.25,
    worst_layer="model.layers.1.mlp.up_proj",
    memory_bytes=538_060_032,
    peak_memory_bytes=1_500_000_000,
)


def facts_of(bundle, cost):
    cells = tuple(
        replace(run, record=replace(run.record, compression=replace(run.record.compression, cost=cost)))
        if isinstance(run, CellRun) and run.record.cell.compression == "4bit-rtn"
        else run
        for run in bundle.cells
    )
    view = view_cells(replace(bundle, cells=cells))
    (cell,) = [one for one in view.cells if one.cell == "llama_4bit-rtn_none"]
    return {fact.name: fact.text.replace("\u00a0", " ") for fact in cell.facts}


def test_what_was_measured_is_shown(bundle):
    facts = facts_of(bundle, COST)
    assert facts["Weights that are 0"] == "30.0 %"
    assert facts["Layers' change of weight"] == "12.5 %, at most 25.0 % (model.layers.1.mlp.up_proj)"
    assert facts["In memory here"] == "538.1 MB"
    assert facts["Peak while compressing"] == "1.5 GB"


def test_what_was_not_measured_is_not_a_zero(bundle):
    assert "Weights that are 0" not in facts_of(bundle, None)
    unknown = replace(COST, error_mean=None, error_max=None, worst_layer="")
    assert facts_of(bundle, unknown)["Layers' change of weight"] == "not measured"


def test_unparsed_answers_and_cut_contexts_stand_beside_their_task(families):
    run = next(run for run in families.cells if run.runs["trivia"].outcomes.n_unparsed)
    trivia, name = run.runs["trivia"], run.record.cell.id
    short = replace(trivia.outcomes, are_cut=np.arange(len(trivia.outcomes)) < 2)
    cut = replace(run, runs={**run.runs, "trivia": replace(trivia, outcomes=short)})
    bundle = replace(families, cells=tuple(cut if one is run else one for one in families.cells))
    (cell,) = [one for one in view_cells(bundle).cells if one.cell == name]
    n_unparsed = int((~trivia.outcomes.correct & np.array([not text for text in trivia.outcomes.texts])).sum())
    notes = {row.task: row.note.replace("\u00a0", " ") for row in cell.outcomes}
    assert notes["trivia"] == f"{n_unparsed} unparsed, 2 contexts cut to the window"
    assert notes["facts"] == ""
    (plain,) = [one for one in raw_report(bundle)["cells"] if one["id"] == name]
    counts = plain["answers"]["trivia"]
    assert (counts["unparsed"], counts["context_cut"]) == (n_unparsed, 2)
    assert counts["right"] + counts["wrong"] + counts["unparsed"] == len(trivia.outcomes)
