"""Products by oneDNN: float32's own values, only for plain layers, only on processors where they are faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.tiny import TINY
from harness.scoring import Prompt, Request, products
from harness.scoring.decoder import DecoderScorer
from harness.scoring.encoder import EncoderScorer
from harness.scoring.generate import GreedyGenerator
from harness.scoring.lean import computing_in_place
from harness.scoring.products import onednn_is_faster, product, product_forwards
from harness.scoring.seq2seq import Seq2SeqScorer

MakeModel = Callable[..., LoadedModel]

needs_operator = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of torch has no linear operator of oneDNN's"
)


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product is oneDNN's, whatever the processor."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "FEWEST_PRODUCTS", 0)


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """The processor is looked at again, before and after."""
    onednn_is_faster.cache_clear()
    yield
    onednn_is_faster.cache_clear()


@needs_operator
@pytest.mark.usefixtures("by_onednn")
@pytest.mark.parametrize("shape", [(1, 64), (300, 64), (3, 7, 64)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_product_is_the_exact_one_up_to_rounding(shape: tuple[int, ...], has_bias: bool) -> None:
    random = torch.Generator().manual_seed(3)
    x, weight = torch.randn(shape, generator=random), torch.randn((48, 64), generator=random)
    bias = torch.randn(48, generator=random) if has_bias else None
    with torch.inference_mode():
        made = product(x, weight, bias)
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert made.dtype == torch.float32
    assert (made - exact).abs().max() <= 1e-5 * exact.abs().max()


@needs_operator
@pytest.mark.usefixtures("by_onednn")
def test_what_is_multiplied_may_have_gaps() -> None:
    wide = torch.sin(torch.arange(40 * 128, dtype=torch.float32)).view(40, 128)
    weight = torch.cos(torch.arange(16 * 64, dtype=torch.float32)).view(16, 64)
    x = wide[::2, 32:96]
    with torch.inference_mode():
        assert torch.allclose(product(x, weight), x @ weight.T, rtol=1e-5, atol=1e-5)


@needs_operator
@pytest.mark.usefixtures("by_onednn")
@pytest.mark.parametrize("architecture", [name for name in TINY if name != "mamba"])
def test_a_model_puts_out_the_same(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    ids = torch.tensor([[5, 9, 11, 3, 7, 5, 2]])
    with torch.inference_mode():
        own = model.module(ids).logits
        with computing_in_place(product_forwards(model)):
            ours = model.module(ids).logits
        again = model.module(ids).logits
    assert torch.allclose(own, ours, rtol=1e-4, atol=1e-4)
    assert torch.equal(own, again)


@needs_operator
@pytest.mark.usefixtures("by_onednn")
@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "gemma"])
def test_scores_are_those_of_the_models_own_products(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    groups = [
        [Request("The capital of France is", answer) for answer in (" Paris", " Rome", " a city")],
        [Request("", "One two")],
    ]
    scorer, plain = DecoderScorer(model), DecoderScorer(model, path="plain")
    assert scorer.path == "packed"
    for ours, own in zip(scorer.score(groups), plain.score(groups), strict=True):
        assert [score.loglik_nats for score in ours] == pytest.approx([score.loglik_nats for score in own], abs=1e-4)


@needs_operator
@pytest.mark.usefixtures("by_onednn")
@pytest.mark.parametrize(
    ("architecture", "work"),
    [
        ("llama", lambda model: DecoderScorer(model).score([[Request("One", " two")]])),
        ("bert", lambda model: EncoderScorer(model).score([[Request("One", " two", ".", "sentence")]])),
        ("t5", lambda model: Seq2SeqScorer(model).score([[Request("One", " two", ".", "sentence")]])),
        ("llama", lambda model: GreedyGenerator(model).generate([[Prompt("One", stop=("\n",), max_new_tokens=2)]])),
    ],
)
def test_scoring_and_generating_multiply_so(
    architecture: str, work: Callable[[LoadedModel], object], tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(architecture)
    widths: set[int] = set()

    def spy(x: torch.Tensor, *given: Any) -> torch.Tensor:
        widths.add(x.shape[-1])
        return product(x, *given)

    monkeypatch.setattr(products, "product", spy)
    work(model)
    assert widths


@pytest.mark.usefixtures("by_onednn")
def test_only_plain_layers_in_float32_are_replaced(tiny_model: MakeModel) -> None:
    class Noisy(nn.Linear):
        pass

    model = tiny_model("llama", initializer_range=0.04)  # its own copy: layers are replaced below
    layers = model.module.model.layers  # type: ignore[union-attr]
    n_before = len(product_forwards(model))
    assert n_before == 2 * 7 + 1  # two blocks and the head
    block = layers[0].mlp  # type: ignore[index,union-attr]
    block.up_proj = Noisy(32, 64, bias=False)
    block.gate_proj.forward = lambda x: x
    block.down_proj.weight = nn.Parameter(block.down_proj.weight.T.contiguous().T)
    left = product_forwards(model)
    assert len(left) == n_before - 3
    assert not {block.up_proj, block.gate_proj, block.down_proj} & set(left)
    half = Decoder().load(model.folder, device="cpu", dtype="bfloat16")
    assert product_forwards(half) == {}


@needs_operator
@pytest.mark.usefixtures("by_onednn")
def test_a_bias_with_gaps_and_parts_replaced_later_are_multiplied_right(tiny_model: MakeModel) -> None:
    model = tiny_model("qwen2", initializer_range=0.05)  # its own copy: a layer is changed below
    layer = model.module.model.layers[0].self_attn.q_proj  # type: ignore[index,union-attr]
    chosen = product_forwards(model)
    assert layer in chosen
    random = torch.Generator().manual_seed(5)
    layer.bias = nn.Parameter(torch.randn(2 * layer.out_features, generator=random)[::2], requires_grad=False)
    assert layer not in product_forwards(model)
    x = torch.randn((9, layer.in_features), generator=random)
    with torch.inference_mode():
        own = layer(x)
        with computing_in_place(chosen):
            ours = layer(x)
    assert torch.allclose(own, ours, rtol=1e-5, atol=1e-5)


@needs_operator
@pytest.mark.usefixtures("by_onednn")
@pytest.mark.parametrize(("message", "is_known"), [("could not create a primitive", True), ("something else", False)])
def test_without_a_kernel_the_product_is_torchs_own(message: str, is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_given: object) -> torch.Tensor:
        raise RuntimeError(message)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", fail)
    x, weight = torch.ones(3, 8), torch.ones(5, 8)
    if is_known:
        assert torch.equal(product(x, weight), nn.functional.linear(x, weight))
    else:
        with pytest.raises(RuntimeError, match=message):
            product(x, weight)


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(
    ("vendor", "vectors", "is_faster"),
    [("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False)],
)
def test_only_where_the_usual_library_leaves_vectors_unused(
    vendor: str, vectors: str, is_faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    monkeypatch.setattr(products, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    assert onednn_is_faster() is (is_faster and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


@pytest.mark.usefixtures("asked_anew")
def test_an_operator_that_is_gone_or_another_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("vendor_id\t: AuthenticAMD\n")
    monkeypatch.setattr(products, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")

    def other_arguments(*_: object) -> torch.Tensor:
        raise TypeError("_linear_pointwise() takes seven arguments")

    for operator in (other_arguments, lambda x, weight, _bias: x @ weight.T):
        onednn_is_faster.cache_clear()
        monkeypatch.setattr(products, "_multiply", operator)
        assert not onednn_is_faster()


@pytest.mark.usefixtures("asked_anew")
def test_elsewhere_every_layer_keeps_its_own_product(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert product_forwards(tiny_model("llama")) == {}
