"""What each recovery computes is what peft computes, and what it must be by its definition. 1e-4 nats in float32."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from harness.core.errors import ConfigError, RecoveryError
from harness.models.loaded import LoadedModel
from harness.recovery.idp import Idp
from harness.recovery.lora import Lora
from harness.recovery.prefix import Prefix, as_pairs, flatten
from harness.recovery.prompt import Prompt
from harness.recovery.random_prompt import RandomPrompt
from harness.recovery.soft import vocabulary_rows
from harness.recovery.text_prompt import TextPrompt
from tests.recovery.conftest import IDS, Loader, Store, logprobs, noise, root_of

NATS = 1e-4
DECODERS = ("llama", "opt", "gpt_neox", "gemma", "gemma2", "qwen2", "gpt2")


def close(some: Tensor, other: Tensor) -> bool:
    return bool((some - other).abs().max() <= NATS)


def through_peft(model: LoadedModel, config: Any, weights: dict[str, Tensor]) -> Tensor:
    """The log-probabilities of ``IDS`` by peft's own model class with an adapter of these weights."""
    wrapped = peft.get_peft_model(model.module, config)
    told = peft.set_peft_model_state_dict(wrapped, weights)
    assert set(told.unexpected_keys) <= {"prompt_embeddings"}  # loaded before all others, and then not known
    ids = torch.tensor([IDS])
    with torch.no_grad():
        logits = wrapped(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -len(IDS) :]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_prompt_is_pefts(architecture: str, load: Loader, store: Store) -> None:
    rows = noise(5, 32)
    model = Prompt(5).recover(load(architecture), store({"prompt": rows}))
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    ours = logprobs(model, root=root_of(model))
    assert close(ours, through_peft(load(architecture), config, {"prompt_embeddings": rows}))
    assert not close(ours, logprobs(model))


@pytest.mark.parametrize("architecture", ["llama", "gemma", "gpt2"])
def test_a_prefix_is_pefts(architecture: str, load: Loader, store: Store) -> None:
    heads = 4 if architecture == "gpt2" else 2
    values = noise(2, 2, heads, 5, 8)
    model = Prefix(5).recover(load(architecture), store({"keys_values": values}))
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    ours = logprobs(model, root=root_of(model))
    assert close(ours, through_peft(load(architecture), config, {"prompt_embeddings": flatten(values)}))
    assert not close(ours, logprobs(model))


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt_neox", "gemma"])
def test_lora_is_pefts_merged_and_beside_the_weights(architecture: str, load: Loader, store: Store) -> None:
    wanted = load(architecture)
    layers = {n: m for n, m in wanted.module.named_modules() if isinstance(m, torch.nn.Linear) and "attention" in _above(n)}
    tensors = {}
    for seed, (name, layer) in enumerate(layers.items()):
        tensors[f"{name}.lora_A"] = noise(3, layer.in_features, seed=seed)
        tensors[f"{name}.lora_B"] = noise(layer.out_features, 3, seed=-seed - 1)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=6, target_modules=list(layers))
    named = {f"base_model.model.{name}.weight": tensor for name, tensor in tensors.items()}
    reference = through_peft(wanted, config, named)
    artifact = store(tensors)
    merged = logprobs(Lora(3, 6.0, merged=True).recover(load(architecture), artifact))
    beside = logprobs(Lora(3, 6.0, merged=False).recover(load(architecture), artifact))
    assert close(merged, reference)
    assert close(beside, reference)
    assert not close(merged, logprobs(load(architecture)))


def _above(name: str) -> str:
    return name.rpartition(".")[0].replace("self_attn", "attention")


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2"])
def test_a_written_prompt_is_its_text_before_the_input(architecture: str, load: Loader) -> None:
    model = TextPrompt("The sea was calm.").recover(load(architecture), None)
    ids = model.tokenizer.encode("The sea was calm.")
    whole = logprobs(model, [*ids, *IDS])[len(ids) :]
    assert close(logprobs(model, root=root_of(model)), whole)


@pytest.mark.parametrize("empty", [TextPrompt(""), RandomPrompt(0), RandomPrompt(0, "gaussian")])
def test_a_prompt_of_no_length_is_no_prompt(empty: TextPrompt | RandomPrompt, load: Loader) -> None:
    model = load()
    before = logprobs(model)
    recovered = empty.recover(model, None)
    assert recovered.soft_roots is None
    assert torch.equal(logprobs(recovered), before)


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "gpt_neox"])
def test_an_untrained_prefix_is_the_prompt_that_it_begins_with(architecture: str, load: Loader, store: Store) -> None:
    model = load(architecture)
    rows = vocabulary_rows(model, 5, torch.Generator().manual_seed(0))
    prompted = Prompt(5).recover(model, store({"prompt": rows}))
    values = Prefix(5)._first_values(load(architecture))
    prefixed = Prefix(5).recover(load(architecture), store({"keys_values": values}))
    assert close(logprobs(prefixed, root=root_of(prefixed)), logprobs(prompted, root=root_of(prompted)))
    assert all(torch.equal(a, b) for a, b in zip(as_pairs(values)[0], root_of(prefixed).keys_values[0], strict=True))


def test_idp_with_one_prompt_is_prompt_tuning(load: Loader, store: Store) -> None:
    rows = noise(6, 32)
    idp = Idp((6,)).recover(load(), store({"prompt.0": rows}))
    prompt = Prompt(6).recover(load(), store({"prompt": rows}))
    assert idp.soft_roots is not None
    assert idp.soft_roots.choose([(1, 2), (3,)]) == [0, 0]
    assert torch.equal(root_of(idp).embeddings, root_of(prompt).embeddings)


def test_random_rows_have_the_vocabularys_spread(load: Loader) -> None:
    model = load()
    known = model.module.get_input_embeddings().weight[: len(model.tokenizer)]
    drawn = root_of(RandomPrompt(100, "gaussian").recover(load(), None)).embeddings
    assert drawn.std(0).mean() == pytest.approx(float(known.std(0).mean()), rel=0.05)
    rows = root_of(RandomPrompt(20).recover(load(), None)).embeddings
    assert all((known == row).all(1).any() for row in rows)
    other = root_of(RandomPrompt(20, seed=1).recover(load(), None)).embeddings
    assert not torch.equal(rows, other)


@pytest.mark.parametrize("architecture", ["bert", "t5"])
@pytest.mark.parametrize("method", [Prompt(), Prefix(), Idp(), Lora(), RandomPrompt(), TextPrompt()])
def test_other_families_are_refused_with_the_reason(method: Any, architecture: str, load: Loader) -> None:
    with pytest.raises(RecoveryError, match=f"{method.name}.* is built for decoders.*recovery 'none'"):
        method.recover(load(architecture), None)


def test_a_prompt_as_long_as_the_window_is_refused(load: Loader, store: Store) -> None:
    with pytest.raises(RecoveryError, match="128 prompt positions don't fit into the model's window of 128 tokens"):
        RandomPrompt(128).recover(load(), None)
    with pytest.raises(RecoveryError, match="130 prompt positions"):
        Idp((3, 130)).recover(load(), store({"prompt.0": noise(3, 32), "prompt.1": noise(130, 32)}))


def test_an_artifact_of_another_size_is_refused(load: Loader, store: Store) -> None:
    with pytest.raises(RecoveryError, match=r"holds prompt \[5, 16\], this model and recipe want prompt \[5, 32\]"):
        Prompt(5).recover(load(), store({"prompt": noise(5, 16)}))
    with pytest.raises(RecoveryError, match="needs the artifact of its training and got none"):
        Prompt(5).recover(load(), None)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Prompt(0), "n_tokens = 0"),
        (lambda: Idp(()), "lengths = \\(\\)"),
        (lambda: Idp((4, 0)), "a length = 0"),
        (lambda: Idp((4, 5), choice=2), "choice = 2 .* attention, random, 0, 1"),
        (lambda: Lora(modules=[]), "modules = \\[\\]"),
        (lambda: Lora(modules="mlp"), "modules = 'mlp'"),
        (lambda: Lora(alpha=0), "alpha = 0"),
        (lambda: Prompt(training={"setps": 3}), "unknown key 'setps'; known: steps"),
        (lambda: Prompt(training={"learning_rate": 0}), "learning_rate = 0"),
        (lambda: TextPrompt(3), "text = 3"),
    ],
)
def test_fields_that_can_not_be_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()


def test_layers_that_the_model_does_not_have_are_refused(load: Loader) -> None:
    with pytest.raises(
        RecoveryError, match="matches no layer of LlamaForCausalLM: its layers are called down_proj, gate_proj"
    ):
        Lora(modules=["c_attn"]).recover(load(), None)
