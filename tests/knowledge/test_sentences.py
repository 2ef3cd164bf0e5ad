"""Which whole sentences a model can be asked, by a tokenizer that was made to join words."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from transformers import T5Tokenizer

from harness.core.records import Item
from harness.knowledge.facts import at_blank
from harness.knowledge.sentences import BEYOND_WINDOW, SPECIAL_TOKENS, askable_sentences

PIECES = ("▁into", "▁onto", "▁in", "▁on", "▁to", "▁is", "▁i", "▁o", "nto", "to")


@pytest.fixture
def tokenizer() -> Any:
    """T5's, with a few words and joined words as pieces of their own, and single letters for the rest."""
    letters = {letter: -10.0 for piece in PIECES for letter in piece}
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters.items(), *dict.fromkeys(PIECES, -1.0).items()]
    return T5Tokenizer(vocab=vocab, extra_ids=2)


def left_out(prompt: str, tokenizer: Any, *, takes_out: bool, options: tuple[str, ...] = ("in", "on")) -> dict[str, int]:
    excluded: Counter[str] = Counter()
    items = [Item("a", "P1", prompt, options, (0,))]
    kept = askable_sentences(
        items, lambda item: at_blank(item, "sentence"), tokenizer, excluded, takes_out=takes_out, merged="joined"
    )
    assert len(kept) + sum(excluded.values()) == 1
    return dict(excluded)


@pytest.mark.parametrize(
    ("prompt", "options", "is_joined"),
    [
        ("is [Y] to", ("in", "on"), False),
        ("[Y]to", ("in", "on"), False),  # a space stands behind it
        ("is in[Y]", ("to", "is"), True),  # one answer is enough
        ("is in [Y]", ("to", "is"), False),
        ("is i[Y]to", ("n", "o"), True),  # "into" is "i" and "nto", and with a space behind it "in" and "to"
    ],
)
def test_an_answer_that_is_joined_with_a_word_is_left_out_where_it_is_taken_out(
    prompt: str, options: tuple[str, ...], is_joined: bool, tokenizer: Any
) -> None:
    assert left_out(prompt, tokenizer, takes_out=False, options=options) == {}
    assert left_out(prompt, tokenizer, takes_out=True, options=options) == ({"joined": 1} if is_joined else {})


def test_a_sentence_counts_with_the_space_behind_its_answer_where_one_is_put(tokenizer: Any) -> None:
    prompt = "is [Y]to is"
    assert [tokenizer.tokenize(f"is {word}to is") for word in ("in", "on")] == [
        ["▁is", f"▁{w}to", "▁is"] for w in ("in", "on")
    ]
    tokenizer.model_max_length = 3 + SPECIAL_TOKENS
    assert left_out(prompt, tokenizer, takes_out=False) == {}
    assert left_out(prompt, tokenizer, takes_out=True) == {BEYOND_WINDOW: 1}
    tokenizer.model_max_length = 4 + SPECIAL_TOKENS
    assert left_out(prompt, tokenizer, takes_out=True) == {}


def test_what_is_too_long_is_not_counted_as_joined_too(tokenizer: Any) -> None:
    tokenizer.model_max_length = 2
    assert left_out("is in[Y]", tokenizer, takes_out=True, options=("to", "is")) == {BEYOND_WINDOW: 1}
