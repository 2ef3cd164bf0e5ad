"""A recovered model through the scorer: each request is read behind the root that was trained, or chosen, for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.recovery.idp import Idp
from harness.recovery.lora import Lora
from harness.recovery.prefix import Prefix
from harness.recovery.prompt import Prompt
from harness.scoring import Request, Score
from harness.scoring.decoder import DecoderScorer
from tests.recovery.conftest import WORDS, Loader, Store, logprobs, noise, root_of

CONTEXTS = tuple(" ".join(WORDS[start : start + 1 + start % 5]) for start in range(12))
LENGTHS = (3, 7, 12)
GROUPS = [[Request(context, " calm"), Request(context, " the sand and us")] for context in CONTEXTS]


def scores(model: Any) -> list[Score]:
    return [score for row in DecoderScorer(model).score(GROUPS) for score in row]


def by_hand(model: Any) -> list[float]:
    """The same through transformers alone, behind the model's first root."""
    nats = []
    for request in (request for group in GROUPS for request in group):
        n_context = len(model.tokenizer.encode(request.context))
        ids = model.tokenizer.encode(request.context + request.continuation)
        read = logprobs(model, ids[:-1], root_of(model) if model.soft_roots else None)[n_context - 1 :]
        nats.append(float(read.gather(1, torch.tensor(ids[n_context:])[:, None]).sum()))
    return nats


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt_neox", "gemma"])
@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_a_trained_root_stands_before_every_request(name: str, architecture: str, load: Loader, store: Store) -> None:
    heads = 2 if architecture in ("llama", "gemma") else 4
    if name == "prompt":
        model = Prompt(5).recover(load(architecture), store({"prompt": noise(5, 32)}))
    else:
        model = Prefix(5).recover(load(architecture), store({"keys_values": noise(2, 2, heads, 5, 8)}))
    found = [score.loglik_nats for score in scores(model)]
    assert found == pytest.approx(by_hand(model), abs=1e-4)
    assert found != pytest.approx([score.loglik_nats for score in scores(load(architecture))], abs=0.1)


@pytest.mark.parametrize("merged", [True, False])
def test_lora_is_scored_as_it_is(merged: bool, load: Loader, store: Store) -> None:
    tensors = {}
    for layer in (0, 1):
        tensors[f"model.layers.{layer}.self_attn.q_proj.lora_A"] = noise(3, 32, seed=layer)
        tensors[f"model.layers.{layer}.self_attn.q_proj.lora_B"] = noise(32, 3, seed=layer + 2)
    model = Lora(3, 6.0, ["q_proj"], merged=merged).recover(load(), store(tensors))
    assert [score.loglik_nats for score in scores(model)] == pytest.approx(by_hand(model), abs=1e-4)


@pytest.mark.parametrize("chosen_by", ["attention", "random"])
@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_idp_asks_each_request_behind_the_prompt_that_was_chosen_for_its_context(
    architecture: str, chosen_by: str, load: Loader, store: Store
) -> None:
    artifact = store({f"prompt.{i}": noise(n, 32, seed=i + 1) for i, n in enumerate(LENGTHS)})
    model = Idp(LENGTHS, choice=chosen_by).recover(load(architecture), artifact)
    found = scores(model)
    forced = [scores(Idp(LENGTHS, choice=i).recover(load(architecture), artifact)) for i in range(3)]
    assert model.soft_roots is not None
    contexts = [tuple(model.tokenizer.encode(context)) for context in CONTEXTS]
    chosen = [choice for choice in model.soft_roots.choose(contexts) for _ in range(2)]
    for number, (choice, score) in enumerate(zip(chosen, found, strict=True)):
        assert score.loglik_nats == pytest.approx(forced[choice][number].loglik_nats, abs=1e-4)
    assert chosen_by == "attention" or set(chosen) == {0, 1, 2}
