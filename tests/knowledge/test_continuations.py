"""Which documents are left out because a model can't be asked them: just those that its scorer would refuse."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.core.errors import ScoreError
from harness.core.records import Item
from harness.knowledge.continuations import BEYOND_WINDOW, NO_TOKENS, askable_documents
from harness.models.loaded import bos_or_eos
from harness.models.tiny_tokenizers import t5_tokenizer, tiny_tokenizer
from harness.scoring import Request
from harness.scoring.encode import encode_groups
from harness.scoring.pairs import encode_pairs
from harness.scoring.rolling import encode_pieces

WINDOW = 24
TOKENIZERS = {"decoder": tiny_tokenizer(), "seq2seq": t5_tokenizer()}
TEXTS = st.text(alphabet=" \nabeinst.?_é中🙂", max_size=30)


class Model:
    """What encoding needs of a model."""

    def __init__(self, family: str) -> None:
        self.tokenizer = TOKENIZERS[family]
        self.tokenizer.model_max_length = WINDOW
        self.prefix_token_id = bos_or_eos(self.tokenizer, None)  # type: ignore[arg-type]


def left_out(requests: list[Request], family: str) -> dict[str, int]:
    excluded: Counter[str] = Counter()
    items = [Item(str(n), "made_up", "", ("a",), (0,)) for n in range(len(requests))]
    asked = {item.digest: request for item, request in zip(items, requests, strict=True)}
    tokenizer = Model(family).tokenizer
    kept = askable_documents(items, lambda item: [asked[item.digest]], tokenizer, excluded, family=family)
    assert len(kept) + sum(excluded.values()) == len(items)
    return dict(excluded)


def refuses(request: Request, family: str) -> bool:
    model: Any = Model(family)
    try:
        if family == "seq2seq":
            encode_pairs([[request]], model, WINDOW)
        else:
            encode_pieces([[request]], model, WINDOW)
    except ScoreError:
        return True
    return False


@settings(deadline=None)
@pytest.mark.parametrize("family", ["decoder", "seq2seq"])
@given(context=TEXTS, continuation=TEXTS)
@example(context="Q:", continuation="")
@example(context="Q: ", continuation="")
@example(context="", continuation=" ")
@example(context="it i", continuation="s")
@example(context="It is", continuation=" ab" * 10)
@example(context="It is" + "\n" * 40, continuation="in")
@example(context=" " * 40, continuation="in")
@example(context="", continuation="<s>")
@example(context="", continuation="</s>")
@example(context=" ", continuation="</s>")
def test_what_is_left_out_is_what_the_scorer_refuses(context: str, continuation: str, family: str) -> None:
    request = Request(context, continuation)
    assert bool(left_out([request], family)) == refuses(request, family)


@settings(deadline=None)
@given(text=TEXTS)
@example(text="")
@example(text="word " * 60)
def test_rolling_texts_may_be_of_any_length_but_none(text: str) -> None:
    request = Request("", text, reading="rolling")
    assert left_out([request], "decoder") == ({NO_TOKENS: 1} if refuses(request, "decoder") else {})


@pytest.mark.parametrize("family", ["decoder", "seq2seq"])
def test_each_reason_is_counted_by_itself_and_a_long_context_is_none(family: str) -> None:
    good, empty, long = Request("It is " * 60, " in"), Request("It is", ""), Request("It is", " in" * 60)
    assert left_out([good, empty, long, good, long], family) == {NO_TOKENS: 1, BEYOND_WINDOW: 2}


def test_one_option_is_enough_to_leave_a_document_out() -> None:
    excluded: Counter[str] = Counter()
    item = Item("1", "made_up", "", ("in", ""), (0,))
    asked = [Request("It is", " in"), Request("It is", "")]
    assert askable_documents([item], lambda _: asked, Model("decoder").tokenizer, excluded, family=None) == []
    assert excluded == {NO_TOKENS: 1}


def test_nothing_is_tokenized_where_nothing_is_in_doubt() -> None:
    class Window:
        model_max_length = 2048

    items = [Item("1", "made_up", "", ("Riga",), (0,))]
    kept = askable_documents(items, lambda _: [Request("It is", " Riga")], Window(), Counter(), family="decoder")
    assert kept == items


def test_a_group_that_is_refused_names_what_was_asked() -> None:
    with pytest.raises(ScoreError, match=r"continuation '' has 0 tokens after context 'It is': expected 1 to 24"):
        encode_groups([[Request("It is", "")]], Model("decoder"), WINDOW)
