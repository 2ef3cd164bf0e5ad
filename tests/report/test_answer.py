"""What the section on forgotten and displaced knowledge says, and what it does not say."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from harness.core.records import Cell, CellRun
from harness.core.verdicts import POOLED, Estimate, NotEstimable, Status
from harness.report import Reference, RunBundle, report
from harness.report.answers import find_answers
from harness.report.dense import accuracy_in, compared_dense
from harness.report.sections.answer import AnswerRow, view_answer

N = 600
KNOWN, LOST, BACK = 360, 120, 80
"""Of the items the first are known to the dense model, of these the first are lost by compressing, and of those the first
come back by prompting."""


@pytest.fixture(scope="module")
def make(synthetic: ModuleType):  # type: ignore[no-untyped-def]
    """A bundle of a model, compressed and recovered: how many never known items a recovery helps the dense model with (below
    0: how many known ones it takes), how many kept ones it spoils, the methods, and which cells are left out."""

    def made(
        *, dense_gain: int = 0, helped: int = 0, spoiled: int = 0, left_out: tuple[str, ...] = (), **methods: str
    ) -> RunBundle:
        maker = synthetic.Maker(N)

        def run(cell: Cell, method: str, right: object) -> CellRun:
            whole = maker.run(cell, synthetic.make_compression("none", 16.0, 269_060_552), (0, 0), (0, 0), ("facts",))
            outcomes = synthetic.make_outcomes(maker.items["facts"], right, cell.id)
            runs = {"facts": replace(whole.runs["facts"], outcomes=outcomes)}
            return CellRun(replace(whole.record, recovery_method=method), runs)

        dense = run(Cell("m", "none", "none"), "none", lambda i: i < KNOWN)
        cells = [dense, run(Cell("m", "30pct", "none"), "none", lambda i: LOST <= i < KNOWN)]
        for name, method in methods.items():
            cells.append(run(Cell("m", "none", name), method, lambda i: i < KNOWN + dense_gain))
            back = LOST if method == "lora" else BACK
            cells.append(
                run(Cell("m", "30pct", name), method, lambda i, back=back: i < back or LOST + spoiled <= i < KNOWN + helped)
            )
        kept = tuple(one for one in cells if one.record.cell.id not in left_out)
        return RunBundle(
            profile="embedded",
            policy="commit",
            cells=kept,
            verdicts=tuple(maker.verdict(one, {POOLED: Status.PASS}, {}) for one in kept),
            started_at="2031-05-06T07:00:00Z",
            ended_at="2031-05-06T07:00:21Z",
            exit_code=0,
            command="make gate",
            baselines=maker.baselines,
            dense={"m": Reference.of_run(dense, "measured")},
        )

    return made


def only(bundle: RunBundle) -> AnswerRow:
    (row,) = view_answer(bundle).rows
    return row


def test_displaced_is_said_where_lost_items_come_back_and_the_dense_model_gains_nothing(make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(p20="prompt"))
    assert row.is_displaced
    share = "67\u00a0%"
    assert row.sentence == f"Of what compression lost, an estimated {share} was displaced: prompting alone brings it back."
    assert (row.gap_closed.text, row.gain.text, row.dense_gain.text) == ("66.7\u00a0%", "+13.3\u00a0pt", "0\u00a0pt")
    assert (row.lost_back.text, row.never_back.text) == ("66.7\u00a0%", "0\u00a0%")


def test_it_is_not_said_where_the_dense_model_gains_as_much(make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(p20="prompt", dense_gain=BACK))
    assert not row.is_displaced
    assert row.sentence.startswith("Not enough evidence that knowledge was displaced: the dense model gains as much")
    assert row.beyond.text == "0\u00a0pt"


def test_it_is_not_said_where_the_dense_model_is_harmed_and_the_compressed_one_gains_nothing(make) -> None:  # type: ignore[no-untyped-def]
    """Lost items come back, and the gain lies beyond the dense model's: but nothing is won, only less is spoiled."""
    row = only(make(p20="prompt", dense_gain=-200, spoiled=BACK + 5))
    assert row.beyond.text.startswith("+")
    assert not row.is_displaced
    assert row.sentence.endswith("displaced: it does not make more items right, as far as these items can tell.")


def test_it_is_not_said_where_what_was_never_known_comes_as_often(make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(p20="prompt", helped=160))
    assert not row.is_displaced
    assert "lost items do not come back significantly more often" in row.sentence


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ("m_30pct_none", "Not answered: m_30pct_none was not measured on the same items in this run."),
        ("m_none_p20", "displaced: the dense model was not measured on the same items under the same recovery."),
    ],
)
def test_without_the_runs_beside_it_nothing_is_claimed(make, left_out: str, told: str) -> None:  # type: ignore[no-untyped-def]
    row = only(make(p20="prompt", left_out=(left_out,)))
    assert not row.is_displaced
    assert row.sentence.endswith(told)


def test_a_part_of_the_items_is_not_answered(make) -> None:  # type: ignore[no-untyped-def]
    bundle = make(p20="prompt")
    *others, last = bundle.cells
    task = last.runs["facts"]
    few = replace(
        task.outcomes,
        digests=task.outcomes.digests[:100],
        option_logliks_nats=None,
        **{name: getattr(task.outcomes, name)[:100] for name in ("correct", "answers", "ranks", "margins_nats", "near_ties")},
    )
    early = CellRun(last.record, {"facts": replace(task, items=task.items[:100], outcomes=few)})
    row = only(replace(bundle, cells=(*others, early)))
    assert row.sentence.startswith("Not answered: it was decided early")


def test_lost_items_are_split_by_what_brings_them_back(make) -> None:  # type: ignore[no-untyped-def]
    prompted, tuned = view_answer(make(p20="prompt", l8="lora")).rows
    assert prompted.lost == f"{BACK} by this, {LOST - BACK} by LoRA only, 0 by neither"
    assert not tuned.is_displaced
    assert tuned.sentence.startswith("Added weights were trained: what only they bring back was learnt again.")


def test_a_control_claims_nothing(make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(r20="random_prompt"))
    assert not row.is_displaced
    assert row.sentence.startswith("A control: nobody trained this prompt")


def test_relations_and_groups_are_folded_with_their_own_gap_and_split(make) -> None:  # type: ignore[no-untyped-def]
    bundle = make(p20="prompt", l8="lora")
    view = view_answer(bundle)
    prompted = view.parts[0]
    assert (prompted.cell, prompted.task, prompted.kind) == ("m_30pct_p20", "facts", "Relation")
    assert prompted.summary == f"8 relations, {BACK} of {LOST} lost items brought back"
    lost = [int(row.back.split(" of ")[1]) for row in prompted.rows]
    assert lost == sorted(lost, reverse=True)
    assert (sum(lost), sum(int(row.back.split(" of ")[0]) for row in prompted.rows)) == (LOST, BACK)
    first = prompted.rows[0]
    back, n_lost = map(int, first.back.split(" of "))
    assert first.gap_closed.text == f"{100 * back / n_lost:.1f}\u00a0%"
    assert first.lost == f"{back} by this, {n_lost - back} by LoRA only, 0 by neither"
    assert all(row.gap_closed.note == "" for row in prompted.rows if row.gap_closed.text == "undefined")
    assert view.parts[1].rows[0].lost == ""  # LoRA itself
    assert len(view.parts) == 2  # one task: its group of knowledge would say the same again


def test_tasks_of_one_group_of_knowledge_are_taken_together(make) -> None:  # type: ignore[no-untyped-def]
    bundle = make(p20="prompt")

    def twice(cell: CellRun) -> CellRun:
        again = replace(cell.runs["facts"], info=replace(cell.runs["facts"].info, name="again"))
        record = replace(cell.record, tasks={**cell.record.tasks, "again": again.info}, wall_s={"facts": 1.0, "again": 1.0})
        return CellRun(record, {**cell.runs, "again": again})

    cells = tuple(twice(cell) for cell in bundle.cells)
    dense = Reference.of_run(cells[0], "measured")
    made = replace(bundle, cells=cells, dense={"m": dense}, groups={"facts": "world_knowledge", "again": "world_knowledge"})
    table = view_answer(made).parts[0]
    assert (table.task, table.kind, table.summary) == (
        "",
        "Group of knowledge",
        "1 group of knowledge, 160 of 240 lost items brought back",
    )
    (row,) = table.rows
    assert (row.name, row.n_items, row.back) == ("world_knowledge", "1,200", "160 of 240")
    assert row.gap_closed.text == "66.7\u00a0%"


def test_it_is_on_the_page_and_the_same_again(make) -> None:  # type: ignore[no-untyped-def]
    pages = [report(make(p20="prompt", l8="lora"))["index.html"] for _ in range(2)]
    assert pages[0] == pages[1]
    text = pages[0].decode()
    assert "Forgotten or displaced" in text
    assert text.count("prompting alone brings it back") == 1
    assert np.count_nonzero([f"m_30pct_{name}-" in text for name in ("p20", "l8")]) == 2


def test_a_perplexity_is_no_item_that_could_be_lost(make) -> None:  # type: ignore[no-untyped-def]
    bundle = make(p20="prompt")
    cells = []
    for run in bundle.cells:
        task = run.runs["facts"]
        rolled = replace(task, info=replace(task.info, name="wikitext", score_class="perplexity"))
        cells.append(CellRun(run.record, {**run.runs, "wikitext": rolled}))
    view = view_answer(replace(bundle, cells=tuple(cells), groups={"facts": "g", "wikitext": "g"}))
    assert [row.task for row in view.rows] == ["facts"]
    assert all(table.task for table in view.parts), "of one task there is nothing to group"


def in_relations(bundle: RunBundle, n_relations: int, n_clusters: int | None, limit: int | None = None) -> RunBundle:
    """The same items in so many relations, of which a record tells ``n_clusters``."""

    def of_relations(cell: CellRun) -> CellRun:
        task = cell.runs["facts"]
        items = tuple(replace(item, group=f"P{i % n_relations}") for i, item in enumerate(task.items))
        info = replace(task.info, n_clusters=n_clusters, limit=limit)
        outcomes = replace(task.outcomes, digests=tuple(item.digest for item in items))
        record = replace(cell.record, tasks={"facts": info})
        return CellRun(record, {"facts": replace(task, info=info, items=items, outcomes=outcomes)})

    cells = tuple(of_relations(cell) for cell in bundle.cells)
    return replace(bundle, cells=cells, dense={"m": Reference.of_run(cells[0], "measured")}, baselines={})


def test_relations_that_stand_for_others_make_intervals_of_relations_like_these(make) -> None:  # type: ignore[no-untyped-def]
    bundle = make(p20="prompt")
    by_items, by_clusters = (find_answers(in_relations(bundle, 20, number))[0].answer for number in (None, 20))
    assert (by_items.gain.method, by_clusters.gain.method) == ("tango", "cluster t")
    assert by_clusters.gain.value == by_items.gain.value
    assert by_clusters.attribution.share.method == "cluster bootstrap"


def test_a_limited_run_that_asks_too_few_of_the_relations_answers_nothing(make) -> None:  # type: ignore[no-untyped-def]
    """By items it would say "displaced" of relations that nobody asked."""
    few = in_relations(make(p20="prompt"), 6, 6, limit=N)
    view = view_answer(few)
    assert [row.is_displaced for row in view.rows] == [False]
    assert view.rows[0].sentence == (
        "Not answered: its relations stand for others, and fewer than 10 were asked: ask more items."
    )
    strata = view_answer(in_relations(make(p20="prompt"), 6, 6))
    assert [row.is_displaced for row in strata.rows] == [True], "of a task that has but six relations each is asked"


def test_what_is_kept_of_the_dense_model_is_as_uncertain_as_relations_make_it(make) -> None:  # type: ignore[no-untyped-def]
    """Lost items all lie in the first relations: of others nobody knows, whatever the number of items."""
    bundle = make()

    def sorted_in(made: RunBundle) -> RunBundle:
        cells = []
        for cell in made.cells:
            task = cell.runs["facts"]
            items = tuple(replace(item, group=f"P{i // 30}") for i, item in enumerate(task.items))
            outcomes = replace(task.outcomes, digests=tuple(item.digest for item in items))
            cells.append(CellRun(cell.record, {"facts": replace(task, items=items, outcomes=outcomes)}))
        return replace(made, cells=tuple(cells), dense={"m": Reference.of_run(cells[0], "measured")})

    by_items, by_clusters = (
        compared_dense(sorted_in(in_relations(bundle, 20, number)))["m_30pct_none"]["facts"] for number in (None, 20)
    )
    for name in ("retention", "loss", "accuracy_dense", "accuracy_candidate"):
        narrow, wide = getattr(by_items, name), getattr(by_clusters, name)
        assert wide.value == pytest.approx(narrow.value)
        assert wide.low < narrow.low
        assert wide.high > narrow.high
    for made, told in ((in_relations(bundle, 20, 20), "cluster bootstrap"), (in_relations(bundle, 6, 6), "wilson")):
        found = accuracy_in(made, made.cells[1].record.cell, made.cells[1].runs["facts"])
        assert (found.value, found.method) == (by_items.accuracy_candidate.value, told)
    assert by_clusters.retention.high - by_clusters.retention.low > 2 * (by_items.retention.high - by_items.retention.low)


def test_of_too_few_relations_no_retention_is_told(make) -> None:  # type: ignore[no-untyped-def]
    made = compared_dense(in_relations(make(), 6, 6, limit=N))["m_30pct_none"]["facts"]
    assert made.retention == NotEstimable(
        "only 6 of the relations that stand for others were asked, and fewer than 10 say nothing of the rest"
    )
    assert isinstance(compared_dense(in_relations(make(), 6, 6))["m_30pct_none"]["facts"].retention, Estimate)
