"""The encoder-decoder scorer: continuations as lm-eval scores them, gaps as the model's own loss says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from harness.core.errors import ConfigError, ModelError, ScoreError
from harness.models.loaded import LoadedModel
from harness.models.seq2seq import Seq2Seq
from harness.models.tiny import TINY_SEQ2SEQ
from harness.scoring import Request, Score
from harness.scoring.pairs import encode_pairs
from harness.scoring.seq2seq import Seq2SeqScorer

MakeModel = Callable[..., LoadedModel]

CITIES = ("Paris", "Berlin", "Lisbon", "New York City", "Antananarivo", "Saint-Denis")
SENTENCES = [
    [Request(f"The capital of {country} is", f" {city}", ".", "sentence") for city in CITIES] for country in ("France", "Togo")
]
BLANKS = [
    [Request(f"The capital of {country} is", f" {city}", ".", "blank") for city in CITIES] for country in ("France", "Togo")
]
CONTINUATIONS = [
    [Request("The capital of France is", f" {city}") for city in CITIES],
    [Request("Q: Which city? A: ", "Paris"), Request("Q: Which city? A:", " Paris"), Request("Q: Which", " city?")],
    [Request("", "same"), Request("", "same"), Request("", "</s>same"), Request("</s>starts with EOS", " and goes on")],
    [Request("The capital of France is Paris. " * 30, "Paris")],
    [],
]
MIXED = [*SENTENCES, [], *BLANKS, *CONTINUATIONS, [Request("", "The", " capital is", "blank"), Request("It's 3.5%", " of")]]

FLAN_T5: dict[str, Any] = {}
T5_1_0: dict[str, Any] = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
"""The first T5 ties its head to the embeddings and scales what goes into it."""


def lm_eval_scores(model: LoadedModel, groups: Sequence[Sequence[Request]]) -> list[tuple[float, bool]]:
    from lm_eval.api.instance import Instance  # noqa: TID251 - the reference that we are compared with
    from lm_eval.models.huggingface import HFLM  # noqa: TID251

    flat = [Instance("loglikelihood", {}, (r.context, r.continuation), i) for i, r in enumerate(itertools.chain(*groups))]
    reference = HFLM(pretrained=model.module, tokenizer=model.tokenizer, backend="seq2seq", batch_size=4, device="cpu")
    scores: list[tuple[float, bool]] = reference.loglikelihood(flat, disable_tqdm=True)
    return scores


def own_loss(model: LoadedModel, request: Request) -> float:
    """Σ log p of the answer (and the closing sentinel) by the model's own loss; the opening sentinel's part is taken off."""
    tokenizer = model.tokenizer
    opening, closing = tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>"])
    before = tokenizer.encode(request.context, add_special_tokens=False)
    whole = tokenizer.encode(request.context + request.continuation + request.after)
    answer = tokenizer.encode(request.continuation, add_special_tokens=False)
    assert whole[: len(before) + len(answer)] == before + answer
    context = torch.tensor([[*before, opening, *whole[len(before) + len(answer) :]]])
    target = [opening, *answer, *([closing] if request.reading == "sentence" else [])]
    with torch.inference_mode():
        losses = [model.module(input_ids=context, labels=torch.tensor([labels])).loss for labels in (target, target[:1])]
    return float(losses[1]) - len(target) * float(losses[0])


def largest_difference(a: list[list[Score]], b: list[list[Score]]) -> float:
    pairs = list(zip(itertools.chain(*a), itertools.chain(*b), strict=True))
    assert all(x.is_greedy == y.is_greedy and x.n_tokens == y.n_tokens for x, y in pairs)
    return max(abs(x.loglik_nats - y.loglik_nats) for x, y in pairs)


# ------------------------------------------------------------------------------------------------ what is scored


@pytest.mark.parametrize(("architecture", "changes"), [("t5", FLAN_T5), ("t5", T5_1_0), ("bart", {})])
def test_continuations_equal_lm_evals_own_model_class(
    architecture: str, changes: dict[str, Any], tiny_model: MakeModel
) -> None:
    model = tiny_model(architecture, **changes)
    ours = Seq2SeqScorer(model).score(CONTINUATIONS)
    for mine, theirs in zip(itertools.chain(*ours), lm_eval_scores(model, CONTINUATIONS), strict=True):
        assert mine.loglik_nats == pytest.approx(theirs[0], abs=1e-4)
        assert mine.is_greedy == theirs[1]


@pytest.mark.parametrize("changes", [FLAN_T5, T5_1_0])
def test_gaps_equal_the_models_own_loss(changes: dict[str, Any], tiny_model: MakeModel) -> None:
    model = tiny_model("t5", **changes)
    groups = [*SENTENCES, *BLANKS]
    for request, score in zip(itertools.chain(*groups), itertools.chain(*Seq2SeqScorer(model).score(groups)), strict=True):
        assert score.loglik_nats == pytest.approx(own_loss(model, request), abs=1e-4), request


def test_the_encoder_reads_the_sentences_own_tokens_around_the_sentinel(tiny_model: MakeModel) -> None:
    model = tiny_model("t5")
    sentence, blank = encode_pairs([[SENTENCES[0][0], BLANKS[0][0]]], model, 128)[0]
    text = model.tokenizer.convert_ids_to_tokens(sentence.context)
    assert text == ["▁The", "▁capital", "▁of", "▁Fr", "an", "ce", "▁is", "<extra_id_0>", ".", "</s>"]
    assert text[:7] == model.tokenizer.tokenize("The capital of France is")
    assert model.tokenizer.convert_ids_to_tokens(sentence.target)[:1] == ["<extra_id_0>"]
    assert sentence.target == (*blank.target, model.tokenizer.convert_tokens_to_ids("<extra_id_1>"))
    assert (sentence.n_scored, blank.n_scored) == (len(sentence.target) - 1, len(blank.target) - 1)


def test_only_the_models_own_choice_is_greedy(tiny_model: MakeModel) -> None:
    model = tiny_model("t5")
    pair = encode_pairs([[BLANKS[0][0]]], model, 128)[0][0]
    with torch.inference_mode():
        fed = torch.tensor([[model.module.config.decoder_start_token_id, pair.target[0]]])  # type: ignore[union-attr]
        choice = model.module(input_ids=torch.tensor([pair.context]), decoder_input_ids=fed).logits[0, -1].argmax()
    vocabulary = [token for token in range(len(model.tokenizer)) if token not in model.tokenizer.all_special_ids]
    words = [model.tokenizer.convert_ids_to_tokens(token) for token in vocabulary]
    asked = [
        Request("The capital of France is", f" {word[1:]}", ".", "blank") for word in words if len(word) > 1 and word[0] == "▁"
    ]
    scores = Seq2SeqScorer(model).score([asked])[0]
    greedy = [model.tokenizer.tokenize(r.continuation) for r, score in zip(asked, scores, strict=True) if score.is_greedy]
    assert greedy in ([], [[model.tokenizer.convert_ids_to_tokens(int(choice))]])


def test_bfloat16_is_near_the_float32_scores(tiny_model: MakeModel) -> None:
    exact = tiny_model("t5")
    half = Seq2SeqScorer(Seq2Seq().load(exact.folder, device="cpu", dtype="bfloat16"))
    for a, b in zip(half.score(SENTENCES)[0], Seq2SeqScorer(exact).score(SENTENCES)[0], strict=True):
        assert a.loglik_nats == pytest.approx(b.loglik_nats, rel=0.1)


# ------------------------------------------------------------------------------------------------ what is fed


def test_the_encoder_reads_each_context_once_and_the_decoder_each_target_once(tiny_model: MakeModel) -> None:
    model = tiny_model("t5")
    blank, again = Seq2SeqScorer(model), Seq2SeqScorer(model)
    seen: list[int] = []
    hook = model.module.get_submodule("encoder").register_forward_hook(
        lambda _m, _a, given, out: seen.append(len(out[0])), with_kwargs=True
    )
    try:
        options = [Request("The capital of France is", f" {word}", ".", "blank") for word in ("the", "is", "of")]
        blank.score([options, options])
        assert seen == [1]
        n_context = len(model.tokenizer.encode("The capital of France is")) + 2  # a sentinel, a full stop
        assert blank.tokens_fed == n_context + 2  # the start and the sentinel
        again.score([[Request(r.context, r.continuation, r.after, "sentence") for r in options]])
        assert again.tokens_fed == n_context + 3 * 3
    finally:
        hook.remove()


def test_scores_do_not_depend_on_what_else_is_in_the_batch(tiny_model: MakeModel) -> None:
    model = tiny_model("t5")
    together = Seq2SeqScorer(model).score(MIXED)
    for budget in (1, 40, 4096):
        assert largest_difference(together, Seq2SeqScorer(model, batch_tokens=budget).score(MIXED)) < 1e-4
    assert largest_difference(together, [Seq2SeqScorer(model).score([group])[0] for group in MIXED]) < 1e-4


def test_the_same_plan_gives_the_same_bits(tiny_model: MakeModel) -> None:
    scorer = Seq2SeqScorer(tiny_model("t5"))
    assert scorer.score(MIXED) == scorer.score(MIXED)


def test_progress_counts_groups_up_to_all_of_them(tiny_model: MakeModel) -> None:
    told: list[tuple[int, int]] = []
    Seq2SeqScorer(tiny_model("t5"), batch_tokens=30, progress=lambda *at: told.append(at)).score(MIXED)
    assert told[-1] == (len(MIXED), len(MIXED))
    assert told == sorted(told)
    assert len(set(told)) > 3


def test_nothing_to_score_gives_nothing_and_no_random_number_is_drawn(tiny_model: MakeModel) -> None:
    before = torch.get_rng_state()
    scorer = Seq2SeqScorer(tiny_model("t5"))
    assert scorer.score([]) == []
    assert scorer.score([[], []]) == [[], []]
    scorer.score(MIXED)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------ what is refused


def test_a_reading_that_encoder_decoders_do_not_have_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="family 'seq2seq' can't score the reading 'rolling'"):
        Seq2SeqScorer(tiny_model("t5")).score([[Request("", "a b", "", "rolling")]])


@pytest.mark.parametrize("reading", ["sentence", "blank"])
def test_a_model_without_sentinels_can_not_be_asked_for_a_gap(reading: Any, tiny_model: MakeModel) -> None:
    with pytest.raises(ModelError, match=r"has no sentinel <extra_id_0>: it can't be asked for the text at a gap"):
        Seq2SeqScorer(tiny_model("bart")).score([[Request("a", " b", ".", reading)]])


@pytest.mark.parametrize("architecture", TINY_SEQ2SEQ)
def test_what_does_not_fit_the_window_is_refused_where_it_can_not_be_cut(architecture: str, tiny_model: MakeModel) -> None:
    scorer = Seq2SeqScorer(tiny_model(architecture))
    assert scorer.score([[Request("a" * 999, "." * 100)]])[0][0].n_tokens <= 101
    with pytest.raises(ScoreError, match="expected 1 to 128"):
        scorer.score([[Request("a", ".!" * 200)]])
    if architecture == "t5":
        with pytest.raises(ScoreError, match="within the model's window of 128"):
            scorer.score([[Request(".!" * 99, " b", ".", "blank")]])


@pytest.mark.parametrize("request_", [Request("a", ""), Request("", ""), Request("", "</s>")])
def test_a_continuation_without_tokens_is_refused(request_: Request, tiny_model: MakeModel) -> None:
    with pytest.raises(ScoreError, match="has 0 tokens"):
        Seq2SeqScorer(tiny_model("t5")).score([[request_]])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error(value: float, tiny_model: MakeModel) -> None:
    model = tiny_model("t5", initializer_factor=0.5)  # its own copy: the weights are broken below
    with torch.no_grad():
        model.module.get_parameter("decoder.block.1.layer.2.DenseReluDense.wo.weight")[0, 0] = value
    with pytest.raises(ScoreError, match=r"is nan: the weights of T5ForConditionalGeneration or its dtype \(float32\)"):
        Seq2SeqScorer(model).score(SENTENCES)


def test_a_decoder_that_looks_ahead_is_refused(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As UMT5's does in transformers 5.17."""
    sees_all = torch.zeros(1, 1, 1, 1)
    monkeypatch.setattr("transformers.models.t5.modeling_t5.create_causal_mask", lambda **_: sees_all)
    with pytest.raises(ModelError, match=r"T5ForConditionalGeneration in .* looks ahead"):
        Seq2SeqScorer(tiny_model("t5"))


def test_a_model_of_experts_gets_its_own_kind_of_encoder_output_back(tiny_model: MakeModel, drawn: Any) -> None:
    t5 = tiny_model("t5")
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "num_experts": 2}
    config = SwitchTransformersConfig(vocab_size=len(t5.tokenizer), decoder_start_token_id=0, n_positions=128, **sizes)
    model = replace(t5, module=drawn(lambda: SwitchTransformersForConditionalGeneration(config)))
    scorer = Seq2SeqScorer(model)
    flat = [(score.loglik_nats, score.is_greedy) for group in scorer.score(CONTINUATIONS) for score in group]
    for (loglik, greedy), (expected, expected_greedy) in zip(flat, lm_eval_scores(model, CONTINUATIONS), strict=True):
        assert loglik == pytest.approx(expected, abs=1e-3)
        assert greedy == expected_greedy


def test_a_budget_below_one_token_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        Seq2SeqScorer(tiny_model("t5"), batch_tokens=0)
