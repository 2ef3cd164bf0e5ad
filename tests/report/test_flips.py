"""What the page lists of the items that changed sides: fairly shared, honestly scored, nothing silently left out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.records import Item
from harness.report import report
from harness.report.budget import share_out
from harness.report.listing import MOST_ROWS, comparisons, listed, shares, split
from harness.report.pairs import Answer, Flip, compared_flips, pair
from harness.report.scores import LONGEST_TEXT, MOST_OPTIONS, pick_options, view_scores
from harness.report.sections.flips import view_flips


def make_flip(
    logliks: tuple[tuple[float, ...] | None, tuple[float, ...] | None] = ((-1.0, -3.0, -9.0), (-4.0, -2.5, -8.0)),
    chosen: tuple[int | None, int | None] = (0, 1),
    texts: tuple[str | None, str | None] = (None, None),
    lost: bool = True,
    n_options: int = 3,
) -> Flip:
    item = Item("x/1", "capital", "The capital of X is [Y].", tuple(f"option {i}" for i in range(n_options)), (0,))
    before, now = (
        Answer(choice, text, rank, margin, scores)
        for choice, text, rank, margin, scores in zip(chosen, texts, (1, 2), (2.0, -1.5), logliks, strict=True)
    )
    return Flip(item, lost, False, before, now)


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 200))
def test_room_is_shared_until_it_is_used_and_nobody_gets_more_than_a_hungry_other(sizes, room):
    got = share_out(sizes, room)
    assert sum(got) == min(room, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(got, sizes, strict=True))
    hungry = [share for share, size in zip(got, sizes, strict=True) if share < size]
    assert not hungry or max(got) <= min(hungry) + 1


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 200))
def test_more_room_never_takes_anything_away(sizes, room):
    assert all(a <= b for a, b in zip(share_out(sizes, room), share_out(sizes, room + 1), strict=True))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 70))
def test_a_larger_share_lists_all_of_a_smaller_one(n_lost, n_gained, share):
    lost, gained = split(n_lost, n_gained, share)
    assert lost + gained == min(share, n_lost + n_gained)
    more = split(n_lost, n_gained, share + 1)
    assert more[0] >= lost
    assert more[1] >= gained


def test_a_share_lists_the_first_of_each_direction(bundle):
    found = max(compared_flips(bundle), key=lambda found: min(found.n_lost, found.n_gained))
    every, some = list(found), list(listed(found, 6))
    lost, gained = ([flip for flip in every if flip.lost is side] for side in (True, False))
    assert len(lost) > 3
    assert len(gained) > 3
    assert some == [*lost[:3], *gained[:3]]
    assert found[-1] == every[-1]
    assert list(found[2:4]) == every[2:4]


def test_comparisons_with_baselines_go_first_and_leave_room_for_those_with_the_dense_model(synthetic, monkeypatch):
    bundle = synthetic.make_bundle(120)
    compared = comparisons(bundle)
    names = [found.against for found in compared]
    assert names == sorted(names, key=lambda name: name != "baseline")
    room = shares(compared, 40)
    assert sum(room) == 40
    assert sum(share for share, name in zip(room, names, strict=True) if name == "dense model") == 16


def test_what_is_not_listed_is_counted_and_every_link_still_leads_somewhere(synthetic, monkeypatch):
    for module in ("harness.report.listing", "harness.report.sections.flips"):
        monkeypatch.setattr(f"{module}.MOST_ROWS", 60)
    bundle = synthetic.make_bundle(120)
    view = view_flips(bundle)
    n_all = sum(map(len, compared_flips(bundle)))
    assert len(view.flips) == 60 < n_all
    assert view.left_out.startswith(f"60 of {n_all} flips are listed, of each comparison those whose lead moved most")
    html = report(bundle)["index.html"].decode()
    links = set(re.findall(r'href="#(flips--[^"]+)"', html))
    assert links
    assert links <= set(re.findall(r'<tbody id="([^"]+)"', html))


def test_the_page_lists_every_flip_of_a_small_run_once(bundle):
    view = view_flips(bundle)
    counted = sum(map(len, compared_flips(bundle)))
    assert len(view.flips) == counted < MOST_ROWS
    assert "are listed" not in view.left_out
    keys = [(row.cell, row.task, row.against, row.item) for row in view.flips]
    assert len(set(keys)) == len(keys)


def test_of_each_comparison_lost_items_come_first_and_the_largest_movement_first(bundle):
    for found in map(list, compared_flips(bundle)):
        assert [flip.lost for flip in found] == sorted((flip.lost for flip in found), reverse=True)
        for one, other in pairwise(found):
            if one.lost == other.lost:
                moved = [abs(flip.candidate.margin_nats - flip.reference.margin_nats) for flip in (one, other)]
                assert moved[0] >= moved[1]


def test_a_bar_is_as_long_as_the_option_is_behind_the_best_of_its_own_run():
    view = view_scores(make_flip(), "baseline")
    shown = {option.text: option for option in view.options}
    assert [option.text for option in view.options] == ["option 1", "option 0", "option 2"], "best for the candidate first"
    assert shown["option 0"].before.is_best
    assert shown["option 1"].now.is_best
    assert (shown["option 0"].now.nats, shown["option 0"].now.behind) == ("−4.00", "−1.50")
    assert float(shown["option 0"].now.bar) == pytest.approx(150 * 1.5 / 8, abs=0.05)
    assert float(shown["option 2"].before.bar) == 150
    assert shown["option 0"].marks == ("right", "said before")
    assert shown["option 1"].marks == ("says now",)
    assert view.notes == ("The right answer’s rank: 1 before, 2 now, of 3 options.",)


def test_scores_that_were_not_kept_are_said_and_never_drawn():
    one_side = view_scores(make_flip(logliks=(None, (-4.0, -2.5, -8.0))), "dense model")
    assert "The dense model’s scores were not kept." in one_side.notes
    assert {(option.before.nats, option.before.bar) for option in one_side.options} == {("not kept", "")}
    assert view_scores(make_flip(logliks=(None, None)), "baseline") is None


def test_a_score_that_is_no_number_is_said():
    view = view_scores(make_flip(logliks=((-1.0, float("-inf"), -2.0), (-4.0, -2.5, -8.0))), "baseline")
    assert next(option for option in view.options if option.text == "option 1").before.nats == "not finite"


def test_of_a_whole_vocabulary_the_right_one_both_answers_and_the_best_are_shown():
    n = 500
    flip = make_flip((tuple(-1.0 * i for i in range(n)), tuple(-1.0 * (n - i) for i in range(n))), (0, 499), n_options=n)
    view = view_scores(flip, "baseline")
    assert len(view.options) == MOST_OPTIONS
    assert view.n_hidden == "488"
    assert {"option 0", "option 499"} <= {option.text for option in view.options}
    assert set(pick_options(flip, 2)) == {0, 499}


def test_generated_answers_are_shown_cut_in_the_table_and_whole_below(families, families_files):
    rows = [row for row in view_flips(families).flips if row.task == "trivia"]
    assert rows
    assert {(row.lead_before, row.lead_now) for row in rows} == {("–", "–")}
    assert any(row.before.note == "none of the options" or row.now.note == "none of the options" for row in rows)
    assert any(row.now.text == "(empty)" for row in rows)
    long = next(row for row in rows if row.now.text.startswith("a very long answer"))
    assert len(long.now.text) < 80
    assert "more characters are in report.json" in long.scores.text_now
    assert len(long.scores.text_now) < LONGEST_TEXT + 60
    html = families_files["index.html"].decode()
    assert "<script>alert(" not in html
    assert "&lt;script&gt;alert(&#39;generated&#39;)" in html


def test_of_a_generated_answer_in_a_baseline_the_row_says_how_it_was_read(families):
    rows = [row for row in view_flips(families).flips if row.task == "trivia" and row.against == "baseline"]
    assert {row.before.note for row in rows} == {"its words were not kept"}
    assert all(row.before.text in row.gold for row in rows if row.side == "lost")
    assert {row.before.text for row in rows if row.side == "gained"} == {"none of the options"}
    assert all(row.scores.text_now and not row.scores.text_before for row in rows if row.scores)
    beside_dense = [row for row in view_flips(families).flips if row.task == "trivia" and row.against == "dense model"]
    assert any(row.scores.text_before for row in beside_dense if row.scores)


def test_a_row_without_scores_says_why(families):
    rows = view_flips(families).flips
    assert all(row.scores is not None or row.why_no_scores for row in rows)
    stored = [row for row in rows if row.task == "cloze" and row.scores is not None]
    assert stored
    assert all("scores were not kept" in row.scores.notes[0] for row in stored)


def test_a_cell_that_was_decided_early_is_compared_on_the_items_it_was_asked(families):
    run = next(run for run in families.cells if run.record.cell.id == "t5_4bit-rtn_none").runs["facts"]
    known = families.baselines["t5_4bit-rtn_none"]
    assert len(run.outcomes) < len(known.outcomes["facts"])
    assert pair(run, known).reference is known.outcomes["facts"]
    other = replace(known, outcomes={"facts": replace(known.outcomes["facts"], digests=("x",) * 60)})
    assert pair(run, other) is None


def test_a_whole_run_is_not_compared_with_a_baseline_of_more_items(bundle):
    run = next(run for run in bundle.cells if run.record.cell.id == "llama_4bit-rtn_none").runs["facts"]
    part = replace(run, info=replace(run.info, n_items=24), items=run.items[:24], outcomes=_first(run.outcomes, 24))
    assert pair(part, bundle.baselines["llama_4bit-rtn_none"]) is None


def _first(outcomes, n):
    columns = ("digests", "correct", "answers", "ranks", "margins_nats", "near_ties", "option_logliks_nats")
    return replace(outcomes, **{name: getattr(outcomes, name)[:n] for name in columns})


def test_report_json_has_every_flip_and_says_null_where_scores_are_left_out(synthetic, monkeypatch):
    monkeypatch.setattr("harness.report.raw.MOST_SCORED", 50)
    bundle = synthetic.make_bundle(60)
    run = json.loads(report(bundle)["report.json"])["run"]
    flips = [f for cell in run["cells"] for task in cell["flips"].values() for found in task.values() for f in found]
    assert len(flips) == sum(map(len, compared_flips(bundle))) > 50
    assert sum(flip["options"] is not None for flip in flips) == 50


def test_report_json_has_a_flip_a_line(files):
    lines = files["report.json"].decode("utf-8", errors="replace").splitlines()
    flips = [line for line in lines if '"answer_candidate"' in line]
    assert len(flips) > 20
    assert all(isinstance(json.loads(line.strip().rstrip(",")), dict) for line in flips)
