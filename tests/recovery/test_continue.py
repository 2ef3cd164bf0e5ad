"""IDP's mode "continue": the pass that chose goes on with the chosen prompt. By hand: transformers' own attention with all
prompts before the input in every layer, and the others masked from the layer after the selection's on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from harness.core.errors import ConfigError, RecoveryError
from harness.models.loaded import LoadedModel
from harness.models.roots import SoftRoot
from harness.recovery.idp import Idp
from harness.recovery.prompt import Prompt
from harness.recovery.soft import keys_values_of
from harness.scoring import Prompt as Ask
from harness.scoring import Request
from harness.scoring.decoder import DecoderScorer
from harness.scoring.generate import GreedyGenerator
from tests.recovery.conftest import WORDS, Loader, Store, noise, root_of

LENGTHS = (3, 7, 12)
SHARED = " ".join(WORDS)
CONTEXTS = (*(" ".join(WORDS[start : start + 1 + start % 5]) for start in range(9)), f"{SHARED} sea", f"{SHARED} sand")
GROUPS = [[Request(context, " calm"), Request(context, " the sand and us")] for context in CONTEXTS]
ROTARY = ("llama", "gpt_neox", "gemma", "cohere")
ROWS = {f"prompt.{i}": noise(n, 32, seed=i + 1) for i, n in enumerate(LENGTHS)}


def layers_of(model: LoadedModel) -> list[Any]:
    body: Any = model.module.base_model
    return [getattr(layer, "self_attn", None) or layer.attention for layer in body.layers]


def by_hand(model: LoadedModel, ids: Sequence[int], chosen: int, layer: int) -> Tensor:
    """The log-probabilities [tokens, vocabulary] behind prompt ``chosen``, which was chosen in ``layer``."""
    total = sum(LENGTHS)
    apart = [keys_values_of(model, rows, total - len(rows)) for rows in ROWS.values()]
    before = [tuple(torch.cat(part, dim=2) for part in zip(*of_layer, strict=True)) for of_layer in zip(*apart, strict=True)]
    seen = torch.ones((len(ids), total + len(ids)), dtype=torch.bool).tril(total)
    alone = seen.clone()
    start = sum(LENGTHS[:chosen])
    alone[:, :start] = alone[:, start + LENGTHS[chosen] : total] = False

    def mask(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        chosen_mask = seen if module.layer_idx <= layer else alone
        added = torch.zeros(chosen_mask.shape).masked_fill(~chosen_mask, -torch.inf)
        return args, {**kwargs, "attention_mask": added[None, None]}

    hooks = [attention.register_forward_pre_hook(mask, with_kwargs=True) for attention in layers_of(model)]
    module: Any = model.module
    try:
        with torch.no_grad():
            positions = total + torch.arange(len(ids))[None]
            out = module(input_ids=torch.tensor([list(ids)]), position_ids=positions, past_key_values=DynamicCache(before))
    finally:
        for hook in hooks:
            hook.remove()
    return out.logits[0].log_softmax(-1)


def expected(model: LoadedModel, layer: int) -> list[float]:
    nats = []
    for request in (request for group in GROUPS for request in group):
        context = model.tokenizer.encode(request.context)
        ids = model.tokenizer.encode(request.context + request.continuation)
        (chosen,) = model.soft_roots.choose([tuple(context)])  # type: ignore[union-attr]
        read = by_hand(model, ids[:-1], int(chosen), layer)[len(context) - 1 :]
        nats.append(float(read.gather(1, torch.tensor(ids[len(context) :])[:, None]).sum()))
    return nats


def scores(scorer: DecoderScorer) -> list[float]:
    return [score.loglik_nats for row in scorer.score(GROUPS) for score in row]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("architecture", ROTARY)
def test_the_others_are_masked_from_the_next_layer_on(architecture: str, layer: int, load: Loader, store: Store) -> None:
    model = Idp(LENGTHS, selection_layer=layer, mode="continue").recover(load(architecture), store(ROWS))
    scorer = DecoderScorer(model, pass_tokens=0)
    assert (scorer.path, scorer.keeps_stems) == ("packed", True)
    wanted = expected(model, layer)
    assert scores(scorer) == pytest.approx(wanted, abs=1e-4)
    assert scores(DecoderScorer(model, path="plain")) == pytest.approx(wanted, abs=1e-4)
    exact = Idp(LENGTHS, selection_layer=layer).recover(load(architecture), store(ROWS))
    assert scores(DecoderScorer(exact)) != pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_both_modes_choose_alike(architecture: str, load: Loader, store: Store) -> None:
    contexts = [tuple(range(start, start + 2 + start % 7)) for start in range(5, 90)]
    chosen = [
        Idp(LENGTHS, mode=mode).recover(load(architecture), store(ROWS)).soft_roots.choose(contexts)
        for mode in ("exact", "continue")
    ]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) > 1


def test_where_attention_up_to_the_selection_says_nothing_both_modes_are_one(load: Loader, store: Store) -> None:
    """Layer 0's attention is not passed on, so what it reads of the other prompts can change nothing."""
    found = []
    for mode in ("exact", "continue"):
        model = load()
        layers_of(model)[0].o_proj.weight.data.zero_()
        found.append(scores(DecoderScorer(Idp(LENGTHS, mode=mode).recover(model, store(ROWS)))))  # type: ignore[arg-type]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_one_prompt_is_prompt_tuning_and_a_fixed_choice_that_prompt_alone(load: Loader, store: Store) -> None:
    one = Idp((7,), mode="continue").recover(load(), store({"prompt.0": ROWS["prompt.1"]}))
    tuned = Prompt(7).recover(load(), store({"prompt": ROWS["prompt.1"]}))
    fixed = Idp(LENGTHS, choice=1, mode="continue").recover(load(), store(ROWS))
    assert torch.equal(root_of(one).embeddings, root_of(tuned).embeddings)
    assert torch.equal(root_of(fixed).embeddings, root_of(tuned).embeddings)
    assert Idp(LENGTHS, choice=1, mode="continue").recipe() == Idp(LENGTHS, choice=1).recipe()


def test_text_is_made_behind_it_too(load: Loader, store: Store) -> None:
    model = Idp(LENGTHS, mode="continue").recover(load(), store(ROWS))
    asked = [Ask(context, ("zzz",), 4) for context in (CONTEXTS[3], CONTEXTS[4], CONTEXTS[9], CONTEXTS[10])]
    made = GreedyGenerator(model, shortest_stem=8).generate([[ask] for ask in asked])
    for ask, (generated,) in zip(asked, made, strict=True):
        context = model.tokenizer.encode(ask.context)
        (chosen,) = model.soft_roots.choose([tuple(context)])  # type: ignore[union-attr]
        ids = list(context)
        for _ in range(generated.n_tokens):
            ids.append(int(by_hand(model, ids, int(chosen), 0)[-1].argmax()))
        assert generated.text == model.tokenizer.decode(ids[len(context) :], skip_special_tokens=True)
        assert generated.root == chosen


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("opt", "its positions are absolute"),
        ("gpt2", "its positions are absolute"),
        ("mistral", "some of its layers see 8 tokens only"),
        ("bloom", "attention of its own"),
    ],
)
def test_a_model_that_can_not_go_on_is_refused_with_the_reason(
    architecture: str, told: str, load: Loader, store: Store
) -> None:
    with pytest.raises(RecoveryError, match=told):
        Idp(LENGTHS, mode="continue").recover(load(architecture), store(ROWS))


def test_what_can_not_be_is_refused(load: Loader, store: Store) -> None:
    with pytest.raises(ConfigError, match="goes on with the pass that chooses, and choice = 'random' has none"):
        Idp(LENGTHS, choice="random", mode="continue")
    with pytest.raises(ConfigError, match="mode = 'go'"):
        Idp(LENGTHS, mode="go")  # type: ignore[arg-type]
    long = {"prompt.0": noise(70, 32), "prompt.1": noise(60, 32)}
    with pytest.raises(RecoveryError, match="side by side in mode 'continue': 130 prompt positions don't fit"):
        Idp((70, 60), mode="continue").recover(load(), store(long))
    pair = tuple((torch.zeros(1, 2, n, 8), torch.zeros(1, 2, n, 8)) for n in (2, 3))
    with pytest.raises(ValueError, match="keeps more keys than the first"):
        SoftRoot(keys_values=pair)
