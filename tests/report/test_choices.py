"""What the page says of a choice among prompts: the histogram, its controls, and plainly where nothing was chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from harness.core.records import Cell, CellRun
from harness.core.verdicts import POOLED, ChoiceShift, Status
from harness.report import RunBundle, report
from harness.report.sections.choices import ChoiceRow, view_choices

N = 400
LENGTHS = [10, 20, 40]


@pytest.fixture(scope="module")
def make(synthetic: ModuleType):  # type: ignore[no-untyped-def]
    """A bundle of one chooser and its controls. Prompt k alone has right what ``right[k]`` says of an item's number."""

    def made(chosen: Any, *, right: Any, left_out: tuple[Any, ...] = (), warning: str = "", before: Any = None) -> RunBundle:
        maker = synthetic.Maker(N)

        def run(choice: Any, is_right: Any, choices: Any) -> CellRun:
            name = "idp" if choice == "attention" else f"idp-{choice}"
            cell = Cell("m", "30pct", name)
            whole = maker.run(cell, synthetic.make_compression("none", 16.0, 269_060_552), (0, 0), (0, 0), ("facts",))
            outcomes = replace(synthetic.make_outcomes(maker.items["facts"], is_right, cell.id), choices=choices)
            recipe = {"method": "idp", "lengths": LENGTHS, "choice": choice, "mode": "exact"}
            record = replace(whole.record, recovery_method="idp", recovery_recipe=recipe, recovery_tensors="t")
            return CellRun(record, {"facts": replace(whole.runs["facts"], outcomes=outcomes)})

        rows = tuple(chosen(i) for i in range(N))
        runs = [run("attention", lambda i: right[rows[i][0]](i), rows), run("random", lambda i: right[i % 3](i), None)]
        runs += [run(k, right[k], None) for k in range(3)]
        cells = tuple(one for one in runs if one.record.recovery_recipe["choice"] not in left_out)
        verdicts = [maker.verdict(one, {POOLED: Status.PASS}, {}) for one in cells]
        if warning:
            shift = ChoiceShift(N, (1.0, 2.0, 3.0), (3.0, 2.0, 1.0), 4, 0.001, warning)
            verdicts[0] = replace(verdicts[0], tasks=(replace(verdicts[0].tasks[0], choice=shift),))
        baselines = dict(maker.baselines)
        if before is not None:
            known = baselines["m_30pct_idp"]
            was = replace(known.outcomes["facts"], choices=tuple(before(i) for i in range(N)))
            baselines["m_30pct_idp"] = replace(known, outcomes={**known.outcomes, "facts": was})
        return RunBundle(
            profile="embedded",
            policy="commit",
            cells=cells,
            verdicts=tuple(verdicts),
            started_at="2031-05-06T07:00:00Z",
            ended_at="2031-05-06T07:00:21Z",
            exit_code=0,
            command="make gate",
            baselines=baselines,
        )

    return made


def only(bundle: RunBundle) -> ChoiceRow:
    (row,) = view_choices(bundle).rows
    return row


BY_THIRDS = {k: (lambda i, k=k: i % 3 == k or i % 5 == 0) for k in range(3)}
"""Each prompt has a third of the items right, and all of them a fifth."""


def test_always_the_same_prompt_is_said_first_and_plainly(make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(lambda i: (1,), right=BY_THIRDS))
    assert row.sentence.startswith("It chose prompt 1 (20 tokens) for every one of 400 items: its answers are that prompt's ")
    assert [bar.share for bar in row.bars] == ["0\u00a0%", "100\u00a0%", "0\u00a0%"]
    assert [bar.length for bar in row.bars] == ["0.0", "120.0", "0.0"]


def test_a_choice_that_finds_the_right_prompt_beats_its_controls(make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(lambda i: (i % 3,), right=BY_THIRDS))
    assert row.sentence == (
        "It chose prompt 0 (10 tokens) for 33.5\u00a0% of 400 items. "
        "Choosing has more right than a random choice and than the best single prompt."
    )
    assert (row.accuracy.text, row.oracle.text, row.random.text) == ("100\u00a0%", "100\u00a0%", "46.7\u00a0%")
    assert row.open_items == "320 of 400"
    assert row.drawn.text == "100\u00a0%"  # this draw happens to be the same choice


def test_a_random_choice_is_worth_nothing(make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(lambda i: ((i // 3) % 3,), right=BY_THIRDS))
    assert row.sentence.endswith("That choosing is better than a random choice, or than the best single prompt, is not shown.")


@pytest.mark.parametrize("left_out", [(0, 1, 2), (1,)])
def test_without_the_single_prompts_the_histogram_stands_alone(left_out: tuple[int, ...], make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(lambda i: (i % 2,), right=BY_THIRDS, left_out=left_out))
    told = ", ".join(map(str, left_out))
    assert row.sentence.endswith(f"in this run; cells with choice = {told} are missing or not measured whole.")
    assert "never prompt 2 (40 tokens)" in row.sentence
    assert (row.best.text, row.oracle.text) == ("unknown", "unknown")


def test_items_behind_several_prompts_count_in_equal_parts(make) -> None:  # type: ignore[no-untyped-def]
    row = only(make(lambda i: (0, 2) if i < 4 else (1,), right=BY_THIRDS))
    assert [bar.items for bar in row.bars] == ["2", "396", "2"]
    assert row.several == "4 behind several, in equal parts"
    assert "nearly always" in row.sentence


def test_it_is_in_every_file_and_the_same_again(make) -> None:  # type: ignore[no-untyped-def]
    bundle = make(lambda i: (i % 3,), right=BY_THIRDS, warning="the choice moved", before=lambda i: (2,))
    files = report(bundle)
    assert files == report(bundle)
    page = files["index.html"].decode()
    assert "<strong>Early warning:</strong> <bdi>the choice moved</bdi>" in page
    assert 'aria-label="prompt 2 (40 tokens): 33.2\u00a0%, 100\u00a0% in the baseline"' in page
    assert "early warning: the choice moved" in files["junit.xml"].decode()
    summary = files["summary.md"].decode()
    assert "### Prompt choice" in summary
    assert "- **early warning** `m_30pct_idp`: the choice moved" in summary
    cells = {cell["id"]: cell for cell in json.loads(files["report.json"])["run"]["cells"]}
    chosen = cells["m_30pct_idp"]["choices"]["facts"]
    assert chosen["counts"] == [134, 133, 133]
    assert chosen["worth"]["oracle"]["value"] == 1
    assert cells["m_30pct_idp-0"]["choices"] == {}
    assert cells["m_30pct_idp"]["verdict"]["tasks"][0]["choice"]["warning"] == "the choice moved"


def test_a_pass_that_goes_on_is_not_bounded_by_its_controls(make) -> None:  # type: ignore[no-untyped-def]
    """All prompts alike alone: a choice among them changes nothing, but reading them all may."""
    bundle = make(lambda i: (i % 3,), right=dict.fromkeys(range(3), lambda i: i % 2 == 0))
    exact = only(bundle)
    assert exact.sentence.endswith("no choice could change anything.")
    chooser, *controls = bundle.cells
    recipe = {**chooser.record.recovery_recipe, "mode": "continue"}
    goes_on = replace(chooser, record=replace(chooser.record, recovery_recipe=recipe))
    row = only(replace(bundle, cells=(goes_on, *controls)))
    assert "no choice could change anything" not in row.sentence
    assert row.sentence.endswith("it may be right where none of them is.")


def test_the_baseline_is_drawn_on_the_items_of_this_run(make) -> None:  # type: ignore[no-untyped-def]
    """A sample of the first hundred items, which the baseline asked behind prompt 0, and all others behind prompt 2."""
    bundle = make(lambda i: (0,), right=BY_THIRDS, before=lambda i: (0,) if i < 100 else (2,))
    chooser, *controls = bundle.cells
    task = chooser.runs["facts"]
    columns = ("digests", "correct", "answers", "ranks", "margins_nats", "near_ties", "choices")
    few = replace(task.outcomes, option_logliks_nats=None, **{name: getattr(task.outcomes, name)[:100] for name in columns})
    info = replace(task.info, n_items=100, limit=100)
    sample = replace(chooser, runs={"facts": replace(task, info=info, items=task.items[:100], outcomes=few)})
    row = only(replace(bundle, cells=(sample, *controls)))
    assert [bar.before for bar in row.bars] == ["120.0", "0.0", "0.0"]


def test_a_perplexity_has_a_histogram_and_no_accuracy(make) -> None:  # type: ignore[no-untyped-def]
    bundle = make(lambda i: (i % 3,), right=BY_THIRDS)
    cells = []
    for run in bundle.cells:
        task = run.runs["facts"]
        cells.append(replace(run, runs={"facts": replace(task, info=replace(task.info, score_class="perplexity"))}))
    row = only(replace(bundle, cells=tuple(cells)))
    assert row.sentence.endswith("is not known: nothing of a perplexity is right or wrong.")
    assert {row.accuracy.text, row.oracle.text, row.drawn.text} == {"unknown"}
    assert len(row.bars) == 3
