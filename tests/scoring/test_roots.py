"""Soft roots: a request behind one scores as transformers scores it with the root's rows before it, on every path."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from harness.core.errors import ConfigError
from harness.models.loaded import LoadedModel
from harness.models.roots import SoftRoot, SoftRoots
from harness.models.tiny import TINY
from harness.scoring import Prompt, Request, Score
from harness.scoring.decoder import DecoderScorer
from harness.scoring.encoder import EncoderScorer
from harness.scoring.generate import GreedyGenerator
from harness.scoring.seq2seq import Seq2SeqScorer

MakeModel = Callable[..., LoadedModel]

ROOTED = [name for name in TINY if name != "mamba"]  # no keys and values, no causal mask over embeddings' positions
EXAMPLES = "Q: France? A: Paris. Q: Japan? A: Tokyo."
GROUPS = [
    [Request("The capital of France is", f" {city}") for city in ("Paris", "Rome", "Rabat")],
    [Request("", f"Rome is in {country}.") for country in ("Italy", "Peru")],
    *[[Request(f"{EXAMPLES} Q: {c}? A:", f" {a}") for a in ("Rome", "Riga")] for c in ("Italy", "Latvia")],
]
SENTENCES = [[Request("Rome is in", f" {country}", ".", "sentence") for country in ("Italy", "Peru")]]


def soft_prompt(model: LoadedModel, n: int, seed: int = 3) -> SoftRoot:
    table = model.module.get_input_embeddings().weight  # type: ignore[operator]
    noise = torch.randn((n, table.shape[1]), generator=torch.Generator().manual_seed(seed))
    return SoftRoot(embeddings=(table.std() * noise).to(table.dtype))


def prefix(model: LoadedModel, n: int, seed: int = 5) -> SoftRoot:
    """Keys and values as prefix tuning has them: of the right shape and made by nothing."""
    cache = DynamicCache()
    with torch.inference_mode():
        model.module.base_model(input_ids=torch.zeros((1, 1), dtype=torch.long), past_key_values=cache, use_cache=True)  # type: ignore[operator]
    draw = torch.Generator().manual_seed(seed)

    def like(kept: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = kept.shape
        return 0.5 * torch.randn((1, heads, n, size), generator=draw)

    return SoftRoot(keys_values=tuple((like(layer.keys), like(layer.values)) for layer in cache.layers))


def behind(model: LoadedModel, *roots: SoftRoot, choose: Callable[[Sequence[tuple[int, ...]]], Sequence[int]]) -> LoadedModel:
    return replace(model, soft_roots=SoftRoots(roots, choose))


def transformers_logits(model: LoadedModel, root: SoftRoot, tokens: Sequence[int]) -> torch.Tensor:
    module: Any = model.module
    ids = torch.tensor([list(tokens)])
    with torch.inference_mode():
        if root.embeddings is not None:
            rows = torch.cat([root.embeddings[None], module.get_input_embeddings()(ids)], dim=1)
            return module(inputs_embeds=rows).logits[0]
        cache = DynamicCache(list(root.keys_values or ()))
        mask = torch.ones((1, root.n_positions + ids.shape[1]), dtype=torch.long)
        return module(input_ids=ids, attention_mask=mask, past_key_values=cache).logits[0]


def greedy_loop(model: LoadedModel, root: SoftRoot, context: Sequence[int], n: int) -> list[int]:
    tokens = list(context)
    for _ in range(n):
        tokens.append(int(transformers_logits(model, root, tokens)[-1].argmax()))
    return tokens[len(context) :]


def transformers_loop(model: LoadedModel, root: SoftRoot, request: Request) -> float:
    """One request behind one root through transformers alone."""
    tokenizer: Any = model.tokenizer
    before = tokenizer.encode(request.context) if request.context else [model.prefix_token_id]
    special = bool(request.context)
    whole = tokenizer.encode(request.context + request.continuation, add_special_tokens=special)
    after = whole[len(before) :] if request.context else whole
    logprobs = transformers_logits(model, root, before + after[:-1])[-len(after) :].float().log_softmax(-1)
    return sum(float(logprobs[i, token]) for i, token in enumerate(after))


def flat(scores: list[list[Score]]) -> list[float]:
    return [score.loglik_nats for score in itertools.chain(*scores)]


@pytest.mark.parametrize("make_root", [soft_prompt, prefix])
@pytest.mark.parametrize("architecture", ROOTED)
@pytest.mark.parametrize("pass_tokens", [4, 10**6])
def test_scores_behind_a_root_equal_a_plain_transformers_loop(
    architecture: str, make_root: Callable[..., SoftRoot], pass_tokens: int, tiny_model: MakeModel
) -> None:
    model = tiny_model(architecture)
    root = make_root(model, 3)
    rooted = replace(model, soft_roots=SoftRoots.of_one(root))
    scored = DecoderScorer(rooted, pass_tokens=pass_tokens).score(GROUPS)
    expected = [transformers_loop(model, root, request) for group in GROUPS for request in group]
    assert flat(scored) == pytest.approx(expected, abs=1e-4)
    without = DecoderScorer(model).score(GROUPS)
    assert max(abs(a - b) for a, b in zip(flat(scored), flat(without), strict=True)) > 0.1  # the root does matter


@pytest.mark.parametrize("path", ["auto", "plain"])
def test_each_request_stands_behind_the_root_chosen_for_its_context(path: Any, tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    roots = (soft_prompt(model, 3), soft_prompt(model, 5, seed=4))
    asked: list[tuple[int, ...]] = []

    def by_length(contexts: Sequence[tuple[int, ...]]) -> list[int]:
        asked.extend(contexts)
        return [int(len(context) > 30) for context in contexts]

    scored = flat(DecoderScorer(behind(model, *roots, choose=by_length), path=path).score(GROUPS))
    requests = [request for group in GROUPS for request in group]
    contexts = [
        tuple(model.tokenizer.encode(request.context) if request.context else [model.prefix_token_id]) for request in requests
    ]
    expected = [transformers_loop(model, roots[len(c) > 30], request) for c, request in zip(contexts, requests, strict=True)]
    assert scored == pytest.approx(expected, abs=1e-4)
    assert asked == list(dict.fromkeys(contexts))  # each context once, no answer among its tokens
    assert {len(context) > 30 for context in contexts} == {False, True}


def test_a_forced_choice_equals_the_model_with_that_root_alone(tiny_model: MakeModel) -> None:
    model = tiny_model("opt")
    roots = (soft_prompt(model, 3), soft_prompt(model, 7, seed=4))
    for chosen, root in enumerate(roots):
        forced = behind(model, *roots, choose=lambda contexts, chosen=chosen: [chosen] * len(contexts))  # type: ignore[misc]
        alone = replace(model, soft_roots=SoftRoots.of_one(root))
        assert flat(DecoderScorer(forced).score(GROUPS)) == pytest.approx(flat(DecoderScorer(alone).score(GROUPS)), abs=1e-5)


def test_a_whole_sentence_is_chosen_for_by_what_stands_before_its_answer(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    asked: list[tuple[int, ...]] = []

    def first(contexts: Sequence[tuple[int, ...]]) -> list[int]:
        asked.extend(contexts)
        return [0] * len(contexts)

    DecoderScorer(behind(model, soft_prompt(model, 2), choose=first)).score(SENTENCES)
    opening = model.tokenizer.encode("Rome is in", add_special_tokens=False)
    assert asked == [(model.prefix_token_id, *opening)]


@pytest.mark.parametrize("architecture", ["mistral", "gemma2"])
def test_a_root_counts_within_a_sliding_window(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    root = soft_prompt(model, 4)
    groups = [[Request("", "abcd"), Request("", "abce")], [Request("", "The capital of France is Paris.")]]
    scored = DecoderScorer(replace(model, soft_roots=SoftRoots.of_one(root))).score(groups)
    expected = [transformers_loop(model, root, request) for group in groups for request in group]
    assert flat(scored) == pytest.approx(expected, abs=1e-4)


def test_a_root_without_positions_changes_nothing(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    nothing = replace(model, soft_roots=SoftRoots.of_one(soft_prompt(model, 0)))
    assert DecoderScorer(nothing).score(GROUPS) == DecoderScorer(model).score(GROUPS)


@pytest.mark.parametrize("make_root", [soft_prompt, prefix])
def test_text_is_generated_behind_the_root_chosen_for_its_prompt(
    make_root: Callable[..., SoftRoot], tiny_model: MakeModel
) -> None:
    model = tiny_model("llama")
    roots = (make_root(model, 3), make_root(model, 6, seed=9))
    prompts = [Prompt(context, (".",), 5) for context in ("The capital of France is", f"{EXAMPLES} Q: Peru? A:", "Rome")]
    rooted = behind(model, *roots, choose=lambda contexts: [int(len(context) > 30) for context in contexts])
    made = GreedyGenerator(rooted).generate([[prompt] for prompt in prompts])
    for prompt, (generated,) in zip(prompts, made, strict=True):
        ids = model.tokenizer.encode(prompt.context)
        tokens = greedy_loop(model, roots[len(ids) > 30], ids, generated.n_tokens)
        assert generated.text == model.tokenizer.decode(tokens, skip_special_tokens=True).split(".", maxsplit=1)[0]


def test_a_root_is_fed_once(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    plain, rooted = DecoderScorer(model), DecoderScorer(replace(model, soft_roots=SoftRoots.of_one(soft_prompt(model, 6))))
    for scorer in (plain, rooted):
        scorer.score(GROUPS)
        scorer.score(GROUPS)
    assert rooted.tokens_fed == plain.tokens_fed + 6


def test_a_root_takes_its_part_of_the_window(tiny_model: MakeModel) -> None:
    model = tiny_model("gpt2")
    root = soft_prompt(model, 100)
    scorer = DecoderScorer(replace(model, soft_roots=SoftRoots.of_one(root)))
    long = "The capital of France is Paris." * 30
    ids = model.tokenizer.encode(long + " Rome")
    kept = 128 - 100 + 1  # the last one is only read
    cut = model.tokenizer.decode(ids[-kept : len(model.tokenizer.encode(long))])
    assert scorer.score([[Request(long, " Rome")]])[0][0].loglik_nats == pytest.approx(
        transformers_loop(model, root, Request(cut, " Rome")), abs=1e-4
    )
    with pytest.raises(ConfigError, match="takes 128 positions, the model 128 in all"):
        DecoderScorer(replace(model, soft_roots=SoftRoots.of_one(soft_prompt(model, 128))))


@pytest.mark.parametrize(
    ("architecture", "scorer"),
    [("bert", EncoderScorer), ("t5", Seq2SeqScorer), ("t5", GreedyGenerator), ("bloom", GreedyGenerator)],
)
def test_what_would_leave_a_root_out_is_refused(architecture: str, scorer: Any, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    root = SoftRoot(embeddings=torch.zeros((1, 32)))
    with pytest.raises(ConfigError, match="can't be done behind a soft prompt"):
        scorer(replace(model, soft_roots=SoftRoots.of_one(root)))


@pytest.mark.parametrize("fields", [{}, {"embeddings": torch.zeros((1, 4)), "keys_values": ()}])
def test_a_root_is_one_of_the_two(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected one of the two"):
        SoftRoot(**fields)
