"""Where memory runs out, batches are fed in halves: the same scores, and a word about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from harness.models.loaded import LoadedModel
from harness.scoring import Prompt, Request
from harness.scoring.decoder import DecoderScorer
from harness.scoring.encoder import EncoderScorer
from harness.scoring.generate import GreedyGenerator
from harness.scoring.memory import Halving
from harness.scoring.seq2seq import Seq2SeqScorer

MakeModel = Callable[..., LoadedModel]

CITIES = ("Paris", "Rome", "Lima", "Oslo")
SENTENCES = [
    [Request(f"The capital of {land} is", f" {city}", ".", "sentence") for city in CITIES] for land in ("France", "Peru")
]
FAILURES = (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))


@contextmanager
def room_for(model: LoadedModel, n_tokens: int, error: Exception) -> Iterator[list[int]]:
    """While the block runs, the model fails on more tokens at once; the list has the sizes that it was fed."""
    fed: list[int] = []

    def check(_module: object, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = given[0] if given else named.get("decoder_input_ids", named.get("input_ids"))
        fed.append(ids.numel())
        if ids.numel() > n_tokens:
            raise error

    module = model.module
    bodies = {module, module.base_model} if not module.config.is_encoder_decoder else {module}  # type: ignore[union-attr]
    hooks = [body.register_forward_pre_hook(check, with_kwargs=True) for body in bodies]  # type: ignore[union-attr]
    try:
        yield fed
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("error", FAILURES)
@pytest.mark.parametrize(
    ("architecture", "make"),
    [
        ("llama", DecoderScorer),
        ("llama", lambda model: DecoderScorer(model, path="plain")),
        ("llama", lambda model: DecoderScorer(model, pass_tokens=4)),
        ("bert", EncoderScorer),
        ("t5", Seq2SeqScorer),
    ],
)
def test_scores_are_the_same_in_halves(
    architecture: str,
    make: Callable[[LoadedModel], Any],
    error: Exception,
    tiny_model: MakeModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tiny_model(architecture)
    scorer = make(model)  # its probes run where there is room
    with room_for(model, 10**9, error) as fed:
        whole = scorer.score(SENTENCES)
    with caplog.at_level(logging.WARNING), room_for(model, max(fed) - 1, error):
        halved = scorer.score(SENTENCES)
    for mine, others in zip(halved, whole, strict=True):
        for a, b in zip(mine, others, strict=True):
            assert a.loglik_nats == pytest.approx(b.loglik_nats, abs=1e-4)
    assert "too many for the memory" in caplog.text


@pytest.mark.parametrize("error", FAILURES)
def test_what_many_begin_with_is_fed_in_halves_where_it_is_too_long(
    error: Exception, tiny_model: MakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("llama")
    opening = "Question: which city is it? Answer: Lima. " * 3
    groups = [[Request(opening + land, f" {city}") for city in CITIES[:2]] for land in ("France", "Peru", "Norway")]
    scorer = DecoderScorer(model, pass_tokens=4)
    with room_for(model, 10**9, error) as fed:
        whole = scorer.score(groups)
    stem, others = fed[0], max(fed[1:])
    assert stem > others, "the beginning is what does not fit"
    with caplog.at_level(logging.WARNING), room_for(model, stem - 1, error):
        halved = scorer.score(groups)
    assert f"a beginning of {stem} tokens is too much for the memory" in caplog.text
    for mine, others_ in zip(halved, whole, strict=True):
        assert [a.loglik_nats for a in mine] == pytest.approx([b.loglik_nats for b in others_], abs=1e-4)


def test_texts_are_the_same_in_halves(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    prompts = [[Prompt(f"The capital of {land} is", (".",), 4)] for land in ("France", "Peru", "Italy")]
    generator = GreedyGenerator(model)
    with room_for(model, 10**9, FAILURES[0]) as fed:
        whole = generator.generate(prompts)
    with room_for(model, max(fed) - 1, FAILURES[0]):
        assert generator.generate(prompts) == whole


def test_what_did_not_fit_once_is_not_tried_again() -> None:
    tried: list[int] = []

    def run(rows: Sequence[int]) -> list[int]:
        tried.append(len(rows))
        if len(rows) > 3:
            raise FAILURES[0]
        return [-row for row in rows]

    halving = Halving()
    assert halving.feed(range(8), len, run) == [-row for row in range(8)]
    assert tried == [8, 4, 2, 2, 2, 2]
    assert halving.too_many_tokens == 4
    assert halving.feed(range(5), len, run) == [-row for row in range(5)]
    assert tried[6:] == [2, 3]


def test_a_single_row_that_does_not_fit_and_other_errors_are_raised() -> None:
    def fail(error: Exception) -> Callable[[Sequence[int]], list[int]]:
        def run(_rows: Sequence[int]) -> list[int]:
            raise error

        return run

    with pytest.raises(torch.OutOfMemoryError):
        Halving().feed([1, 2, 3], len, fail(FAILURES[0]))
    with pytest.raises(RuntimeError, match="shapes"):
        Halving().feed([1, 2], len, fail(RuntimeError("shapes do not match")))
