"""Where the answer's tokens lie in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import T5Tokenizer

from harness.core.errors import ScoreError
from harness.models.loaded import LoadedModel
from harness.scoring import Request
from harness.scoring.gap import as_read, read_sentences

MakeModel = Callable[..., LoadedModel]

ARCHITECTURES = ("bert", "roberta", "albert", "t5")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("answer", ["Paris", "of", "Quito", "New York", "3.5 %", "Saint-Denis", "the yen"])
@pytest.mark.parametrize(
    ("before", "after"), [("The capital is", "."), ("", " is the capital."), ("(It is", ")?"), ("a ", "")]
)
def test_the_answers_tokens_spell_the_answer(
    architecture: str, answer: str, before: str, after: str, tiny_model: MakeModel
) -> None:
    model = tiny_model(architecture)
    space = " " if before and not before.endswith(" ") else ""
    sentence = read_sentences([Request(before, f"{space}{answer}", after, "blank")], model, 128)[0]

    def spell(tokens: tuple[int, ...]) -> str:
        return "".join(str(model.tokenizer.decode(tokens, skip_special_tokens=True)).lower().split())

    assert spell(sentence.answer) == answer.lower().replace(" ", "")
    assert spell(sentence.without_answer()) == (before + after).lower().replace(" ", "")


@pytest.mark.parametrize("architecture", ["roberta", "t5", "albert"])
def test_the_space_before_an_answer_is_the_answers(architecture: str, tiny_model: MakeModel) -> None:
    """Or an answer that begins with a rare letter would show by a space left in the context."""
    model = tiny_model(architecture)
    context = "The capital is"
    for answer in ("Quito", "of"):
        sentence = read_sentences([Request(context, f" {answer}", ".", "blank")], model, 128)[0]
        n_special = sum(word is None for word in sentence.words)
        n_before = len(model.tokenizer.encode(context, add_special_tokens=False))
        assert len(sentence.tokens) - len(sentence.gap) == n_special + n_before + 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_answer_that_shares_a_token_with_the_text_before_it_can_not_be_taken_out(
    architecture: str, tiny_model: MakeModel
) -> None:
    with pytest.raises(ScoreError, match=r"'The cap\[ital\] of France' shares a token with the text around it"):
        read_sentences([Request("The cap", "ital", " of France", "blank")], tiny_model(architecture), 128)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_token_of_the_answer_and_what_follows_puts_a_space_behind_every_answer_of_that_context(
    architecture: str, tiny_model: MakeModel
) -> None:
    model = tiny_model(architecture)
    group = [Request("The", f" {answer}", "ital of France", "blank") for answer in ("cap", "x")]
    other = [Request("A", " x", "ital of France", "blank"), Request("The", " x", "ital of France", "sentence")]
    apart = [Request("The", f" {answer}", " ital of France", "blank") for answer in ("cap", "x")]
    assert read_sentences([*group, *other], model, 128)[:2] == read_sentences(apart, model, 128)
    assert read_sentences([*group, *other], model, 128)[2:] == read_sentences(other, model, 128)
    assert read_sentences(group[1:], model, 128) != read_sentences(apart[1:], model, 128)


def test_a_gap_is_looked_for_only_where_it_is_asked_for(tiny_model: MakeModel) -> None:
    model = tiny_model("bert")
    blank, sentence = read_sentences([Request("a", " b", ".", reading) for reading in ("blank", "sentence")], model, 128)  # type: ignore[arg-type]
    assert (len(blank.gap), len(sentence.gap)) == (1, 0)
    assert blank.tokens == sentence.tokens


def tokens_of_t5(*pieces: str) -> Any:
    """A T5 tokenizer that has these pieces, besides single letters, which it takes where it must."""
    letters = {letter: -10.0 for piece in pieces for letter in piece} | {"▁": -10.0}
    vocab = [*((token, 0.0) for token in ("<pad>", "</s>", "<unk>")), *({**letters, **dict.fromkeys(pieces, -1.0)}.items())]
    return T5Tokenizer(vocab=vocab, extra_ids=2)


def test_a_group_is_told_as_it_is_read(tiny_model: MakeModel) -> None:
    model = tiny_model("t5")
    asked: list[tuple[list[Request], list[Request] | None]] = [
        ([Request("The cap", "ital", " of France", "blank")], None),
        ([Request("The", " cap", "ital of France", "sentence")], [Request("The", " cap", " ital of France", "sentence")]),
        ([Request("The", " cap", " of France", "sentence")], [Request("The", " cap", " of France", "sentence")]),
    ]
    for group, read in asked:
        assert as_read(group, model.tokenizer) == read
        if read is None:
            with pytest.raises(ScoreError, match="shares a token with the text around it"):
                read_sentences(group, model, 128)
        else:
            assert read_sentences(group, model, 128, gaps=("blank", "sentence")) == read_sentences(
                read, model, 128, gaps=("blank", "sentence")
            )


def test_the_space_behind_an_answer_may_join_it_with_the_word_before_it() -> None:
    """ "into" is "i" and "nto", so that a space is put behind the "n", and then "in" is one token."""
    tokenizer = tokens_of_t5("▁i", "nto", "▁in", "▁to")
    assert tokenizer.tokenize("into") == ["▁i", "nto"]
    assert tokenizer.tokenize("in to") == ["▁in", "▁to"]
    assert as_read([Request("i", "n", "to", "sentence")], tokenizer) is None


def test_an_answer_without_tokens_is_refused_before_it_is_read() -> None:
    with pytest.raises(ScoreError, match=r"'is\[\]it' has no tokens of its answer"):
        as_read([Request("is", "", "it", "sentence")], tokens_of_t5("▁is", "it"))
