"""Hints: a model that grew less sure is told of, tasks and relations that lost more are listed, and no verdict moves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from harness.core.records import CellRun
from harness.core.verdicts import Status
from harness.report import report
from harness.report.hints import early_warnings, hints
from harness.report.sections.hints import view_hints

CELL = "llama_4bit-rtn_none"


def lowered(bundle, by_nats: float, weights: str = "others", n_clusters: int | None = None):
    """The green run with the margins of one cell's tasks lowered by so much on average, and no answer changed."""
    cells = []
    for entry in bundle.cells:
        if isinstance(entry, CellRun) and entry.record.cell.id == CELL:
            known = bundle.baselines[CELL].outcomes
            runs = {}
            for name, run in entry.runs.items():
                noise = 0.2 * np.random.default_rng(3).standard_normal(len(run.outcomes))
                margins = known[name].margins_nats - by_nats + noise
                info = replace(run.info, n_clusters=n_clusters)
                runs[name] = replace(run, info=info, outcomes=replace(known[name], margins_nats=margins), items=run.items)
            provenance = replace(entry.record.provenance, weights_digest=weights)
            entry = CellRun(replace(entry.record, provenance=provenance), runs)  # noqa: PLW2901
        cells.append(entry)
    return replace(bundle, cells=tuple(cells))


@pytest.fixture(scope="module")
def green(synthetic):
    return synthetic.make_green_bundle(150)


def test_a_cell_that_grew_less_sure_is_warned_of_before_an_answer_flips(green):
    found = hints(lowered(green, 0.3)).warnings
    assert {one.cell for one in found} == {CELL}
    for one in found:
        assert one.p < one.level
        assert one.less_sure.low > 0
    assert any(
        "less sure of its right answers" in line and "never part of a verdict" in line
        for line in early_warnings(lowered(green, 0.3))
    )
    assert not any(one.cell == CELL for one in hints(lowered(green, -0.3)).warnings), "surer is no warning"


def test_the_warnings_p_is_scipys_paired_t(green):
    made = lowered(green, 0.3)
    one = next(one for one in hints(made).warnings if one.task != "pooled")
    run = next(entry for entry in made.cells if entry.record.cell.id == CELL).runs[one.task]
    was, now = made.baselines[CELL].outcomes[one.task].margins_nats, run.outcomes.margins_nats
    expected = stats.ttest_rel(special.expit(was), special.expit(now), alternative="greater")
    assert one.p == pytest.approx(expected.pvalue, rel=1e-9)


def test_the_same_weights_are_never_warned_of(green):
    known = green.baselines[CELL].provenance.weights_digest
    assert not any(one.cell == CELL for one in hints(lowered(green, 0.3, weights=known)).warnings)


def test_what_could_not_be_compared_is_no_hint_either(green):
    made = lowered(green, 0.3)
    broken = replace(
        made,
        verdicts=tuple(
            replace(one, tasks=tuple(replace(task, status=Status.INVALID) for task in one.tasks))
            if one.cell.id == CELL
            else one
            for one in made.verdicts
        ),
    )
    assert any(one.cell == CELL for one in hints(made).warnings)
    assert not any(one.cell == CELL for one in hints(broken).warnings)
    assert hints(broken).n_tasks < hints(made).n_tasks


@pytest.mark.parametrize(("n_relations", "wanted"), [(12, [12]), (9, [])])
def test_relations_that_were_accepted_as_clusters_stay_so_for_a_warning(green, n_relations: int, wanted: list[int]):
    """Of a limited run that asks fewer than ten of them nothing is said."""
    made = lowered(green, 0.3)
    known, place = made.baselines[CELL], [getattr(entry, "record", entry).cell.id for entry in made.cells].index(CELL)
    entry = made.cells[place]
    runs = dict(entry.runs)
    name = max(runs, key=lambda name: len(runs[name].items))
    items = tuple(replace(item, group=f"P{i % n_relations}") for i, item in enumerate(runs[name].items))
    digests = tuple(item.digest for item in items)
    runs[name] = replace(runs[name], items=items, outcomes=replace(runs[name].outcomes, digests=digests))
    tasks = {**known.tasks, name: replace(known.tasks[name], n_clusters=12)}
    outcomes = {**known.outcomes, name: replace(known.outcomes[name], digests=digests)}
    accepted = replace(known, tasks=tasks, outcomes=outcomes)
    cells = (*made.cells[:place], CellRun(entry.record, runs), *made.cells[place + 1 :])
    made = replace(made, cells=cells, baselines={**made.baselines, CELL: accepted})
    assert runs[name].info.n_clusters is None
    assert [one.n_clusters for one in hints(made).warnings if (one.cell, one.task) == (CELL, name)] == wanted


def test_suspects_are_benjamini_and_hochbergs(bundle):
    found = hints(bundle)
    assert found.n_tasks > len(found.tasks) > 0
    tested = [len(bundle.verdict_of(one.cell).tasks) for one in found.tasks]
    assert min(tested) > 0
    for one in (*found.tasks, *found.relations):
        assert one.p_adjusted <= 0.10
        assert one.n_lost > one.n_gained
    assert all(one.relation is not None for one in found.relations)
    assert all(one.relation is None for one in found.tasks)


def test_every_output_has_them_and_no_verdict_does(green):
    plain, warned = report(green), report(lowered(green, 0.3))
    page, told = warned["index.html"].decode(), json.loads(warned["report.json"])["run"]
    assert "Early warnings" in page
    assert "### Early warnings" in warned["summary.md"].decode()
    assert "### Early warnings" not in plain["summary.md"].decode()
    assert told["hints"]["warnings"][0]["cell"] == CELL
    assert told["exit_code"] == json.loads(plain["report.json"])["run"]["exit_code"]
    assert warned["junit.xml"] == plain["junit.xml"]


def test_nothing_to_hint_at_is_said(synthetic):
    view = view_hints(synthetic.make_empty_bundle())
    assert (view.warnings, view.suspects) == ((), ())
    assert view.nothing.startswith("No cell here has other weights")
