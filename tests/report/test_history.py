"""The history of baselines: read strictly, line by line, and drawn beside the run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.report import History, read_history
from harness.report.history import parse_history
from harness.report.sections.history import MOST_LOGGED, view_history

LINE = {
    "cell": "llama_8bit-rtn_none",
    "written": "added",
    "reason": "first",
    "commit": "abc",
    "measured_at": "2031-01-02T03:04:05Z",
    "weights_digest": "w",
    "record_digest": "r",
    "accuracy": {"facts": 0.5},
    "n_items": {"facts": 200},
}


def test_the_committed_history_is_read_as_it_is_written(request):
    path = request.config.rootpath / "baselines" / "embedded" / "history.jsonl"
    found = read_history(path)
    assert found.unreadable == ()
    assert len(found.entries) == len(path.read_text().splitlines()) > 0


def test_no_file_is_no_history(tmp_path):
    assert read_history(tmp_path / "history.jsonl") == History()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accuracy": {"facts": 1.2}}, "outside 0 to 1"),
        ({"accuracy": {"facts": float("nan")}}, "NaN"),
        ({"n_items": {"facts": 0}}, "of no items"),
        ({"n_items": {"other": 5}}, "different tasks"),
        ({"measured_at": "yesterday"}, "yesterday"),
        ({"cell": 5}, "cell"),
        ({"accuracy": None}, "accuracy"),
    ],
)
def test_a_line_that_can_not_be_right_is_told_and_left_out(change, said):
    text = "\n".join(json.dumps(line) for line in (LINE, LINE | change, LINE))
    found = parse_history(text.encode(), "history.jsonl")
    assert len(found.entries) == 2
    assert len(found.unreadable) == 1
    assert found.unreadable[0].startswith("history.jsonl, line 2")
    assert said in found.unreadable[0]


@pytest.mark.parametrize("line", [b"<<<<<<< HEAD", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_line_that_is_no_record_is_told(line):
    found = parse_history(json.dumps(LINE).encode() + b"\n" + line, "history.jsonl")
    assert len(found.entries) == 1
    assert found.unreadable[0].startswith("history.jsonl, line 2")


def test_keys_that_only_the_store_needs_are_not_in_the_way():
    found = parse_history(json.dumps(LINE | {"sigma": {"facts": 0.01}, "loosened": "why"}).encode(), "history.jsonl")
    assert found.entries[0].loosened == "why"


def test_a_cell_shows_its_acceptances_and_then_this_run(families):
    view = view_history(families)
    cell = view.cells[0]
    assert cell.cell == "llama_8bit-rtn_none", "cells of the run first, in their order"
    facts = cell.tasks[0]
    assert (facts.task, facts.n_accepted, facts.first.text, facts.last.text) == ("facts", "3", "55.0\u00a0%", "58.0\u00a0%")
    assert len(facts.trend.dots) == 4
    assert facts.trend.line.count("M") == 1, "only the first two were asked the same number of items"
    assert facts.trend.words.endswith(f"this run {facts.now.text}")


def test_a_cell_that_left_the_matrix_keeps_its_history(families):
    gone = view_history(families).cells[-1]
    assert gone.cell == "opt_gone_none"
    assert gone.tasks[0].now.text == "unknown"


def test_the_log_is_newest_first_and_says_what_was_loosened(families):
    view = view_history(families)
    assert view.log[0].cell == "opt_gone_none"
    assert [row.loosened for row in view.log if row.loosened] == ["the new items are <i>harder</i>"]
    assert len(view.unreadable) == 2


def test_a_long_history_is_cut_and_counted(families):
    entries = families.history.entries * 60
    view = view_history(replace(families, history=History(entries)))
    assert len(view.log) == MOST_LOGGED
    assert view.n_not_logged == str(len(entries) - MOST_LOGGED)


def test_foreign_text_in_a_history_is_inert(families_files):
    html = families_files["index.html"].decode()
    assert "first &lt;b&gt;baseline&lt;/b&gt;" in html
    assert "<i>harder</i>" not in html
    assert "a better⟨U+202E⟩ kernel" in html
