"""What is timed is what it says: the same passes as transformers' own, weights shared and left alone, sides in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from harness.analysis.sides import Bench, make_sides, sharing_weights
from harness.analysis.timing import Rounds, prepare
from harness.core.errors import RecoveryError
from harness.models.loaded import LoadedModel
from harness.recovery.lora import Lora
from harness.recovery.soft import seeded, vocabulary_rows
from tests.analysis.conftest import Loader

IDS = torch.tensor([[5, 60, 200, 61, 300, 7], [44, 9, 12, 13, 14, 90], [7, 300, 61, 61, 5, 5]])
TOKENS = 4


@pytest.fixture
def sides(load: Loader) -> dict[str, Bench]:
    return {one.side.name: one for one in make_sides(load(), prompt_tokens=TOKENS, counts=(2, 4), rank=3)}


def greedy(model: LoadedModel, ids: torch.Tensor, rows: torch.Tensor | None, n_new: int) -> torch.Tensor:
    """The next tokens by whole passes without any cache, [rows, n_new]."""
    module: Any = model.module
    made = ids
    for _ in range(n_new):
        embedded = module.get_input_embeddings()(made)
        if rows is not None:
            embedded = torch.cat([rows, embedded], dim=1)
        with torch.no_grad():
            logits = module(inputs_embeds=embedded, use_cache=False).logits[:, -1]
        made = torch.cat([made, logits.argmax(-1, keepdim=True)], dim=1)
    return made[:, ids.shape[1] :]


def test_every_side_reads_and_goes_on_as_transformers_does(sides: dict[str, Bench]) -> None:
    plain = sides["none"].model
    prompts = torch.stack([vocabulary_rows(plain, TOKENS, seeded(number)) for number in range(4)])
    for name, one in sides.items():
        rows = None
        if one.side.n_prompts:
            chosen = [0] * len(IDS) if one.choose is None else one.choose(IDS).tolist()
            rows = prompts[chosen]
        made: list[torch.Tensor] = []
        step = one._step

        def noting(ids: torch.Tensor, cache: Any, made: list[torch.Tensor] = made, step: Any = step) -> torch.Tensor:
            logits: torch.Tensor = step(ids, cache)
            made.append(logits.argmax(-1, keepdim=True))
            return logits

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Bench, "_step", lambda _self, ids, cache, noting=noting: noting(ids, cache))
            one.decode(*one.prefill(IDS), 3)
        assert torch.equal(torch.cat(made, dim=1), greedy(plain, IDS, rows, 4)), name  # LoRA's B is 0: it changes nothing yet


def test_extra_numbers_are_those_of_the_tensors(sides: dict[str, Bench]) -> None:
    import peft

    counted = {name: one.side.n_extra for name, one in sides.items()}
    hidden = 32
    assert counted["prompt of 4"] == TOKENS * hidden
    assert counted["idp, 4 prompts"] == 4 * TOKENS * hidden
    module: Any = sides["lora, unmerged"].model.module
    assert counted["lora, unmerged"] == sum(p.numel() for name, p in module.named_parameters() if "lora_" in name)
    theirs = peft.get_peft_model(
        type(module)(module.config), peft.LoraConfig(r=3, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    )
    assert counted["lora, unmerged"] == theirs.get_nb_trainable_parameters()[0]
    assert (counted["none"], counted["lora, merged"]) == (0, 0)


def test_sides_share_their_weights_and_merging_leaves_the_model_alone(load: Loader) -> None:
    model = load()
    names = frozenset({"model.layers.0.self_attn.q_proj.weight"})
    other = sharing_weights(model, but=names)
    own, theirs = dict(model.module.named_parameters()), dict(other.module.named_parameters())
    assert {name for name in own if own[name].data_ptr() != theirs[name].data_ptr()} == names
    before = {name: tensor.clone() for name, tensor in own.items()}
    make_sides(model, prompt_tokens=TOKENS, counts=(2,))
    values = {name: torch.ones_like(tensor) for name, tensor in Lora().untrained(model).items()}
    layers = frozenset(f"{name.rpartition('.')[0]}.weight" for name in values)
    merged = Lora().place(sharing_weights(model, but=layers), values)
    changed = dict(merged.module.named_parameters())
    assert {name for name in before if not torch.equal(changed[name], before[name])} == layers
    assert all(torch.equal(own[name], before[name]) for name in before)
    assert not any("lora" in name for name, _ in model.module.named_modules())


def test_decoding_again_starts_from_the_same_place(sides: dict[str, Bench]) -> None:
    chosen = [sides["none"], sides["idp, 2 prompts"]]
    rounds = prepare(chosen, "decode", batch=2, context_tokens=6, new_tokens=3, rng=np.random.default_rng(0))
    lengths: list[int] = []
    for one in chosen:
        tokens, cache = one.prefill(IDS)
        before = cache.get_seq_length()
        one.decode(tokens, cache, 3)
        cache.crop(before)
        lengths.append(cache.get_seq_length())
    assert lengths == [6, 6 + TOKENS]
    for _ in range(2):
        rounds()
    assert {name: len(seconds) for name, seconds in rounds.seconds.items()} == {"none": 2, "idp, 2 prompts": 2}


def test_rounds_time_each_side_once_in_orders_of_their_own() -> None:
    now, order = [0.0], []

    def working(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            now[0] += seconds

        return run

    costs = {"a": 1.0, "b": 2.0, "c": 4.0}
    rounds = Rounds(
        {name: working(name, cost) for name, cost in costs.items()}, np.random.default_rng(0), clock=lambda: now[0]
    )
    for _ in range(8):
        rounds()
    assert rounds.seconds == {name: [cost] * 8 for name, cost in costs.items()}
    passes = [tuple(order[i : i + 3]) for i in range(0, 24, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in passes)
    assert len(set(passes)) > 1
    rounds.forget()
    assert rounds.seconds == {}


@pytest.mark.parametrize(("architecture", "says"), [("bert", "is built for decoders"), ("bloom", "an attention of its own")])
def test_other_models_are_refused(architecture: str, says: str, load: Loader) -> None:
    with pytest.raises(RecoveryError, match=says):
        make_sides(load(architecture))
