"""Where a token stands among many at one blank: what every candidate scores when it is asked for by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.core.errors import ScoreError
from harness.models import MODELS
from harness.models.loaded import LoadedModel
from harness.models.roots import SoftRoot, SoftRoots
from harness.models.tiny import make_tiny, tiny_family
from harness.recovery.soft import continued_roots
from harness.scoring import RANKERS, SCORERS, Blank, Candidates, Request, Standing
from harness.scoring.rooted import keep_root

ARCHITECTURES = ("llama", "opt", "bert", "roberta", "distilbert", "albert", "t5")
WORDS = (" the", " a", " b", " sea", " at", " out", " in", " it", " an", " e", " s", " t")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_tiny(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


def load(folders: dict[str, Path], architecture: str) -> LoadedModel:
    loaded: LoadedModel = MODELS.load(tiny_family(architecture))().load(folders[architecture], device="cpu", dtype="float32")
    return loaded


def single_tokens(model: LoadedModel) -> dict[str, int]:
    """The words that this tokenizer writes as one token behind another word."""
    base = model.tokenizer.encode("a", add_special_tokens=False)
    written = {word: model.tokenizer.encode(f"a{word}", add_special_tokens=False) for word in WORDS}
    return {word: ids[-1] for word, ids in written.items() if ids[:-1] == base}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_standing_is_what_all_candidates_score_one_by_one(architecture: str, folders: dict[str, Path]) -> None:
    model = load(folders, architecture)
    tokens = single_tokens(model)
    assert len(tokens) >= 3
    candidates = Candidates(np.array(list(tokens.values())))
    asked = [("the sea at", " ."), ("a", " ."), ("the sea at", " out .")]
    groups = [[Blank(before, word, after, candidates) for word in tokens] for before, after in asked]
    standings = RANKERS.load(model.family)(model, batch_tokens=12).rank([*groups, []])
    assert standings[-1] == []
    requests = [[Request(before, word, after, "blank") for word in tokens] for before, after in asked]
    for scores, found in zip(SCORERS.load(model.family)(model).score(requests), standings, strict=False):
        logliks = np.array([score.loglik_nats for score in scores])
        assert [one.loglik_nats for one in found] == pytest.approx(logliks.tolist(), abs=1e-4)
        assert [one.n_ahead for one in found] == [int((logliks > own).sum()) for own in logliks]
        order = np.argsort(-logliks)[:10]
        assert found[0].best == tuple(candidates.tokens[order].tolist())
        assert found[0].best_logliks_nats == pytest.approx(logliks[order].tolist(), abs=1e-4)


def test_equal_candidates_are_ahead_and_the_lower_token_is_listed_first(folders: dict[str, Path]) -> None:
    model = load(folders, "llama")
    head = model.module.get_output_embeddings()
    with torch.no_grad():
        head.weight.zero_()  # type: ignore[union-attr, operator]
    found = RANKERS.load("decoder")(model).rank([[Blank("the sea", " the", " .", Candidates(np.array([9, 4, 7])))]])[0][0]
    assert found == Standing(found.token, pytest.approx(found.loglik_nats), 3, (4, 7, 9), (found.loglik_nats,) * 3)


def test_an_answer_of_several_tokens_is_refused(folders: dict[str, Path]) -> None:
    for architecture in ("llama", "bert", "t5"):
        model = load(folders, architecture)
        blank = Blank("the", " zyx qk", " .", Candidates(np.array([5, 6])))
        with pytest.raises(ScoreError, match=r"takes \d+ tokens after 'the': expected one"):
            RANKERS.load(model.family)(model).rank([[blank]])


def test_a_broken_model_is_told(folders: dict[str, Path]) -> None:
    model = load(folders, "llama")
    with torch.no_grad():
        model.module.get_input_embeddings().weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(ScoreError, match="nan"):
        RANKERS.load("decoder")(replace(model)).rank([[Blank("The", " the", " .", Candidates(np.array([5, 6])))]])


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [("prompt", name) for name in ("llama", "opt", "mistral", "bloom", "mamba")]
    + [("prefix", "llama"), ("prefix", "opt"), ("continue", "llama")],
)
def test_behind_a_soft_root_it_is_what_the_scorer_scores_there(kind: str, architecture: str, tmp_path: Path) -> None:
    model: LoadedModel = MODELS.load("decoder")().load(make_tiny(tmp_path, architecture), device="cpu", dtype="float32")
    tokens = list(single_tokens(model).values())
    rows = [0.3 * torch.randn((n, 32), generator=torch.Generator().manual_seed(n)) for n in (2, 5)]
    roots = tuple(SoftRoot(embeddings=one) for one in rows)
    if kind == "prefix":
        roots = tuple(SoftRoot(keys_values=keep_root(model.module.base_model, root)) for root in roots)
    if kind == "continue":
        roots = continued_roots(model, rows, 0)
    rooted = replace(model, soft_roots=SoftRoots(roots, lambda contexts: [int(len(context) > 3) for context in contexts]))
    groups = [
        [Blank(before, word, " .", Candidates(np.array(tokens))) for word in single_tokens(model)]
        for before in ("the sea at", "a", "the sea at night")
    ]
    told: list[tuple[int, int]] = []
    found = RANKERS.load("decoder")(rooted, batch_tokens=12, progress=lambda *done: told.append(done)).rank(groups)
    requests = [[Request(one.context, one.answer, one.after, "blank") for one in group] for group in groups]
    scores = SCORERS.load("decoder")(rooted).score(requests)
    assert [[one.root for one in group] for group in found] == [[score.root for score in group] for group in scores]
    assert {one.root for group in found for one in group} == {0, 1}
    for standings, wanted in zip(found, scores, strict=True):
        assert [one.loglik_nats for one in standings] == pytest.approx([score.loglik_nats for score in wanted], abs=1e-4)
    assert told[-1] == (3, 3)
    without = RANKERS.load("decoder")(model).rank(groups)
    assert without[0][0].root is None
    assert abs(without[0][0].loglik_nats - found[0][0].loglik_nats) > 0.01
