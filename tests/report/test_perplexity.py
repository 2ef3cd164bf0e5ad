"""Perplexity beside the tasks: by hand, and in which words the two agree or do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.core.digest import digest_sequence
from harness.core.outcomes import Outcomes
from harness.core.ragged import Ragged
from harness.core.records import CellRun, Item, TaskInfo, TaskRun
from harness.core.verdicts import POOLED
from harness.report import Reference, RunBundle, report
from harness.report import format as fmt
from harness.report.dense import compared_dense
from harness.report.sections.perplexity import count_words, mean_nats, view_perplexity

ITEMS = tuple(Item(f"wikitext/{i}", "wikitext", "", (f"text {i}",), (0,)) for i in range(6))
WORDS = np.array([100.0, 50.0, 200.0, 80.0, 120.0, 60.0])


def measured(nats_a_word: np.ndarray) -> Outcomes:
    logliks = -nats_a_word * WORDS
    n = len(ITEMS)
    return Outcomes(
        digests=tuple(item.digest for item in ITEMS),
        correct=np.zeros(n, dtype=np.bool_),
        answers=np.full(n, -1, dtype=np.int32),
        ranks=np.full(n, 2, dtype=np.int32),
        margins_nats=-nats_a_word,
        near_ties=np.zeros(n, dtype=np.bool_),
        option_logliks_nats=Ragged.of([(x,) for x in logliks.tolist()]),
    )


def about(info: TaskInfo) -> TaskInfo:
    digest = digest_sequence(item.digest for item in ITEMS)
    return replace(
        info, name="wikitext", score_class="perplexity", pooled=False, n_items=len(ITEMS), items_digest=digest, limit=None
    )


Make = Callable[[float], RunBundle]


@pytest.fixture
def make(bundle: RunBundle) -> Make:
    """A run of one compressed cell and its dense one, whose texts cost so many nats a word more than the dense model's."""

    def made(more_nats: float) -> RunBundle:
        cells = [entry for entry in bundle.cells if isinstance(entry, CellRun)]
        dense = next(entry for entry in cells if entry.record.cell.is_dense)
        cell = next(e for e in cells if not e.record.cell.is_dense and e.record.cell.model == dense.record.cell.model)
        before = np.linspace(3.0, 3.5, len(ITEMS))
        wobble = np.array([0.01, -0.01, 0.02, -0.02, 0.01, -0.01])
        entries = []
        for entry, nats in ((dense, before), (cell, before + more_nats + wobble)):
            info = about(next(iter(entry.record.tasks.values())))
            run = TaskRun(entry.record.cell.id, info, ITEMS, measured(nats), "rolling/1", "measured")
            record = replace(
                entry.record,
                tasks={**entry.record.tasks, "wikitext": info},
                scorers={**entry.record.scorers, "wikitext": "rolling/1"},
                origins={**entry.record.origins, "wikitext": "measured"},
                wall_s={**entry.record.wall_s, "wikitext": 1.0},
            )
            entries.append(CellRun(record, {**entry.runs, "wikitext": run}))
        kept = {entry.record.cell.id for entry in entries}
        verdicts = tuple(verdict for verdict in bundle.verdicts if verdict.cell.id in kept)
        references = {dense.record.cell.model: Reference.of_run(entries[0])}
        return replace(bundle, cells=tuple(entries), verdicts=verdicts, dense=references, baselines={}, not_run=())

    return made


def test_a_perplexity_is_lm_evals() -> None:
    nats = np.linspace(3.0, 3.5, len(ITEMS))
    assert math.exp(mean_nats(measured(nats), count_words(measured(nats)))) == pytest.approx(
        math.exp((nats * WORDS).sum() / WORDS.sum())
    )


def test_a_model_that_is_certain_of_a_text_has_a_perplexity() -> None:
    """A log-likelihood of 0 does not say how many words the text has: the other model's does."""
    some, none = np.array([0.0, 2.0, 0.0, 2.0, 2.0, 2.0]), np.zeros(6)
    other = np.array([0.0, 3.0, 3.0, 0.0, 3.0, 3.0])
    words = count_words(measured(some), measured(other))
    np.testing.assert_allclose(words, [0, *WORDS[1:]])
    assert mean_nats(measured(some), words) == pytest.approx((some * WORDS).sum() / WORDS[1:].sum())
    assert mean_nats(measured(none), count_words(measured(none), measured(none))) == 0.0


@pytest.mark.parametrize(("more_nats", "said"), [(0.0, "25.71"), (9.0, "208,297.23"), (11.0, "e^14.25"), (900.0, "e^903.25")])
def test_a_perplexity_too_large_for_a_number_is_a_power_of_e(more_nats: float, said: str, make: Make) -> None:
    """Broken weights make texts as unlikely as this; e^710 is no float any more."""
    (table,) = view_perplexity(make(more_nats)).tables
    assert (table.now, table.dense) == (said, "25.56")
    assert float(table.change.replace("−", "-")) == pytest.approx(more_nats, abs=0.005)
    assert f"Perplexity {said}, 25.56 when dense" in report(make(more_nats))["index.html"].decode()


@pytest.mark.parametrize(
    ("more_nats", "said"),
    [
        (0.4, "less likely texts than the dense model finds them"),
        (0.0, "no clear change of perplexity"),
        (-0.4, "likelier texts than the dense model finds them"),
    ],
)
def test_a_table_says_how_texts_moved_and_what_each_task_says(more_nats: float, said: str, make: Make) -> None:
    bundle = make(more_nats)
    (table,) = view_perplexity(bundle).tables
    assert table.summary.startswith(said)
    assert float(table.change.replace("−", "-")) == pytest.approx(more_nats, abs=0.005)
    assert {row.task for row in table.rows} == {name for name in bundle.cells[1].runs if name != "wikitext"}  # type: ignore[union-attr]
    for row in table.rows:
        is_lost = not row.interval.startswith(("[−", "[0"))
        assert row.disagrees == (is_lost != (more_nats > 0))
        assert row.word in {"both fell", "neither fell clearly"} if not row.disagrees else "perplexity" in row.word


def in_relations(bundle: RunBundle, n_relations: int, n_clusters: int | None) -> RunBundle:
    """The same run: its facts in so many relations, of which the record tells ``n_clusters``; the compressed cell lost all of
    the first two and nothing else."""
    cells = []
    for cell in bundle.cells:
        assert isinstance(cell, CellRun)
        run = cell.runs["facts"]
        per_relation = -(-len(run.items) // n_relations)
        items = tuple(replace(item, group=f"P{i // per_relation}") for i, item in enumerate(run.items))
        right = np.ones(len(items), dtype=np.bool_)
        right[: 0 if cell.record.cell.is_dense else 2 * per_relation] = False
        outcomes = replace(run.outcomes, digests=tuple(item.digest for item in items), correct=right)
        info = replace(run.info, n_clusters=n_clusters)
        runs = {**cell.runs, "facts": replace(run, info=info, items=items, outcomes=outcomes)}
        cells.append(CellRun(replace(cell.record, tasks={**cell.record.tasks, "facts": info}), runs))
    references = {cells[0].record.cell.model: Reference.of_run(cells[0])}
    return replace(bundle, cells=tuple(cells), dense=references)


@pytest.mark.parametrize(("n_clusters", "word"), [(None, "knowledge fell, perplexity did not"), (12, "neither fell clearly")])
def test_what_a_task_lost_is_as_uncertain_as_elsewhere_in_the_report(n_clusters: int | None, word: str, make: Make) -> None:
    """All items of two relations in twelve are lost: a lot by items, but of other relations it says little."""
    bundle = in_relations(make(0.0), 12, n_clusters)
    (table,) = view_perplexity(bundle).tables
    assert {row.task: row.word for row in table.rows}["facts"] == word
    kept = compared_dense(bundle)[table.cell]
    assert {row.task: (row.loss, row.interval) for row in table.rows} == {
        task: (fmt.points(made.loss.value), fmt.points_interval(made.loss.low, made.loss.high))
        for task, made in kept.items()
        if task not in (POOLED, "wikitext")
    }


def test_the_section_is_on_the_page(make: Make) -> None:
    page = report(make(0.4))["index.html"]
    text = page.decode() if isinstance(page, bytes) else page
    assert "wikitext" in text[text.index('id="perplexity"') :]
