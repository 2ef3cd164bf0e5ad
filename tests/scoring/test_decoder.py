"""The decoder scorer: the scores of a plain transformers loop and of lm-eval, whichever path it takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel

from harness.core.errors import ConfigError, ModelError, ScoreError
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.tiny import TINY, fill
from harness.models.tiny_tokenizers import tiny_tokenizer
from harness.scoring import Request, Score
from harness.scoring.decoder import DecoderScorer
from harness.scoring.limits import deepest_path

MakeModel = Callable[..., LoadedModel]

TAKES_NO_TREE = {"bloom", "mamba"}
ATTENDS_ALONE = {"falcon", "gemma2"}

CITIES = (
    "Paris",
    "Berlin",
    "Lisbon",
    "Tokyo",
    "Rome",
    "Ottawa",
    "Nairobi",
    "Athens",
    "Madrid",
    "Antananarivo",
    "Oslo",
    "Riga",
)
SENTENCES = [[Request("", f"The capital of {country} is {city}.") for city in CITIES] for country in ("France", "Japan")]
MIXED = [
    *SENTENCES,
    [Request("The capital of France is", f" {city}") for city in CITIES],
    [Request("Q: Which city? A: ", "Paris"), Request("Q: Which city? A:", " Paris"), Request("Q: Which", " city?")],
    [Request("a", "b")],
    [],
    [Request("", "same"), Request("", "same"), Request("", "<s>same")],
    [Request("<s>starts with BOS", " and goes on"), Request("line\n", "\n  spaces  ")],
]

EXAMPLES = "Q: France? A: Paris. Q: Japan? A: Tokyo."
FEW_SHOT = [
    [Request(f"{EXAMPLES} Q: {country}? A:", f" {city}") for city in ("Rome", "Riga")]
    for country in ("Italy", "Latvia", "Peru")
]


def transformers_loop(model: LoadedModel, request: Request) -> tuple[float, bool]:
    """One request through transformers alone, written without looking at the engine."""
    tokenizer, context, continuation = model.tokenizer, request.context, request.continuation
    moved = len(context) - len(context.rstrip())
    if moved:
        context, continuation = context[:-moved], context[-moved:] + continuation
    if context:
        special = not context.startswith(tokenizer.bos_token)
        before = tokenizer.encode(context, add_special_tokens=special)
        after = tokenizer.encode(context + continuation, add_special_tokens=special)[len(before) :]
    else:
        before, after = [model.prefix_token_id], tokenizer.encode(continuation, add_special_tokens=False)
        if after[0] == before[0]:
            after = after[1:]
    with torch.inference_mode():
        logits = model.module(torch.tensor([before + after[:-1]])).logits[0, -len(after) :]
    logprobs = logits.float().log_softmax(-1)
    total = sum(float(logprobs[i, token]) for i, token in enumerate(after))
    return total, logits.argmax(-1).tolist() == after


def lm_eval_scores(model: LoadedModel, groups: Sequence[Sequence[Request]]) -> list[list[tuple[float, bool]]]:
    from lm_eval.api.instance import Instance  # noqa: TID251 - the reference that we are compared with
    from lm_eval.models.huggingface import HFLM  # noqa: TID251

    flat = [Instance("loglikelihood", {}, (r.context, r.continuation), i) for i, r in enumerate(itertools.chain(*groups))]
    reference = HFLM(pretrained=model.module, tokenizer=model.tokenizer, batch_size=4, device="cpu")
    scores = iter(reference.loglikelihood(flat, disable_tqdm=True))
    return [[next(scores) for _ in group] for group in groups]


def largest_difference(a: list[list[Score]], b: list[list[Score]]) -> float:
    pairs = [(x, y) for ga, gb in zip(a, b, strict=True) for x, y in zip(ga, gb, strict=True)]
    assert all(x.is_greedy == y.is_greedy and x.n_tokens == y.n_tokens for x, y in pairs)
    return max(abs(x.loglik_nats - y.loglik_nats) for x, y in pairs)


def assert_equals_loop(
    model: LoadedModel, groups: Sequence[Sequence[Request]], scores: list[list[Score]], nats: float
) -> None:
    for group, row in zip(groups, scores, strict=True):
        for request, score in zip(group, row, strict=True):
            expected, greedy = transformers_loop(model, request)
            assert score.loglik_nats == pytest.approx(expected, abs=nats), request
            assert score.is_greedy == greedy, request


# ------------------------------------------------------------------------------------------------ every architecture


@pytest.mark.parametrize("architecture", TINY)
def test_scores_equal_a_plain_transformers_loop(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    scorer = DecoderScorer(model)
    assert scorer.path == (
        "plain" if architecture in TAKES_NO_TREE else "padded" if architecture in ATTENDS_ALONE else "packed"
    )
    groups = MIXED[:3] if architecture == "mamba" else MIXED
    assert_equals_loop(model, groups, scorer.score(groups), nats=1e-4)


@pytest.mark.parametrize("architecture", TINY)
def test_examples_before_every_item_are_fed_once_and_change_no_score(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    scorer = DecoderScorer(model, pass_tokens=4)
    assert scorer.keeps_stems == (architecture not in TAKES_NO_TREE)
    groups = [*FEW_SHOT, *SENTENCES, FEW_SHOT[0]]
    assert_equals_loop(model, groups, scorer.score(groups), nats=1e-4)
    apart = DecoderScorer(model, pass_tokens=10**6)
    apart.score(groups)
    n_shared = len(model.tokenizer.encode(f"{EXAMPLES} Q:"))
    reaches = len(model.tokenizer.encode(f"{EXAMPLES} Q: Latvia? A: Rome")) - 1 <= (deepest_path(model.module.config) or 10**6)
    if scorer.keeps_stems and reaches:
        assert apart.tokens_fed - scorer.tokens_fed >= 3 * (n_shared - 1)


@pytest.mark.parametrize("kept", [1, 60, 10**6])
def test_a_stem_before_few_or_many_rows_gives_the_same_scores(
    kept: int, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.scoring.tree.KEPT_TOKENS", kept)
    model = tiny_model("llama")
    assert_equals_loop(model, FEW_SHOT, DecoderScorer(model, pass_tokens=4).score(FEW_SHOT), nats=1e-4)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2"])
def test_a_sliding_window_is_kept_within_and_beyond_it(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    within = [[Request("", "abc"), Request("", "abd"), Request("a", "xy")]]
    beyond = [[Request("", "The capital of France is Paris, and the people there speak French.")]]
    scorer = DecoderScorer(model)
    assert_equals_loop(model, within + beyond, scorer.score(within + beyond), nats=1e-4)
    blind = DecoderScorer(tiny_model(architecture, sliding_window=10**6))  # the same weights: the window does matter
    assert largest_difference(scorer.score(within), blind.score(within)) < 1e-5
    assert abs(scorer.score(beyond)[0][0].loglik_nats - blind.score(beyond)[0][0].loglik_nats) > 0.1


@pytest.mark.parametrize(("architecture", "changes"), [("falcon", {"alibi": True}), ("bloom", {})])
def test_attention_that_fades_with_distance_is_scored_plainly_and_right(
    architecture: str, changes: dict[str, Any], tiny_model: MakeModel
) -> None:
    """ALiBi counts how far back a token stands in the row, which is not how far back it stands in the text of a tree."""
    model = tiny_model(architecture, **changes)
    scorer = DecoderScorer(model)
    assert scorer.path == "plain"
    long = "The capital of France is Paris, and the people there speak French."
    groups = [*FEW_SHOT, [Request("", long), Request(long, " Yes"), Request(long, " No")]]
    assert_equals_loop(model, groups, scorer.score(groups), nats=1e-4)


def test_a_cap_over_the_logits_is_applied_on_the_tree_path(tiny_model: MakeModel) -> None:
    model = tiny_model("gemma2", final_logit_softcapping=0.5)
    groups = [[Request("", "abc"), Request("", "abd")]]
    scorer = DecoderScorer(model)
    assert scorer.path == "padded"
    assert_equals_loop(model, groups, scorer.score(groups), nats=1e-4)


def test_an_output_layer_that_we_do_not_know_is_scored_plainly(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    handle = model.module.register_forward_hook(_halve_logits)
    try:
        scorer = DecoderScorer(model)
        assert scorer.path == "plain"
        assert_equals_loop(model, SENTENCES, scorer.score(SENTENCES), nats=1e-4)
    finally:
        handle.remove()


def _halve_logits(module: object, arguments: object, output: object) -> object:
    output.logits = output.logits / 2  # type: ignore[attr-defined]
    return output


# ------------------------------------------------------------------------------------------------ lm-eval


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("path", ["packed", "padded", "plain"])
def test_scores_equal_lm_evals_own_model_class(adds_bos: bool, path: str, tiny_model: MakeModel) -> None:
    model = tiny_model("llama", adds_bos=adds_bos)
    ours = DecoderScorer(model, path=path).score(MIXED)  # type: ignore[arg-type]
    for mine, theirs in zip(itertools.chain(*ours), itertools.chain(*lm_eval_scores(model, MIXED)), strict=True):
        assert mine.loglik_nats == pytest.approx(theirs[0], abs=1e-3)
        assert mine.is_greedy == theirs[1]


@pytest.mark.parametrize("path", ["packed", "padded", "plain"])
def test_a_context_beyond_the_window_is_cut_on_the_left_as_lm_eval_does(path: str, tiny_model: MakeModel) -> None:
    model = tiny_model("gpt2")
    long = "The capital of France is Paris. " * 30
    groups = [[Request(long, "Paris"), Request(long, "Berlin and others")], [Request("", long[:100])]]
    ours = DecoderScorer(model, path=path).score(groups)  # type: ignore[arg-type]
    theirs = lm_eval_scores(model, groups)
    for mine, reference in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert mine.loglik_nats == pytest.approx(reference[0], abs=1e-3)
    window = model.module.config.max_position_embeddings  # type: ignore[union-attr]
    n_tokens = len(model.tokenizer.encode(long + "Paris"))
    assert [score.n_cut for score in ours[0]][:1] == [n_tokens - (window + 1)]  # the last token is read off, not fed
    assert ours[1][0].n_cut == 0


# ------------------------------------------------------------------------------------------------ what is fed


def test_each_distinct_token_of_a_group_is_fed_once_and_the_last_never(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    scorer = DecoderScorer(model)
    context = "The capital of France is"
    scorer.score([[Request(context, letter) for letter in "abcdefghijklmnopqrstuvwxyz"]])
    assert scorer.tokens_fed == len(model.tokenizer.encode(context))
    plain = DecoderScorer(model, path="plain")
    plain.score([[Request(context, letter) for letter in "abc"]])
    assert plain.tokens_fed == 3 * len(model.tokenizer.encode(context))


def test_scores_do_not_depend_on_what_else_is_in_the_batch(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    together = DecoderScorer(model).score(MIXED)
    for budget in (1, 40, 4096):
        assert largest_difference(together, DecoderScorer(model, batch_tokens=budget).score(MIXED)) < 1e-4
    alone = [DecoderScorer(model).score([group])[0] for group in MIXED]
    assert largest_difference(together, alone) < 1e-4


def test_the_same_plan_gives_the_same_bits(tiny_model: MakeModel) -> None:
    scorer = DecoderScorer(tiny_model("llama"))
    assert scorer.score(MIXED) == scorer.score(MIXED)


def test_groups_that_are_cut_into_several_tries_score_the_same(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = DecoderScorer(tiny_model("llama"))
    whole = scorer.score(MIXED)
    monkeypatch.setattr("harness.scoring.decoder.MAX_TRIE_NODES", 30)
    assert largest_difference(whole, scorer.score(MIXED)) < 1e-4


def test_logits_are_read_the_same_in_small_pieces(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = DecoderScorer(tiny_model("llama"))
    whole = scorer.score(MIXED)
    monkeypatch.setattr("harness.scoring.tree.HEAD_ROWS", 3)
    assert largest_difference(whole, scorer.score(MIXED)) < 1e-4


@pytest.mark.parametrize("path", ["packed", "padded", "plain"])
def test_progress_counts_groups_up_to_all_of_them(path: str, tiny_model: MakeModel) -> None:
    told: list[tuple[int, int]] = []
    scorer = DecoderScorer(tiny_model("llama"), path=path, batch_tokens=30, progress=lambda *at: told.append(at))  # type: ignore[arg-type]
    scorer.score(MIXED)
    assert told[-1] == (len(MIXED), len(MIXED))
    assert told == sorted(told)
    assert len(told) > 3


def test_only_the_models_own_choice_is_greedy(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    checked = 0
    for city in CITIES:
        ids = model.tokenizer.encode(city)
        with torch.inference_mode():
            choice = int(model.module(torch.tensor([ids])).logits[0, -1].argmax())
        text = model.tokenizer.decode([choice])
        if model.tokenizer.encode(city + text) == [*ids, choice]:  # else the text means other tokens
            scores = DecoderScorer(model).score([[Request(city, text), Request(city, text + text), Request(city, "#")]])[0]
            assert (scores[0].is_greedy, scores[2].is_greedy) == (True, choice == model.tokenizer.encode("#")[0])
            checked += 1
    assert checked > 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_takes_the_tree_path_near_the_float32_scores(dtype: str, tiny_model: MakeModel) -> None:
    exact = tiny_model("llama")
    half = DecoderScorer(Decoder().load(exact.folder, device="cpu", dtype=dtype))
    assert half.path == "packed"
    for a, b in zip(half.score(MIXED[2:3])[0], DecoderScorer(exact).score(MIXED[2:3])[0], strict=True):
        assert a.loglik_nats == pytest.approx(b.loglik_nats, rel=0.05)


def test_nothing_to_score_gives_nothing(tiny_model: MakeModel) -> None:
    assert DecoderScorer(tiny_model("llama")).score([]) == []
    assert DecoderScorer(tiny_model("llama")).score([[], []]) == [[], []]


def test_scoring_leaves_the_global_generator_alone(tiny_model: MakeModel) -> None:
    before = torch.get_rng_state()
    DecoderScorer(tiny_model("llama")).score(SENTENCES)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error(value: float, tiny_model: MakeModel) -> None:
    model = tiny_model("llama", initializer_range=0.01)  # its own copy: the weights are broken below
    weight = model.module.get_parameter("model.layers.1.mlp.down_proj.weight")
    with torch.no_grad():
        weight[0, 0] = value
    with pytest.raises(ScoreError, match=r"is nan: the weights of LlamaForCausalLM or its dtype \(float32\) are broken"):
        DecoderScorer(model).score(SENTENCES)


@pytest.mark.parametrize("request_", [Request("a", ""), Request("", "")])
def test_a_continuation_without_tokens_is_refused(request_: Request, tiny_model: MakeModel) -> None:
    with pytest.raises(ScoreError, match="has 0 tokens"):
        DecoderScorer(tiny_model("llama")).score([[request_]])


def test_a_continuation_longer_than_the_window_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ScoreError, match="expected 1 to 128"):
        DecoderScorer(tiny_model("gpt2")).score([[Request("a", "xyz" * 200)]])


@pytest.mark.parametrize("path", ["auto", "plain"])
def test_a_model_that_looks_ahead_is_refused(path: Any, tiny_model: MakeModel, drawn: Any) -> None:
    """transformers loads BERT's head for language modelling so, unless its config says ``is_decoder``."""
    llama = tiny_model("llama")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(vocab_size=len(llama.tokenizer), **sizes)
    both_ways = drawn(lambda: BertLMHeadModel(config))
    left_only = drawn(lambda: BertLMHeadModel(BertConfig(**{**config.to_dict(), "is_decoder": True})))
    with pytest.raises(ModelError, match=r"BertLMHeadModel in .* looks ahead: what it says after 3 tokens changes"):
        DecoderScorer(replace(llama, module=both_ways), path=path)
    assert DecoderScorer(replace(llama, module=left_only), path=path).score(MIXED[:1])


def test_a_budget_below_one_token_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        DecoderScorer(tiny_model("llama"), batch_tokens=0)


# ------------------------------------------------------------------------------------------------ the real model


@pytest.mark.real_model
def test_smollm2_scores_equal_a_plain_transformers_loop(smollm2: LoadedModel) -> None:
    scorer = DecoderScorer(smollm2)
    assert scorer.path == "packed"
    groups = [SENTENCES[0][:6], MIXED[2][:6], MIXED[3]]
    assert_equals_loop(smollm2, groups, scorer.score(groups), nats=1e-4)


@pytest.mark.real_model
def test_smollm2_scores_equal_lm_evals(smollm2: LoadedModel) -> None:
    groups = [SENTENCES[1][:5], MIXED[2][:4], MIXED[3]]
    ours = DecoderScorer(smollm2).score(groups)
    for mine, theirs in zip(itertools.chain(*ours), itertools.chain(*lm_eval_scores(smollm2, groups)), strict=True):
        assert mine.loglik_nats == pytest.approx(theirs[0], abs=1e-3)
        assert mine.is_greedy == theirs[1]


@pytest.mark.real_model
def test_smollm2_knows_the_capital_of_france(smollm2: LoadedModel) -> None:
    scores = DecoderScorer(smollm2).score([[Request("The capital of France is", f" {city}") for city in CITIES]])[0]
    best = max(range(len(CITIES)), key=lambda i: scores[i].loglik_nats)
    assert CITIES[best] == "Paris"
    assert scores[best].is_greedy


# ------------------------------------------------------------------------------------------------ models within models


def test_a_window_of_the_language_model_within_a_larger_one_is_heeded(tmp_path: Path) -> None:
    """Gemma 3's config has its language model's, with its window, inside."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 8}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    tokenizer = tiny_tokenizer()
    config = Gemma3Config(
        text_config={
            **text,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer) + 8,
            "sliding_window": 16,
            "layer_types": kinds,
            "max_position_embeddings": 512,
        },
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    )
    with torch.random.fork_rng(devices=[]):
        module = Gemma3ForConditionalGeneration(config)
    fill(module, torch.Generator().manual_seed(0))
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = Decoder().load(tmp_path, device="cpu", dtype="float32")
    groups = [*SENTENCES, [Request("", "abc"), Request("", "abd")]]
    assert_equals_loop(model, groups, DecoderScorer(model).score(groups), nats=1e-3)
