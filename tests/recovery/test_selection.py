"""The attention by which IDP chooses is the model's own, as transformers' eager implementation gives it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from harness.core.errors import RecoveryError
from harness.models.roots import SoftRoot
from harness.recovery.chooser import AttentionChooser
from harness.recovery.idp import Idp
from harness.recovery.selection import prompt_scores
from harness.recovery.soft import seeded, vocabulary_rows
from tests.recovery.conftest import IDS, Loader, Store, logprobs, noise, root_of

CONTEXTS = [(5, 6, 7, 8, 9), (100, 101, 102), (44,) * 9, (7, 300)]
LENGTHS = (3, 7, 12)
READABLE = ("llama", "opt", "gpt_neox", "gemma", "gemma2", "mistral", "gpt2", "cohere")


def chooser(model: Any, layer: int = 0, *, length_normalised: bool = False, **settings: Any) -> AttentionChooser:
    prompts = [vocabulary_rows(model, n, seeded(n)) for n in LENGTHS]
    return AttentionChooser(model, prompts, layer, length_normalised, **settings)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("architecture", READABLE)
def test_it_is_eager_attentions_mean_over_tokens_and_positions(architecture: str, layer: int, load: Loader) -> None:
    model = load(architecture, window=64 if architecture in ("gemma2", "mistral") else 0)
    ours = chooser(model, layer)
    scores = ours.scores(CONTEXTS)
    assert model.module.config._attn_implementation == "sdpa"  # put back
    rotary = architecture not in ("opt", "gpt2")
    layers = model.module.config.num_hidden_layers
    before = []
    for number in range(layers):
        made = [_keys_values(model, rows, 12 - len(rows) if rotary else 0)[number] for rows in ours.prompts]
        before.append(tuple(torch.cat(part, dim=2) for part in zip(*made, strict=True)))
    model.module.set_attn_implementation("eager")
    for context, row in zip(CONTEXTS, scores, strict=True):
        with torch.no_grad():
            out = model.module(
                input_ids=torch.tensor([context]),
                position_ids=12 + torch.arange(len(context))[None],
                past_key_values=DynamicCache(before),
                output_attentions=True,
            )
        attention = out.attentions[layer][0].mean(0)  # heads averaged: [tokens, keys]
        expected = [attention[:, :3].mean(), attention[:, 3:10].mean(), attention[:, 10:22].mean()]
        assert row.tolist() == pytest.approx([float(e) for e in expected], abs=1e-5)


def _keys_values(model: Any, rows: torch.Tensor, first: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with torch.no_grad():
        made = model.module(inputs_embeds=rows[None], position_ids=first + torch.arange(len(rows))[None], use_cache=True)
    return [(layer.keys, layer.values) for layer in made.past_key_values.layers]


def test_in_a_rotary_model_a_prompt_does_the_same_wherever_it_ends(load: Loader) -> None:
    model = load("llama")
    rows = chooser(model).prompts[0]
    alone = logprobs(model, root=SoftRoot(embeddings=rows))
    whole = torch.cat([rows[None], model.module.get_input_embeddings()(torch.tensor([IDS]))], dim=1)
    with torch.no_grad():
        out = model.module(inputs_embeds=whole, position_ids=9 + torch.arange(whole.shape[1])[None])
    assert (alone - out.logits[0, len(rows) :].log_softmax(-1)).abs().max() <= 1e-4


@pytest.mark.parametrize("batch_tokens", [1, 1024])
def test_the_choice_depends_on_the_context_alone(batch_tokens: int, load: Loader) -> None:
    ours = chooser(load(), batch_tokens=batch_tokens)
    chosen = ours([*CONTEXTS, CONTEXTS[0]])
    assert chosen[0] == chosen[-1]
    assert chosen[:4] == ours.scores(CONTEXTS).argmax(-1).tolist()
    assert len(set(chosen)) > 1
    assert sum(ours.chosen.values()) == len(CONTEXTS)
    assert ours([CONTEXTS[2]]) == [chosen[2]]
    assert sum(ours.chosen.values()) == len(CONTEXTS)


def test_length_normalisation_takes_the_share_of_the_whole_prompt(load: Loader) -> None:
    shares = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0))
    made = prompt_scores(shares, torch.tensor([4, 2]), LENGTHS, length_normalised=True)
    assert torch.allclose(made[1], shares[1, :2].log().mean(0))
    plain = chooser(load()).scores(CONTEXTS)
    assert not torch.equal(plain.argsort(-1), chooser(load(), length_normalised=True).scores(CONTEXTS).argsort(-1))


def test_a_context_beyond_a_sliding_window_is_read_at_its_end(load: Loader) -> None:
    ours = chooser(load("mistral", window=32))
    long = tuple(range(10, 40))
    assert torch.equal(ours.scores([long]), ours.scores([long[-10:]]))
    with pytest.raises(RecoveryError, match="prompts of 22 positions together fill the model's sliding window of 16"):
        chooser(load("mistral", window=16)).scores([long])


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_a_forced_choice_is_that_prompt_alone(number: int, architecture: str, load: Loader, store: Store) -> None:
    rows = {f"prompt.{i}": noise(n, 32, seed=i) for i, n in enumerate(LENGTHS)}
    forced = Idp(LENGTHS, choice=number).recover(load(architecture), store(rows))
    free = Idp(LENGTHS).recover(load(architecture), store(rows))
    assert forced.soft_roots is not None
    assert forced.soft_roots.choose(CONTEXTS) == [0] * 4
    assert torch.equal(root_of(forced).embeddings, rows[f"prompt.{number}"])
    assert torch.equal(root_of(free, number).embeddings, rows[f"prompt.{number}"])


def test_the_random_control_draws_by_context_and_again_the_same(load: Loader, store: Store) -> None:
    artifact = store({f"prompt.{i}": noise(n, 32, seed=i) for i, n in enumerate(LENGTHS)})
    contexts = [(i, i + 1) for i in range(300)]
    drawn = [Idp(LENGTHS, choice="random").recover(load(), artifact).soft_roots.choose(contexts) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert [drawn[0].count(i) / 300 for i in range(3)] == pytest.approx([1 / 3] * 3, abs=0.08)


@pytest.mark.parametrize("architecture", ["bloom", "falcon", "mamba"])
def test_an_attention_that_can_not_be_read_is_refused(architecture: str, load: Loader, store: Store) -> None:
    artifact = store({f"prompt.{i}": noise(n, 32) for i, n in enumerate(LENGTHS)})
    with pytest.raises(
        RecoveryError, match=r"attention of its own .* take recovery 'prompt' for it, or idp with a fixed choice"
    ):
        Idp(LENGTHS).recover(load(architecture), artifact)
    assert Idp(LENGTHS, choice=1).recover(load(architecture), artifact).soft_roots is not None


def test_a_layer_that_the_model_does_not_have_is_refused(load: Loader, store: Store) -> None:
    artifact = store({f"prompt.{i}": noise(n, 32) for i, n in enumerate(LENGTHS)})
    with pytest.raises(RecoveryError, match="selection_layer = 2, and the model's layers are 0 to 1"):
        Idp(LENGTHS, selection_layer=2).recover(load(), artifact)
