"""The leaderboard: what stands in it, what is bold, and in which forms."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellRun
from harness.core.verdicts import Estimate
from harness.report import Reference, RunBundle, make_leaderboard, render_leaderboard
from harness.report.leaderboard import Column, Entry, Leaderboard
from harness.stats.intervals import wilson

FACTS = Column("facts", "right", False)


def with_right(entry: CellRun, task: str, right: np.ndarray) -> CellRun:
    """A cell whose items of a task are right where ``right`` says so."""
    run = entry.runs[task]
    n = len(run.outcomes)
    made = Outcomes(
        digests=run.outcomes.digests,
        correct=right[:n],
        answers=run.outcomes.answers,
        ranks=np.where(right[:n], 1, 3).astype(np.int32),
        margins_nats=run.outcomes.margins_nats,
        near_ties=run.outcomes.near_ties,
        option_logliks_nats=run.outcomes.option_logliks_nats,
    )
    return replace(entry, runs={**entry.runs, task: replace(run, outcomes=made)})


def only(entry: CellRun, task: str, places: np.ndarray) -> CellRun:
    """A cell that was asked a part of a task's items, as ``--harness-limit`` or an early verdict leaves it."""
    run = entry.runs[task]
    made = replace(run, items=tuple(run.items[i] for i in places.tolist()), outcomes=run.outcomes.take(places))
    return replace(entry, runs={**entry.runs, task: made})


def without_dense(bundle: RunBundle, cells: Sequence[CellRun], dense: CellRun, model: str = "llama") -> RunBundle:
    """A run of some cells, whose dense cell is known from its baseline alone."""
    kept = {entry.record.cell.id for entry in cells}
    verdicts = tuple(verdict for verdict in bundle.verdicts if verdict.cell.id in kept)
    reference = replace(Reference.of_run(dense, "baseline"), cell=Cell(model, "none", "none"))
    return replace(bundle, cells=tuple(cells), verdicts=verdicts, dense={model: reference})


@pytest.fixture
def two(bundle: RunBundle) -> Any:
    """A bundle of one dense and two compressed cells whose facts are right in the shares that are asked for."""
    cells = [entry for entry in bundle.cells if isinstance(entry, CellRun) and "facts" in entry.runs]
    dense = next(entry for entry in cells if entry.record.cell.is_dense)
    others = [
        e for e in cells if not e.record.cell.is_dense and len(e.runs["facts"].outcomes) == len(dense.runs["facts"].outcomes)
    ]

    def make(first_right: int, second_right: int) -> tuple[RunBundle, CellRun, CellRun, CellRun]:
        n = len(dense.runs["facts"].outcomes)
        right = [np.arange(n) < k for k in (first_right, second_right)]
        chosen = [with_right(e, "facts", r) for e, r in zip(others[:2], right, strict=True)]
        kept = {dense.record.cell.id, *(e.record.cell.id for e in chosen)}
        verdicts = tuple(v for v in bundle.verdicts if v.cell.id in kept)
        made = replace(bundle, cells=(*chosen, dense), verdicts=verdicts, not_run=(), dense={})
        return made, dense, chosen[0], chosen[1]

    return make


def test_dense_comes_first_and_every_share_has_its_interval(two: Any) -> None:
    bundle, dense, first, second = two(60, 40)
    board = make_leaderboard(bundle)
    assert board.rows == tuple(entry.record.cell for entry in (dense, first, second))
    n = len(first.runs["facts"].outcomes)
    assert board.entries[first.record.cell, FACTS].mean == wilson(60, n, 0.95)
    assert FACTS in board.columns


def test_the_best_is_bold_only_where_it_is_significantly_best(two: Any) -> None:
    for first_right, second_right, is_best in ((80, 40, True), (42, 41, False), (41, 41, False)):
        bundle, dense, first, _ = two(first_right, second_right)
        board = make_leaderboard(bundle)
        best = {cell for cell in board.rows if board.entries[cell, FACTS].is_best}
        assert best == ({first.record.cell} if is_best else set())
        assert dense.record.cell not in best
        rows = [line for line in render_leaderboard(board, "md").splitlines() if line.startswith("| `")]
        place = 2 + board.columns.index(FACTS)
        assert ["**" in row.split("|")[place] for row in rows] == [False, is_best, False]


def test_csv_has_a_line_an_entry_and_latex_no_bare_special_signs(two: Any) -> None:
    board = make_leaderboard(two(80, 40)[0])
    rows = list(csv.DictReader(io.StringIO(render_leaderboard(board, "csv"))))
    assert len(rows) == len(board.entries)
    facts = [row for row in rows if (row["task"], row["measure"], row["mean"]) == ("facts", "right", "micro")]
    assert [row["cell"] for row in facts] == [cell.id for cell in board.rows]
    assert float(facts[1]["value"]) == board.entries[board.rows[1], FACTS].mean.value
    latex = render_leaderboard(board, "latex")
    body = latex.partition("\n")[2]
    assert body.count("\\begin{tabular}") == body.count("\\end{tabular}") == 1
    assert "\\textbf{" in body
    assert not any(line.replace("\\_", "").count("_") for line in body.splitlines())
    lines = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert {line.count("&") for line in lines} == {len(board.columns)}


@pytest.mark.parametrize(("chance", "measures"), [(1 / 4, {"right"}), (1 / 400, {"right", "P@10", "MRR"}), (0.0, {"right"})])
def test_only_tasks_that_rank_many_answers_have_p_at_10(chance: float, measures: set[str], two: Any) -> None:
    """A last word or a generated answer has no chance and no ranks: one that is wrong would be among the first ten."""
    bundle, *_ = two(60, 40)
    cells = tuple(
        replace(cell, runs={name: replace(run, info=replace(run.info, chance=chance)) for name, run in cell.runs.items()})
        for cell in bundle.cells
    )
    board = make_leaderboard(replace(bundle, cells=cells))
    assert {column.measure for column in board.columns if column.task == "facts"} == measures


@pytest.mark.parametrize("n_wrong", [1, 2, 20])
def test_no_interval_is_beyond_0_or_1(n_wrong: int, two: Any) -> None:
    bundle, _, first, _ = two(len(two(0, 0)[1].runs["facts"].outcomes) - n_wrong, 40)
    cells = tuple(
        replace(cell, runs={"facts": replace(run, info=replace(run.info, chance=1 / 400))})
        for cell in bundle.cells
        for run in [cell.runs["facts"]]
    )
    board = make_leaderboard(replace(bundle, cells=cells))
    column = Column("facts", "MRR", False)
    assert {column} < set(board.columns)
    for entry in board.entries.values():
        assert 0 <= entry.mean.low <= entry.mean.value <= entry.mean.high <= 1
    ranks = np.r_[np.ones(len(first.runs["facts"].outcomes) - n_wrong), np.full(n_wrong, 1 / 3)]
    assert board.entries[first.record.cell, column].mean.value == pytest.approx(ranks.mean())


def test_every_sign_that_latex_reads_as_its_own_is_escaped() -> None:
    cell = Cell("llama", "4bit-rtn", "none")
    column = Column("50%_of {a}&b#1$~^\\|x|", "right", False)
    entry = Entry(Estimate(0.5, 0.25, 0.75, 0.95, "wilson"), 8, 8, True)
    latex = render_leaderboard(Leaderboard((column,), (cell,), {(cell, column): entry}), "latex")
    assert latex.splitlines()[2] == (
        "Cell & 50\\%\\_of \\{a\\}\\&b\\#1\\$\\textasciitilde{}\\textasciicircum{}\\textbackslash{}|x| \\\\"
    )
    assert latex.splitlines()[3:5] == ["\\hline", "llama\\_4bit-rtn\\_none & \\textbf{50.0~\\% [25.0, 75.0]} \\\\"]
    markdown = render_leaderboard(Leaderboard((column,), (cell,), {(cell, column): entry}), "md")
    assert {line.count("|") - line.count("\\|") for line in markdown.splitlines() if line.startswith("|")} == {3}


def test_a_leaderboard_without_rows_is_a_table_all_the_same() -> None:
    empty = Leaderboard((), (), {})
    assert "\\begin{tabular}{l}\nCell \\\\\n\\end{tabular}" in render_leaderboard(empty, "latex")
    assert render_leaderboard(empty, "md").startswith("| Cell |\n| --- |\n")
    assert render_leaderboard(empty, "csv").count("\n") == 1


def test_relations_give_a_macro_column_beside_the_micro_one(synthetic: ModuleType, bundle: RunBundle) -> None:
    board = make_leaderboard(bundle)
    with_macro = {column.task for column in board.columns if column.is_macro}
    for name in {column.task for column in board.columns}:
        groups = {
            item.group
            for entry in bundle.cells
            if isinstance(entry, CellRun) and name in entry.runs
            for item in entry.runs[name].items
        }
        assert (name in with_macro) == (len(groups) >= 10)
    text = render_leaderboard(board, "md")
    assert len({line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")}) == 1


@pytest.mark.parametrize("n_asked", [1, 30, 120])
def test_a_dense_row_from_its_baseline_has_the_items_that_the_run_asked(n_asked: int, two: Any) -> None:
    """Of the others nobody knows what the cells below it say: a limited run had no dense row at all."""
    bundle, dense, first, second = two(60, 40)
    asked = np.arange(120)[::-1][:n_asked]
    cells = [only(entry, "facts", asked) for entry in (first, second)]
    board = make_leaderboard(without_dense(bundle, cells, dense))
    cell = dense.record.cell
    entry = board.entries[cell, FACTS]
    assert board.rows[0] == cell
    assert (entry.n_items, entry.n_all) == (n_asked, 120)
    assert entry.mean == wilson(int(dense.runs["facts"].outcomes.correct[asked].sum()), n_asked, 0.95)
    (row,) = (line for line in render_leaderboard(board, "md").splitlines() if line.startswith(f"| `{cell.id}`"))
    assert (f"({n_asked} of 120)" in row) == (n_asked < 120)
    assert board.unasked == ()


def test_a_dense_row_stays_where_its_baseline_has_none_of_the_items(two: Any) -> None:
    bundle, dense, first, second = two(60, 40)
    cells = [only(entry, "facts", np.arange(60)) for entry in (first, second)]
    board = make_leaderboard(without_dense(bundle, cells, only(dense, "facts", np.arange(60, 120))))
    cell = dense.record.cell
    assert board.unasked == ((cell, "facts"),)
    assert (cell, FACTS) not in board.entries
    text = render_leaderboard(board, "md")
    (row,) = (line for line in text.splitlines() if line.startswith(f"| `{cell.id}`"))
    assert row.split("|")[2 + board.columns.index(FACTS)].strip() == "–"
    said = f"The baseline of {cell.id} holds none of the items asked here of facts."
    assert text.splitlines()[-1].endswith(said)
    assert render_leaderboard(board, "latex").splitlines()[0].endswith(said)


def test_no_other_models_baseline_is_missed_where_nobody_asked_that_model(two: Any) -> None:
    bundle, dense, first, _ = two(60, 40)
    others = replace(
        only(dense, "facts", np.arange(60, 120)), runs={"facts": only(dense, "facts", np.arange(60, 120)).runs["facts"]}
    )
    board = make_leaderboard(without_dense(bundle, [only(first, "facts", np.arange(60))], others, "gpt"))
    assert board.rows == (first.record.cell,)
    assert board.unasked == ()


def asked_facts(bundle: RunBundle, answers: Sequence[np.ndarray], groups: np.ndarray) -> tuple[RunBundle, list[Cell]]:
    """A run of compressed cells that were asked facts in some relations: 1 right, 0 wrong, -1 not asked."""
    found = [e for e in bundle.cells if isinstance(e, CellRun) and not e.record.cell.is_dense and "facts" in e.runs]
    cells = []
    for entry, right in zip(found, answers, strict=False):
        run = entry.runs["facts"]
        items = tuple(replace(item, group=f"P{group:02}") for item, group in zip(run.items, groups.tolist(), strict=True))
        outcomes = replace(run.outcomes, digests=tuple(item.digest for item in items))
        whole = replace(entry, runs={"facts": replace(run, items=items, outcomes=outcomes)})
        cells.append(only(with_right(whole, "facts", right == 1), "facts", np.flatnonzero(right >= 0)))
    kept = [entry.record.cell for entry in cells]
    verdicts = tuple(verdict for verdict in bundle.verdicts if verdict.cell in kept)
    return replace(bundle, cells=tuple(cells), verdicts=verdicts, dense={}, baselines={}), kept


def best_of(bundle: RunBundle, column: Column) -> set[Cell]:
    return {cell for (cell, of), entry in make_leaderboard(bundle).entries.items() if of == column and entry.is_best}


ONE_RELATION = np.zeros(120, dtype=np.int64)


def test_the_best_by_relation_is_the_one_whose_relations_are_better(bundle: RunBundle) -> None:
    """Eleven small relations of twelve are known better, and the large one worse: by item it is behind."""
    groups = np.r_[np.zeros(65, dtype=np.int64), 1 + np.arange(55) % 11]
    many, large = (groups > 0).astype(int), (groups == 0).astype(int)
    made, (first, _) = asked_facts(bundle, [many, large], groups)
    assert best_of(made, Column("facts", "right", True)) == {first}
    assert best_of(made, FACTS) == set()
    swapped, (_, second) = asked_facts(bundle, [large, many], groups)
    assert best_of(swapped, Column("facts", "right", True)) == {second}


def test_a_row_that_was_asked_the_easy_items_is_not_ranked_by_its_mean(bundle: RunBundle) -> None:
    """It has 75 % of 40 items right, of which the row with 60 % of all has every one."""
    places = np.arange(120)
    whole = (places < 72).astype(int)
    part = np.where(places < 40, places < 30, -1)
    made, cells = asked_facts(bundle, [part, whole, (places < 10).astype(int)], ONE_RELATION)
    board = make_leaderboard(made)
    assert board.entries[cells[0], FACTS].mean.value > board.entries[cells[1], FACTS].mean.value
    assert best_of(made, FACTS) == {cells[1]}


@pytest.mark.parametrize(("asked", "is_best"), [((0, 0), False), ((0, 4), False), ((0, 60), True)])
def test_the_best_is_better_than_each_other_row_on_items_that_both_have(
    asked: tuple[int, int], is_best: bool, bundle: RunBundle
) -> None:
    """Of a third row that was asked next to nothing nobody knows whether it is worse."""
    places = np.arange(120)
    first, second = (places < 80).astype(int), (places < 40).astype(int)
    third = np.where((places >= asked[0]) & (places < asked[1]), 0, -1)
    if not (third >= 0).any():
        first[60:], third[60:] = -1, 0
    made, cells = asked_facts(bundle, [first, second, third], ONE_RELATION)
    assert best_of(made, FACTS) == ({cells[0]} if is_best else set())


@pytest.mark.parametrize("n_relations", [2, 9, 10])
def test_relations_that_stand_for_others_want_ten_shared_ones(n_relations: int, bundle: RunBundle) -> None:
    """A row that was cut short shares a few items with another one: two relations without a spread prove nothing."""
    groups = np.arange(120) % 12
    right = (groups < 11).astype(int)
    asked_few = np.full(120, -1)
    asked_few[:n_relations] = 0
    made, cells = asked_facts(bundle, [right, asked_few], groups)
    columns = make_leaderboard(made).columns
    assert {column.is_macro for column in columns} == {True, False}
    for column in columns:
        assert best_of(made, column) == ({cells[0]} if n_relations == 10 else set()), column


@pytest.mark.parametrize(("n_shared", "is_best"), [(2, False), (4, False), (5, True)])
def test_ranks_that_all_differ_by_the_same_are_tested_by_their_signs(n_shared: int, is_best: bool, bundle: RunBundle) -> None:
    right, asked_few = np.ones(120, dtype=int), np.full(120, -1)
    asked_few[:n_shared] = 0
    made, cells = asked_facts(bundle, [right, asked_few], ONE_RELATION)
    for column in make_leaderboard(made).columns:
        assert best_of(made, column) == ({cells[0]} if is_best else set()), column
