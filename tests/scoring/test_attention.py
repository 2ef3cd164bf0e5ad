"""Attention in blocks beside torch's own, and the keys and values it keeps beside transformers'."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from harness.models.loaded import LoadedModel
from harness.scoring import Request, attention, packed, products
from harness.scoring.attention import attend_in_blocks
from harness.scoring.decoder import DecoderScorer
from harness.scoring.packed import keep_packed
from harness.scoring.rooted import body, keep

MakeModel = Callable[..., LoadedModel]

needs_operator = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of torch has no linear operator of oneDNN's"
)


@pytest.mark.parametrize("n_kept", [0, 5])
@pytest.mark.parametrize("n_masked", [0, 9, 40])
@pytest.mark.parametrize("block_rows", [6, 21, 768])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (3, 1)])
def test_it_is_softmax_attention(
    n_kept: int, n_masked: int, block_rows: int, heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_heads, n_kv_heads = heads
    monkeypatch.setattr(attention, "BLOCK_ROWS", block_rows)
    random = torch.Generator().manual_seed(block_rows)
    n_tokens, n_seen = 40, 40 + n_kept
    query = torch.randn((n_heads, n_tokens, 8), generator=random)
    key = torch.randn((n_kv_heads, n_seen, 8), generator=random)
    value = torch.randn((n_kv_heads, n_seen, 12), generator=random)
    sees = torch.ones(n_tokens, n_seen, dtype=torch.bool).tril(n_kept)
    hidden = torch.rand((n_masked, n_seen), generator=random) < 0.5
    sees[n_tokens - n_masked :] &= ~hidden
    sees |= torch.eye(n_tokens, n_seen, dtype=torch.bool).roll(n_kept, 1)  # each sees itself
    mask = torch.zeros(n_tokens, n_seen).masked_fill_(~sees, torch.finfo(torch.float32).min)
    out = torch.empty(n_tokens, n_heads, 12)
    for scaling in (None, 0.7):
        attend_in_blocks(query, key, value, mask=mask[n_tokens - n_masked :] if n_masked else None, scaling=scaling, out=out)
        own = scaled_dot_product_attention(query[None], key[None], value[None], attn_mask=sees, scale=scaling, enable_gqa=True)
        assert torch.allclose(out.transpose(0, 1), own[0], rtol=1e-4, atol=1e-5)


@needs_operator
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "opt", "gpt2"])
def test_long_stretches_score_the_same_in_blocks(
    architecture: str, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced for every stretch: chains, branches, stems that are fed once, and what comes behind them."""
    model = tiny_model(architecture)
    asked: list[int] = []

    def always(query: torch.Tensor) -> bool:
        asked.append(query.shape[1])
        return True

    monkeypatch.setattr(packed, "products_are_faster", always)
    monkeypatch.setattr(packed, "TOGETHER_TOKENS", 0)
    monkeypatch.setattr(products, "FEWEST_PRODUCTS", 0)
    monkeypatch.setattr(attention, "BLOCK_ROWS", 10)
    shots = "one two three four five six seven eight nine ten " * 2
    groups = [
        [Request(shots + question, answer) for answer in (" yes", " no indeed", " no")]
        for question in ("is it so?", "why is it not so?", "who?")
    ]
    groups.append([Request("", shots)])
    ours, own = DecoderScorer(model, pass_tokens=0), DecoderScorer(model, path="plain")
    assert ours.keeps_stems
    asked.clear()
    for ours_group, own_group in zip(ours.score(groups), own.score(groups), strict=True):
        assert [s.loglik_nats for s in ours_group] == pytest.approx([s.loglik_nats for s in own_group], abs=2e-4)
    assert max(asked) > 10  # several blocks
    assert ours.tokens_fed < own.tokens_fed


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "opt", "gpt2"])
def test_what_is_kept_of_a_stem_is_what_transformers_would_keep(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    first = keep(body(model), (5, 9, 11, 3), None, "cpu")
    theirs = keep(body(model), (7, 5, 2), first, "cpu")
    ours = keep_packed(model, (7, 5, 2), keep_packed(model, (5, 9, 11, 3), None))
    assert len(ours) == len(theirs)
    for mine, others in zip(ours, theirs, strict=True):
        for a, b in zip(mine, others, strict=True):
            assert a.shape == b.shape
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gpt2"])
def test_what_is_kept_of_a_stem_holds_no_more_memory_than_it_needs(architecture: str, tiny_model: MakeModel) -> None:
    """GPT-2 and GPT-NeoX make queries, keys and values by one product."""
    for pair in keep_packed(tiny_model(architecture), (5, 9, 11, 3), None):
        for states in pair:
            assert states.untyped_storage().nbytes() == states.nbytes
