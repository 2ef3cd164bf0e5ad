"""Blocks in place: the same values as the modules' own code, only where they are of the known form, and only meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.tiny import TINY
from harness.scoring.decoder import DecoderScorer
from harness.scoring.lean import computing_in_place, lean_forwards, reading_only

MakeModel = Callable[..., LoadedModel]


@pytest.mark.parametrize("architecture", [name for name in TINY if name != "mamba"])
def test_a_model_puts_out_the_same_while_its_blocks_compute_in_place(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    ids = torch.tensor([[5, 9, 11, 3, 7, 5, 2]])
    with torch.inference_mode():
        own = model.module(ids).logits
        with computing_in_place(lean_forwards(model)):
            ours = model.module(ids).logits
        again = model.module(ids).logits
    assert torch.allclose(own, ours, rtol=1e-4, atol=1e-4)
    assert torch.equal(own, again)


@pytest.mark.parametrize(
    ("architecture", "n_modules"),
    [("llama", 2 + 5), ("qwen2", 2 + 5), ("mistral", 2 + 5), ("gemma", 0), ("opt", 0), ("gpt2", 0), ("gpt_neox", 0)],
)
def test_two_layers_have_two_feed_forwards_and_five_norms(architecture: str, n_modules: int, tiny_model: MakeModel) -> None:
    """Gemma's norm has 1 + w, and its gate a GELU: neither is of the form."""
    assert len(lean_forwards(tiny_model(architecture))) == n_modules


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
def test_what_is_read_is_the_same_where_the_last_feed_forward_leaves_out_the_rest(
    architecture: str, tiny_model: MakeModel
) -> None:
    model = tiny_model(architecture)
    ids, read = torch.tensor([[5, 9, 11, 3, 7, 5, 2]]), torch.tensor([2, 3, 6])
    forwards = lean_forwards(model, last_where_read=True)
    with torch.inference_mode():
        own = model.module(ids).logits[0]
        with computing_in_place(forwards), reading_only(7, read):
            some = model.module(ids).logits[0]
        with computing_in_place(forwards), reading_only(6, read):  # of another row: all are computed
            every = model.module(ids).logits[0]
        with computing_in_place(forwards), reading_only(7, read[:0]):
            none = model.module(ids).logits[0]
    assert torch.allclose(own[read], some[read], rtol=1e-4, atol=1e-4)
    assert torch.allclose(own, every, rtol=1e-4, atol=1e-4)
    left_out = torch.tensor([0, 1, 4, 5])
    assert not torch.isclose(own[left_out], some[left_out], rtol=1e-2).all(dim=-1).any()
    assert torch.equal(none[left_out], some[left_out])


def test_where_a_later_layer_mixes_tokens_nothing_is_left_out(tiny_model: MakeModel) -> None:
    """The probe finds it: the last feed-forward in the order of the modules is the first to run here."""
    model = tiny_model("llama", initializer_range=0.2)
    layers = model.module.model.layers  # type: ignore[union-attr]
    first, second = layers[0].mlp, layers[1].mlp  # type: ignore[index,union-attr]
    layers[0].mlp, layers[1].mlp = second, first  # type: ignore[index,union-attr]
    forwards = lean_forwards(model, last_where_read=True)
    assert DecoderScorer(model)._engine.lean.keys() >= forwards.keys()  # the last by its place: still the last to run
    layers[0].mlp = layers[1].mlp = first  # type: ignore[index,union-attr]
    scorer = DecoderScorer(model)
    assert scorer.path == "packed"
    kept = scorer._engine.lean[first]
    assert kept.func is not forwards[first].func  # type: ignore[attr-defined]


def test_what_only_looks_like_the_form_is_left_alone(tiny_model: MakeModel) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(32)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon) * (1 + self.weight)

    model = tiny_model("llama", initializer_range=0.02)  # its own copy: a norm is replaced below
    model.module.model.norm = Shifted()  # type: ignore[union-attr]
    found = lean_forwards(model)
    assert len(found) == 6
    assert not any(isinstance(module, Shifted) for module in found)


def test_hooks_run_all_the_same(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    seen: list[str] = []
    handle = model.module.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append("mlp"))  # type: ignore[union-attr,index]
    try:
        with torch.inference_mode(), computing_in_place(lean_forwards(model)):
            seen.clear()
            model.module(torch.tensor([[5, 9]]))
    finally:
        handle.remove()
    assert seen == ["mlp"]


def test_half_precision_keeps_its_own_code(tiny_model: MakeModel) -> None:
    half = Decoder().load(tiny_model("llama").folder, device="cpu", dtype="bfloat16")
    assert lean_forwards(half) == {}


def test_a_block_that_clamps_large_values_is_left_alone(tiny_model: MakeModel) -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)
            self.act_fn = nn.SiLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=50)) * self.up_proj(x))
            return made

    model = tiny_model("llama", initializer_range=0.03)  # its own copy
    model.module.model.layers[0].mlp = Clamped()  # type: ignore[union-attr,index]
    assert not any(isinstance(module, Clamped) for module in lean_forwards(model))


def test_what_stood_in_place_of_a_forward_stands_there_again_whatever_happened(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    forwards = lean_forwards(model)
    mine = next(iter(forwards))
    mine.forward = replaced = lambda x: x
    try:
        with pytest.raises(KeyboardInterrupt), computing_in_place(forwards):
            raise KeyboardInterrupt
        assert mine.forward is replaced
    finally:
        del mine.forward
    assert not any("forward" in vars(module) for module in forwards)


def test_a_block_whose_gate_is_watched_keeps_its_own_code(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    block = model.module.model.layers[0].mlp  # type: ignore[union-attr,index]
    handle = block.gate_proj.register_forward_hook(lambda *_: None)
    try:
        with computing_in_place(lean_forwards(model)):
            assert "forward" not in vars(block)
    finally:
        handle.remove()
