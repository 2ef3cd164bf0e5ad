"""Greedy generation: the text of lm-eval's own model class, whatever else is in the batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from harness.models.loaded import LoadedModel
from harness.models.seq2seq import Seq2Seq
from harness.models.tiny import TINY, TINY_SEQ2SEQ, make_tiny
from harness.scoring import GENERATORS, Generated, Prompt
from harness.scoring.generate import GreedyGenerator

MakeModel = Callable[..., LoadedModel]

CONTEXTS = (
    "The capital of France is",
    "Q",
    "The currency of Japan is the yen. The capital of Germany is Berlin. The symbol of gold is",
    "<s>starts with BOS",
    "two\nlines\n",
    "Lisbon is the capital of Portugal, and the people there",
)


def prompts(*, stop: tuple[str, ...] = (), n: int = 12) -> list[list[Prompt]]:
    return [[Prompt(context, stop, n)] for context in CONTEXTS]


def texts(rows: Sequence[Sequence[Generated]]) -> list[str]:
    return [made.text for row in rows for made in row]


def lm_eval_texts(model: LoadedModel, groups: Sequence[Sequence[Prompt]]) -> list[str]:
    from lm_eval.api.instance import Instance  # noqa: TID251 - the reference that we are compared with
    from lm_eval.models.huggingface import HFLM  # noqa: TID251

    reference = HFLM(pretrained=model.module, tokenizer=copy.deepcopy(model.tokenizer), batch_size=1, device="cpu")
    made = [
        Instance("generate_until", {}, (p.context, {"until": list(p.stop), "max_gen_toks": p.max_new_tokens}), 0)
        for group in groups
        for p in group
    ]
    return list(reference.generate_until(made, disable_tqdm=True))


@pytest.mark.parametrize("path", ["auto", "plain"])
def test_a_text_knows_whether_it_came_to_an_end_and_whether_its_context_was_cut(path: str, tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    generator = GreedyGenerator(model, path=path)  # type: ignore[arg-type]
    [[free]] = generator.generate([[Prompt("The capital of France is", (), 12)]])
    [[just]] = generator.generate([[Prompt("The capital of France is", (free.text[-1],), 12)]])
    window = model.module.config.max_position_embeddings  # type: ignore[union-attr]
    long = "The capital of France is Paris. " * window
    [[cut]] = generator.generate([[Prompt(long, (), 12)]])
    assert (free.is_ended, free.n_tokens, free.n_cut) == (False, 12, 0)
    assert just.is_ended  # also where the stop string comes with the last token that it may have
    assert cut.n_cut == len(model.tokenizer.encode(long)) - (window - 12)


# ------------------------------------------------------------------------------------------------ lm-eval's texts


@pytest.mark.parametrize("architecture", sorted(TINY))
def test_texts_equal_lm_evals_own_model_class(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    groups = prompts()
    assert texts(GreedyGenerator(model).generate(groups)) == lm_eval_texts(model, groups)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_text_ends_before_its_first_stop_string_as_lm_eval_cuts_it(adds_bos: bool, tiny_model: MakeModel) -> None:
    model = tiny_model("llama", adds_bos=adds_bos)
    whole = texts(GreedyGenerator(model).generate(prompts(n=24)))
    letters = [[c for c in text if c.isascii() and c.isalpha()] for text in whole]
    stop = (letters[2][4], letters[3][2], "never")
    groups = prompts(stop=stop, n=24)
    ours = GreedyGenerator(model).generate(groups)
    assert texts(ours) == lm_eval_texts(model, groups)
    assert ours[2][0].text == min((whole[2].split(text)[0] for text in stop), key=len)
    assert 0 < ours[2][0].n_tokens < 24


def test_a_context_that_leaves_no_room_loses_its_beginning_as_in_lm_eval(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    groups = [[Prompt("word " * 200 + "end", (), 100)]]
    assert texts(GreedyGenerator(model).generate(groups)) == lm_eval_texts(model, groups)


def test_an_end_token_ends_the_text_and_counts_as_made(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    [[free]] = GreedyGenerator(model).generate([[Prompt(CONTEXTS[0], (), 6)]])
    first = model.tokenizer.encode(free.text, add_special_tokens=False)[0]
    known = model.module.generation_config.eos_token_id
    model.module.generation_config.eos_token_id = [known, first]
    try:
        [[ended]] = GreedyGenerator(model).generate([[Prompt(CONTEXTS[0], (), 6)]])
    finally:
        model.module.generation_config.eos_token_id = known
    assert (free.n_tokens, ended.n_tokens) == (6, 1)


# ------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom", "mistral"])
def test_a_text_does_not_depend_on_what_else_is_in_the_batch(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    groups = prompts(stop=("e", "\n"), n=20)
    together = GreedyGenerator(model).generate(groups)
    assert together == GreedyGenerator(model, batch_tokens=1).generate(groups)
    assert together[::-1] == GreedyGenerator(model, batch_tokens=100).generate(groups[::-1])


def test_groups_keep_their_shape_and_prompts_may_differ_in_kind(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    one, two = Prompt("The", ("e",), 5), Prompt("Q", (), 9)
    heard: list[tuple[int, int]] = []
    generator = GreedyGenerator(model, progress=lambda done, n: heard.append((done, n)))
    rows = generator.generate([[one, two], [], [two]])
    assert [len(row) for row in rows] == [2, 0, 1]
    assert rows[0][1] == rows[2][0]
    assert heard[-1] == (3, 3)


def test_a_model_that_padding_disturbs_is_fed_one_prompt_at_a_time(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    groups = prompts(n=8)
    expected = GreedyGenerator(model, batch_tokens=1).generate(groups)
    seen: list[int] = []

    def deaf(module: object, arguments: object, options: dict[str, object]) -> tuple[object, dict[str, object]]:
        seen.append(len(options["input_ids"]))  # type: ignore[arg-type]
        return arguments, {**options, "attention_mask": None}

    handle = model.module.register_forward_pre_hook(deaf, with_kwargs=True)
    try:
        generator = GreedyGenerator(model, path="plain")
        seen.clear()
        assert generator.generate(groups) == expected
        assert set(seen) == {1}
    finally:
        handle.remove()


# ------------------------------------------------------------------------------------------------ what can't be asked


@pytest.mark.parametrize("n", [0, 128, 500])
def test_more_new_tokens_than_the_model_takes_are_refused(n: int, tiny_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match=f"asks for {n} new tokens, the model takes 128"):
        GreedyGenerator(tiny_model("llama")).generate([[Prompt("a", (), n)]])


def test_an_empty_context_starts_from_the_prefix_token(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    [[made]] = GreedyGenerator(model).generate([[Prompt("", (), 4)]])
    [[same]] = GreedyGenerator(model).generate([[Prompt("<s>", (), 4)]])
    assert made == same


@pytest.mark.parametrize("architecture", sorted(TINY_SEQ2SEQ))
def test_an_encoder_decoder_writes_what_lm_evals_own_model_class_writes(architecture: str, tmp_path: Path) -> None:
    """There, lm-eval goes on for as many more tokens as the context has: ours is how its text begins."""
    model = Seq2Seq().load(make_tiny(tmp_path, architecture), device="cpu", dtype="float32")
    groups = [[Prompt(context, (), 9)] for context in CONTEXTS]
    ours = GreedyGenerator(model).generate(groups)
    theirs = lm_eval_texts(model, groups)
    assert all(text.startswith(made) for text, made in zip(theirs, texts(ours), strict=True))
    assert any(made.n_tokens == 9 for [made] in ours)
    assert ours == GreedyGenerator(model, batch_tokens=1).generate(groups)
    assert ours == GreedyGenerator(model).generate(groups[::-1])[::-1]


def test_both_families_that_write_text_have_the_generator() -> None:
    assert {GENERATORS.load(family) for family in ("decoder", "seq2seq")} == {GreedyGenerator}
