"""Names, shelves, digests, probes: the small things that everything stands on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.digest import digest_json, digest_named
from harness.core.errors import CellIdError, MissingDependencyError, ScoreError, UnknownNameError
from harness.core.outcomes import Outcomes
from harness.core.probes import NGRAM_WORDS, ProbeIndex, words
from harness.core.records import Cell, Item, ItemOutcome
from harness.core.shelf import Shelf
from harness.core.verdicts import POOLED, RECOVERED, CellVerdict, PairedCounts, Status, Verdict

PART = st.from_regex(r"[a-z0-9][a-z0-9.\-]{0,8}", fullmatch=True)


@given(PART, PART, PART)
def test_a_cell_id_parses_back(model: str, compression: str, recovery: str) -> None:
    cell = Cell(model, compression, recovery)
    assert Cell.parse(cell.id) == cell


@pytest.mark.parametrize(
    "bad", ["a_b", "a_b_c_d", "../x_none_none", "a/b_none_none", "A_none_none", "_none_none", "a b_c_d", ""]
)
def test_a_cell_id_with_path_characters_or_wrong_parts_is_refused(bad: str) -> None:
    with pytest.raises(CellIdError):
        Cell.parse(bad)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    shelf = Shelf("compression", {"4bit-rtn": "math:pi", "none": "math:e"})
    with pytest.raises(UnknownNameError, match="did you mean '4bit-rtn'"):
        shelf.load("4bit-rtm")


def test_a_shelf_can_be_asked_whether_it_has_a_name() -> None:
    shelf = Shelf("thing", {"good": "math:pi"})
    assert "good" in shelf
    assert "bad" not in shelf


def test_a_shelf_imports_only_what_is_asked_for() -> None:
    shelf = Shelf("thing", {"good": "math:pi", "broken": "no_such_package_xyz.mod:x"})
    assert shelf.load("good") > 3
    with pytest.raises(MissingDependencyError, match="no_such_package_xyz"):
        shelf.load("broken")


def test_a_digest_does_not_depend_on_key_order_but_on_content() -> None:
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    assert digest_json([1, 2]) != digest_json([2, 1])
    assert digest_named({"x": "1", "y": "2"}) != digest_named({"x": "12", "y": ""})


ITEM = Item("capital:FR", "capital", "The capital of France is [Y].", ("Paris", "Rome"), (0,))


@pytest.mark.parametrize(
    "changed",
    [
        Item("capital:FR", "capital", "The capital of France is [Y] .", ("Paris", "Rome"), (0,)),
        Item("capital:FR", "capital", "The capital of France is [Y].", ("Rome", "Paris"), (0,)),
        Item("capital:FR", "capital", "The capital of France is [Y].", ("Paris", "Rome"), (1,)),
        Item("capital:FR", "capital", "The capital of France is [Y].", ("Paris", "Rome", "Oslo"), (0,)),
    ],
)
def test_any_change_of_an_item_changes_its_digest(changed: Item) -> None:
    assert changed.digest != ITEM.digest


def test_an_item_whose_gold_points_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="gold"):
        Item("x", "g", "p", ("a",), (1,))


def test_a_nan_score_never_becomes_an_outcome() -> None:
    row = ItemOutcome(0, True, 1, float("nan"), False, (0.0,))
    with pytest.raises(ScoreError, match="NaN"):
        Outcomes.of(("d",), [row])


def test_the_loss_is_positive_when_more_is_lost_than_gained() -> None:
    assert PairedCounts(n_lost=3, n_gained=1, n_unchanged=96).loss == pytest.approx(0.02)


def test_what_a_text_shares_with_the_probes_is_found_whatever_case_and_marks_it_has() -> None:
    index = ProbeIndex.of(["The capital of France is Paris.", "Oslo is cold."])
    assert index.overlaps("He said: the CAPITAL of   France, is…") == [("the", "capital", "of", "france", "is")]
    assert index.overlaps("Everybody knows that Oslo is cold, yes.") == [("oslo", "is", "cold")]
    assert index.overlaps("The capital of Spain is Madrid. Paris is in France.") == []


@given(st.lists(st.text(alphabet="ab ", min_size=1), max_size=5), st.text(alphabet="ab ", max_size=60))
def test_overlaps_are_exactly_the_shared_ngrams(sentences: list[str], text: str) -> None:
    index = ProbeIndex.of(sentences)
    tokens = words(text)
    grams = {tuple(tokens[i : i + n]) for n in range(1, NGRAM_WORDS + 1) for i in range(len(tokens) - n + 1)}
    assert set(index.overlaps(text)) == {gram for gram in index.grams if gram in grams}


def test_every_verdict_of_a_cell_is_put_into_a_run_s_words() -> None:
    def one(task: str) -> Verdict:
        return Verdict("m_c_r", task, Status.PASS, False, False, f"see {task}", None)

    told = CellVerdict(Cell("m", "c", "r"), "p", (one("facts"),), one(POOLED), one(RECOVERED)).said(str.upper)
    assert [verdict.reason for verdict in told.all] == ["SEE FACTS", "SEE POOLED", "SEE RECOVERY"]
