"""The encoder scorer: the scores of one mask at a time, of transformers' own pipeline, and nothing fed twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import pipeline

from harness.core.errors import ConfigError, ScoreError
from harness.models.encoder import Encoder
from harness.models.loaded import LoadedModel
from harness.models.tiny import TINY_ENCODERS
from harness.scoring import Request, Score
from harness.scoring.encoder import EncoderScorer

MakeModel = Callable[..., LoadedModel]

CITIES = ("Paris", "Berlin", "Lisbon", "New York City", "Antananarivo", "Saint-Denis", "Ōsaka")
SENTENCES = [
    [Request(f"The capital of {country} is", f" {city}", ".", "sentence") for city in CITIES] for country in ("France", "Togo")
]
BLANKS = [
    [Request(f"The capital of {country} is", f" {city}", ".", "blank") for city in CITIES] for country in ("France", "Togo")
]
MIXED = [
    *SENTENCES,
    [],
    *BLANKS,
    [Request("", "same", "", "sentence"), Request("", "same", "", "sentence"), Request("", "The", " capital", "blank")],
    [Request("It's 3.5% of 12,345; isn't", " it", "?", "sentence"), Request("a", " b ", " c", "blank")],
]


def one_mask_at_a_time(model: LoadedModel, request: Request) -> tuple[float, bool, int]:
    """One request through transformers alone, a row at a time, written without looking at the engine."""
    tokenizer = model.tokenizer
    read = tokenizer(request.context + request.continuation + request.after)
    ids, words = read["input_ids"], read.word_ids()
    if request.reading == "blank":
        another = tokenizer.encode(
            request.context + request.continuation.replace(request.continuation.strip(), "7") + request.after
        )
        n_before = n_common(ids, tokenizer.encode(request.context)) if request.context else 1
        answer = list(range(n_before, len(ids) - n_common(ids[::-1], another[::-1])))
        hidden = dict.fromkeys(answer, answer)
    else:
        hidden = {i: [j for j in range(i, len(ids)) if words[j] == word] for i, word in enumerate(words) if word is not None}
    total, greedy = 0.0, True
    for place, masks in hidden.items():
        row = [tokenizer.mask_token_id if i in masks else token for i, token in enumerate(ids)]
        with torch.inference_mode():
            logits = model.module(input_ids=torch.tensor([row])).logits[0, place].float()
        total += float(logits.log_softmax(-1)[ids[place]])
        greedy &= int(logits.argmax()) == ids[place]
    return total, greedy, len(hidden)


def n_common(some: list[int], others: list[int]) -> int:
    """How many tokens two rows begin with alike."""
    return next(i for i, (a, b) in enumerate(zip(some, others, strict=False)) if a != b)


def assert_equals_loop(model: LoadedModel, groups: Sequence[Sequence[Request]], scores: list[list[Score]]) -> None:
    for request, score in zip(itertools.chain(*groups), itertools.chain(*scores), strict=True):
        expected, greedy, n_tokens = one_mask_at_a_time(model, request)
        assert score.loglik_nats == pytest.approx(expected, abs=1e-4), request
        assert (score.is_greedy, score.n_tokens) == (greedy, n_tokens), request


def largest_difference(a: list[list[Score]], b: list[list[Score]]) -> float:
    pairs = list(zip(itertools.chain(*a), itertools.chain(*b), strict=True))
    assert all(x.is_greedy == y.is_greedy and x.n_tokens == y.n_tokens for x, y in pairs)
    return max(abs(x.loglik_nats - y.loglik_nats) for x, y in pairs)


# ------------------------------------------------------------------------------------------------ what is scored


@pytest.mark.parametrize("architecture", TINY_ENCODERS)
def test_scores_equal_one_mask_at_a_time(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    scorer = EncoderScorer(model)
    assert not scorer.reads_everywhere
    assert_equals_loop(model, MIXED, scorer.score(MIXED))


@pytest.mark.parametrize(
    ("architecture", "after"), [*((name, " .") for name in TINY_ENCODERS), ("bert", "."), ("roberta", ".")]
)
def test_blank_scores_equal_transformers_fill_mask_pipeline(architecture: str, after: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    fill: Any = pipeline("fill-mask", model=model.module, tokenizer=model.tokenizer, device="cpu", top_k=len(model.tokenizer))
    theirs = {found["token"]: found["score"] for found in fill(f"The capital of France is {fill.tokenizer.mask_token}{after}")}
    answers = [
        text for text in ("Paris", "the", "of", "a", "x", "is", "Z") if len(model.tokenizer.tokenize(f"of {text}")) == 2
    ]
    assert len(answers) >= 2
    scores = EncoderScorer(model).score([[Request("The capital of France is", f" {a}", after, "blank") for a in answers]])[0]
    for text, score in zip(answers, scores, strict=True):
        token = model.tokenizer.encode(f"of {text}", add_special_tokens=False)[-1]
        assert score.loglik_nats == pytest.approx(float(torch.tensor(theirs[token]).log()), abs=1e-4)
        assert score.is_greedy == (theirs[token] == max(theirs.values()))


def test_pieces_of_a_word_are_not_in_sight_of_each_other_from_the_left(tiny_model: MakeModel) -> None:
    """Masking one token only, as in Salazar et al. (2020), gives other scores for words of several tokens, and only there."""
    model = tiny_model("bert")

    def original(text: str) -> float:
        ids, total = model.tokenizer.encode(text), 0.0
        for place in range(1, len(ids) - 1):
            row = [model.tokenizer.mask_token_id if i == place else token for i, token in enumerate(ids)]
            with torch.inference_mode():
                total += float(model.module(torch.tensor([row])).logits[0, place].log_softmax(-1)[ids[place]])
        return total

    whole, pieces = EncoderScorer(model).score(
        [[Request("", "the capital", "", "sentence"), Request("", "quito", "", "sentence")]]
    )[0]
    assert (whole.n_tokens, pieces.n_tokens) == (2, 5)
    assert whole.loglik_nats == pytest.approx(original("the capital"), abs=1e-4)
    assert abs(pieces.loglik_nats - original("quito")) > 0.1


def test_an_answer_of_several_tokens_says_so(tiny_model: MakeModel) -> None:
    model = tiny_model("bert")
    scores = EncoderScorer(model).score([[Request("the", f" {answer}", ".", "blank") for answer in ("capital", "Quito")]])[0]
    assert [score.n_tokens for score in scores] == [1, 5]


def test_half_precision_is_near_the_float32_scores(tiny_model: MakeModel) -> None:
    exact = tiny_model("bert")
    half = EncoderScorer(Encoder().load(exact.folder, device="cpu", dtype="bfloat16"))
    for a, b in zip(half.score(SENTENCES)[0], EncoderScorer(exact).score(SENTENCES)[0], strict=True):
        assert a.loglik_nats == pytest.approx(b.loglik_nats, rel=0.05)


# ------------------------------------------------------------------------------------------------ what is fed


def test_options_of_one_token_share_the_row_in_which_they_are_masked(tiny_model: MakeModel) -> None:
    model = tiny_model("bert")
    options = ["is", "of", "the"]
    n_tokens = len(model.tokenizer.encode("the capital is of."))
    blank, sentence = EncoderScorer(model), EncoderScorer(model)
    blank.score([[Request("the capital is", f" {option}", ".", "blank") for option in options]])
    assert blank.tokens_fed == n_tokens
    sentence.score([[Request("the capital is", f" {option}", ".", "sentence") for option in options]])
    n_words = n_tokens - 2
    assert sentence.tokens_fed == (len(options) * (n_words - 1) + 1) * n_tokens


def test_scores_do_not_depend_on_what_else_is_in_the_batch(tiny_model: MakeModel) -> None:
    model = tiny_model("bert")
    together = EncoderScorer(model).score(MIXED)
    for budget in (1, 40, 4096):
        assert largest_difference(together, EncoderScorer(model, batch_tokens=budget).score(MIXED)) < 1e-4
    assert largest_difference(together, [EncoderScorer(model).score([group])[0] for group in MIXED]) < 1e-4


def test_the_same_plan_gives_the_same_bits(tiny_model: MakeModel) -> None:
    scorer = EncoderScorer(tiny_model("roberta"))
    assert scorer.score(MIXED) == scorer.score(MIXED)


def test_a_head_that_looks_at_other_places_is_found_and_read_everywhere(tiny_model: MakeModel) -> None:
    model = tiny_model("bert")
    handle = model.module.get_submodule("cls").register_forward_pre_hook(
        lambda _, given: (given[0] - given[0].mean(dim=1, keepdim=True),)
    )
    try:
        scorer = EncoderScorer(model)
        assert scorer.reads_everywhere
        assert_equals_loop(model, SENTENCES, scorer.score(SENTENCES))
    finally:
        handle.remove()


def test_progress_counts_groups_up_to_all_of_them(tiny_model: MakeModel) -> None:
    told: list[tuple[int, int]] = []
    EncoderScorer(tiny_model("bert"), batch_tokens=60, progress=lambda *at: told.append(at)).score(MIXED)
    assert told[-1] == (len(MIXED), len(MIXED))
    assert told == sorted(told)
    assert len(set(told)) > 3


def test_nothing_to_score_gives_nothing_and_no_random_number_is_drawn(tiny_model: MakeModel) -> None:
    before = torch.get_rng_state()
    scorer = EncoderScorer(tiny_model("bert"))
    assert scorer.score([]) == []
    assert scorer.score([[], []]) == [[], []]
    scorer.score(BLANKS)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("reading", ["continuation", "rolling"])
def test_a_reading_that_encoders_do_not_have_is_refused(reading: Any, tiny_model: MakeModel) -> None:
    with pytest.raises(
        ConfigError, match=f"family 'encoder' can't score the reading '{reading}': expected 'sentence' or 'blank'"
    ):
        EncoderScorer(tiny_model("bert")).score([[Request("a", " b", "", reading)]])


@pytest.mark.parametrize("architecture", TINY_ENCODERS)
def test_a_sentence_may_fill_the_window_and_not_more(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    full = Request("", "." * 126, "", "blank") if architecture != "albert" else Request("", "." * 125, "", "blank")
    assert len(model.tokenizer.encode(full.continuation)) == 128
    assert EncoderScorer(model).score([[full]])[0][0].n_tokens == 126
    with pytest.raises(
        ScoreError, match="has 129 tokens, 2 of them special: expected a text within the model's window of 128"
    ):
        EncoderScorer(model).score([[Request("", f"{full.continuation}.", "", "blank")]])


@pytest.mark.parametrize(
    "request_", [Request("", "", "", "sentence"), Request("a", " ", ".", "blank"), Request("a", "", "", "blank")]
)
def test_nothing_at_the_blank_is_refused(request_: Request, tiny_model: MakeModel) -> None:
    with pytest.raises(ScoreError, match=r"expected (a text|one at least)"):
        EncoderScorer(tiny_model("bert")).score([[request_]])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error(value: float, tiny_model: MakeModel) -> None:
    model = tiny_model("bert", initializer_range=0.01)  # its own copy: the weights are broken below
    with torch.no_grad():
        model.module.get_parameter("bert.encoder.layer.1.output.dense.weight")[0, 0] = value
    with pytest.raises(ScoreError, match=r"is nan: the weights of BertForMaskedLM or its dtype \(float32\) are broken"):
        EncoderScorer(model).score(SENTENCES)


def test_a_budget_below_one_token_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        EncoderScorer(tiny_model("bert"), batch_tokens=0)
