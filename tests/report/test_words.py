"""Numbers and verdicts in words: never nicer than they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.verdicts import CellVerdict, NotEstimable, Status
from harness.report import format as fmt
from harness.report.sections.banner import say_verdict
from harness.report.status import (
    IDENTICAL,
    INVALID,
    PASS,
    UNFINISHED,
    UNINFORMATIVE,
    cell_status,
    exit_meaning,
    overall_status,
)
from harness.report.view import accuracy_view, anchor


@given(st.fractions(0, 1).map(float))
def test_zero_and_hundred_percent_are_printed_only_when_exact(fraction):
    number = fmt.percent(fraction).removesuffix(f"{fmt.NBSP}%")
    assert (number == "0") == (fraction == 0)
    assert (number == "100") == (fraction == 1)
    if number not in ("0", "100"):
        assert number.startswith(("<", ">")) or float(number) not in (0.0, 100.0)


@given(st.floats(-1, 1))
def test_a_difference_keeps_its_sign_and_zero_is_exact(fraction):
    text = fmt.points(fraction)
    assert (text == f"0{fmt.NBSP}pt") == (fraction == 0)
    if fraction:
        assert (fmt.MINUS in text) == (fraction < 0)
        assert text.strip(f"+<>{fmt.MINUS} pt{fmt.NBSP}0.") != ""


@given(st.text())
def test_shown_text_has_no_control_character_but_tabs_and_line_breaks(text):
    shown = fmt.visible(text)
    assert not any((ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\ufeff")
    shown.encode("utf-8")


def test_ordinary_text_is_shown_as_it_is():
    text = "naïve ليما 東京 👩‍👩‍👧‍👦 a\nb"
    assert fmt.visible(text) == text


def test_long_text_is_cut_with_a_mark():
    assert fmt.visible("a" * 500, 10) == "a" * 10 + "…"


def test_what_is_not_estimable_is_undefined_with_its_reason():
    shown = accuracy_view(NotEstimable("nothing was right before"))
    assert (shown.text, shown.interval, shown.note) == ("undefined", "", "nothing was right before")


@given(st.lists(st.text(max_size=5), min_size=1, max_size=3), st.lists(st.text(max_size=5), min_size=1, max_size=3))
def test_anchors_of_different_words_differ(one, other):
    if one != other and not any("--" in part or part.startswith("-") or part.endswith("-") for part in one + other):
        assert anchor(*one) != anchor(*other) or "" in one + other


def test_the_sentence_names_the_worst_cell_and_its_loss(bundle):
    said = say_verdict(bundle)
    lost = fmt.points(bundle.verdict_of("llama_3bit-rtn_none").pooled.evidence.loss.value, signed=False).split(fmt.NBSP)[0]
    assert said.startswith(f"1 of 7 cells lost knowledge: llama_3bit-rtn_none, by {lost} points of all items (between ")
    assert "2 of 7 cells could not be measured or compared." in said
    assert said.endswith("1 declared cell and 1 declared task did not run and are not judged.")


def test_a_cell_without_a_pool_can_be_the_worst_one(bundle):
    """Here it lost most on one task while its pool is INVALID, and another cell's pool is red too."""
    before = bundle.verdict_of("llama_4bit-rtn_none")
    facts, *others = before.tasks
    lost = replace(facts.evidence, loss=replace(facts.evidence.loss, value=0.9, low=0.85, high=0.95))
    pool = replace(before.pooled, status=Status.INVALID, evidence=None)
    red = replace(before, tasks=(replace(facts, status=Status.REGRESSED, evidence=lost), *others), pooled=pool)
    verdicts = tuple(red if cell.cell == before.cell else cell for cell in bundle.verdicts)
    said = say_verdict(replace(bundle, verdicts=verdicts))
    assert "2 of 7 cells lost knowledge: most of all llama_4bit-rtn_none on facts, by 90.0 points of all items" in said


def test_a_green_run_says_so_and_no_more(synthetic):
    green = synthetic.make_green_bundle(40)
    assert say_verdict(green) == "All 3 cells keep what the baseline knew, every answer unchanged."
    assert overall_status(green) is IDENTICAL


def test_an_interrupted_run_is_never_a_pass(synthetic):
    broken = replace(synthetic.make_green_bundle(40), exit_code=2)
    assert overall_status(broken) is UNFINISHED
    assert say_verdict(broken).startswith("The run did not end well (interrupted before the end)")


def test_a_failed_test_is_not_called_a_regression(synthetic):
    assert exit_meaning(replace(synthetic.make_green_bundle(40), exit_code=1)) == "a failed test, no regression"


def test_nothing_measured_is_not_a_pass(synthetic):
    empty = replace(synthetic.make_empty_bundle(), exit_code=0)
    assert overall_status(empty).word == "not run"
    assert say_verdict(empty).startswith("Nothing was measured")


def test_a_cell_is_as_bad_as_its_worst_case(bundle):
    verdict = bundle.verdict_of("llama_none_none")
    assert cell_status(verdict) is IDENTICAL
    assert cell_status(None) is INVALID
    changed = replace(verdict, tasks=(replace(verdict.tasks[0], identical=False), *verdict.tasks[1:]))
    assert cell_status(changed) is PASS
    silent = tuple(replace(task, status=Status.UNINFORMATIVE, identical=False) for task in verdict.tasks)
    assert cell_status(CellVerdict(verdict.cell, "embedded", silent, None)) is UNINFORMATIVE


@pytest.mark.parametrize("exit_code", [0, 1, 2, 3, 4, 5, 10, 11])
def test_every_exit_code_has_a_meaning(synthetic, exit_code):
    assert "not one of" not in exit_meaning(replace(synthetic.make_empty_bundle(), exit_code=exit_code))
