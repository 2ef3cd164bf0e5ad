"""A text in windows: lm-eval's windows, and the scores of its own model class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import ConfigError, ScoreError
from harness.models.loaded import LoadedModel
from harness.scoring import Request, identity_of
from harness.scoring.decoder import DecoderScorer
from harness.scoring.rolling import cut_windows

MakeModel = Callable[..., LoadedModel]

TEXTS = (
    "short",
    "The capital of France is Paris. " * 12,
    "<s>starts with BOS and goes on. " * 9,
    "one more, of another length " * 30,
)


def rolling(text: str) -> Request:
    return Request("", text, reading="rolling")


@settings(deadline=None)  # the first call imports lm-eval
@given(n=st.integers(1, 60), window=st.integers(1, 20))
def test_windows_are_lm_evals(n: int, window: int) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # noqa: TID251 - the reference

    tokens = list(range(1, n + 1))
    theirs = [make_disjoint_window(pair) for pair in get_rolling_token_windows(tokens, 0, window, 1)]
    ours = list(cut_windows(tokens, 0, window))
    assert [(list(w.tokens), w.n_scored) for w in ours] == [(a + b, len(b)) for a, b in theirs]
    assert sum(w.n_scored for w in ours) == n


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("path", ["tree", "plain"])
def test_scores_equal_lm_evals_own_model_class(adds_bos: bool, path: str, tiny_model: MakeModel) -> None:
    from lm_eval.api.instance import Instance  # noqa: TID251
    from lm_eval.models.huggingface import HFLM  # noqa: TID251

    model = tiny_model("llama", adds_bos=adds_bos)
    reference = HFLM(pretrained=model.module, tokenizer=model.tokenizer, batch_size=1, device="cpu")
    instances = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in TEXTS]
    theirs = reference.loglikelihood_rolling(instances, disable_tqdm=True)
    scores = DecoderScorer(model, path=path).score([[rolling(text)] for text in TEXTS])  # type: ignore[arg-type]
    assert [row[0].loglik_nats for row in scores] == pytest.approx(theirs, abs=1e-2, rel=1e-6)
    special = model.tokenizer.encode(TEXTS[1])
    assert scores[1][0].n_tokens == len(special) > model.module.config.max_position_embeddings  # type: ignore[union-attr]


def test_a_group_may_mix_rolling_texts_with_other_requests(tiny_model: MakeModel) -> None:
    scorer = DecoderScorer(tiny_model("llama"))
    other = Request("The capital of France is", " Paris")
    heard: list[tuple[int, int]] = []
    scorer._progress = lambda done, n: heard.append((done, n))
    [mixed, alone] = scorer.score([[rolling(TEXTS[3]), other, rolling(TEXTS[0])], [other]])
    assert mixed[1].n_tokens == alone[0].n_tokens
    assert mixed[1].loglik_nats == pytest.approx(alone[0].loglik_nats, abs=1e-5)
    assert mixed[2].n_tokens < mixed[0].n_tokens
    assert heard[-1] == (2, 2)


def test_a_text_without_tokens_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ScoreError, match="has no tokens"):
        DecoderScorer(tiny_model("llama")).score([[rolling("")]])


def test_decoders_can_read_rolling_texts() -> None:
    assert identity_of("rolling", "decoder") == "rolling/1"


@pytest.mark.parametrize(
    ("kind", "family", "able"),
    [
        ("continuation", "encoder", "decoder, seq2seq"),
        ("generation", "encoder", "decoder, seq2seq"),
        ("rolling", "encoder", "decoder"),
        ("rolling", "seq2seq", "decoder"),
    ],
)
def test_what_a_family_can_not_give_names_those_that_can(kind: Any, family: str, able: str) -> None:
    words = f"the task asks for '{kind}', which a model of family '{family}' can't give; families that can: {able}. Take"
    with pytest.raises(ConfigError, match=words):
        identity_of(kind, family)
