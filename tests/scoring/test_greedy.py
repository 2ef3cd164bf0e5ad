"""Rows in slots: transformers' own texts one prompt at a time, nothing fed twice, nothing fed after its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.models.loaded import LoadedModel
from harness.models.tiny import TINY
from harness.scoring import Generated, Prompt, greedy
from harness.scoring.generate import GreedyGenerator
from harness.scoring.greedy import Ask, GreedyEngine, find_beginnings
from harness.scoring.greedy_probe import deepest_row
from harness.scoring.slots import Slots
from harness.scoring.stops import StopStrings, end_tokens

MakeModel = Callable[..., LoadedModel]

SHOTS = "Q: Where is Paris? A: In France.\nQ: Where is Lima? A: In Peru.\nQ: Where is Oslo? A: In Norway.\n"
CONTEXTS = (
    *(f"{SHOTS}Q: Where is {city}? A:" for city in ("Rome", "the old town of Riga", "Athens", "Nairobi")),
    "Q",
    "The currency of Japan is the yen. The capital of Germany is Berlin. The symbol of gold is",
    "two\nlines\n",
)
ELSEWHERE = {"bloom", "falcon", "mamba"}
"""ALiBi, an attention that can't be set, and no attention at all."""


def prompts(*, stop: tuple[str, ...] = ("e", "\n"), n: int = 20) -> list[list[Prompt]]:
    """Prompts of which some share a beginning, and that end at different times."""
    return [[Prompt(context, stop, n - i)] for i, context in enumerate(CONTEXTS)]


def one_by_one(model: LoadedModel, groups: Sequence[Sequence[Prompt]]) -> list[list[Generated]]:
    """What transformers' ``generate`` writes when it is given one prompt at a time."""
    return GreedyGenerator(model, path="plain", batch_tokens=1).generate(groups)


@contextmanager
def steps_of(model: LoadedModel) -> Iterator[list[int]]:
    """How many tokens each forward pass of the body is fed while the block runs."""
    fed: list[int] = []

    def note(_module: object, _given: object, named: dict[str, Any]) -> None:
        fed.append(named["input_ids"].numel())

    hook = model.module.base_model.register_forward_pre_hook(note, with_kwargs=True)  # type: ignore[union-attr,operator]
    try:
        yield fed
    finally:
        hook.remove()


# ------------------------------------------------------------------------------------------------ the same texts


@pytest.mark.parametrize("architecture", sorted(TINY))
def test_texts_and_counts_are_those_of_generate_beyond_the_window_too(architecture: str, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    generator = GreedyGenerator(model)
    assert generator.path == ("plain" if architecture in ELSEWHERE else "continuous")
    assert generator.generate(prompts()) == one_by_one(model, prompts())


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("falcon", {"alibi": True}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
    ],
)
def test_what_depends_on_places_in_other_ways_is_left_to_generate(
    architecture: str, changes: dict[str, Any], tiny_model: MakeModel
) -> None:
    model = tiny_model(architecture, **changes)
    generator = GreedyGenerator(model)
    assert generator.path == "plain"
    assert generator.generate(prompts()) == one_by_one(model, prompts())


@pytest.mark.parametrize("batch_tokens", [1, 60, 300])
@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_which_rows_run_together_changes_no_text(architecture: str, batch_tokens: int, tiny_model: MakeModel) -> None:
    model = tiny_model(architecture)
    expected = one_by_one(model, prompts())
    for shortest_stem in (4, 10**6):
        generator = GreedyGenerator(model, batch_tokens=batch_tokens, shortest_stem=shortest_stem)
        assert generator.generate(prompts()) == expected
        assert generator.generate(prompts()[::-1]) == expected[::-1]


def test_scores_are_capped_as_the_models_own_attention_caps_them(tiny_model: MakeModel) -> None:
    model = tiny_model("gemma2", attn_logit_softcapping=0.5)
    module: Any = model.module
    by_sdpa = one_by_one(model, prompts())
    module.set_attn_implementation("eager")
    try:
        generator = GreedyGenerator(model)
        assert generator.path == "continuous"
        assert generator.generate(prompts()) == one_by_one(model, prompts()) != by_sdpa
        assert module.config._attn_implementation == "eager"
    finally:
        module.set_attn_implementation("sdpa")


def test_what_lies_in_unused_memory_is_not_read(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    expected = one_by_one(model, prompts())
    torch.use_deterministic_algorithms(mode=True, warn_only=True)  # fills new memory with NaN
    try:
        assert GreedyGenerator(model).generate(prompts()) == expected
    finally:
        torch.use_deterministic_algorithms(mode=False)


def test_the_repetition_penalty_of_a_model_is_heeded_and_other_wishes_go_to_generate(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    config: Any = model.module.generation_config
    free = one_by_one(model, prompts(stop=()))
    for name, value, path in (("repetition_penalty", 1.3, "continuous"), ("no_repeat_ngram_size", 2, "plain")):
        setattr(config, name, value)
        try:
            generator = GreedyGenerator(model)
            assert generator.path == path
            assert generator.generate(prompts(stop=())) == one_by_one(model, prompts(stop=())) != free
        finally:
            setattr(config, name, None)


# ------------------------------------------------------------------------------------------------ nothing twice, no padding


def test_a_shared_beginning_is_fed_once_and_no_row_after_its_end(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    generator = GreedyGenerator(model, shortest_stem=4)
    with steps_of(model) as fed:
        made = [row for [row] in generator.generate(prompts())]
    tokens = [tuple(model.tokenizer.encode(context)) for context in CONTEXTS]
    stems = find_beginnings(tokens, 4)
    saved = sum((len(stem.members) - 1) * len(stem.tokens) for stem in stems)
    assert saved > 3 * 30
    assert len({row.n_tokens for row in made}) > 2
    assert sum(fed) == sum(map(len, tokens)) - saved + sum(row.n_tokens - 1 for row in made)


def test_a_prompt_that_waits_takes_the_place_of_a_row_that_ended(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    lengths = (30, 2, 2, 2, 2, 2, 2, 2)
    groups = [[Prompt(CONTEXTS[5], (), n)] for n in lengths]
    n_prompt = len(model.tokenizer.encode(CONTEXTS[5]))
    generator = GreedyGenerator(model, batch_tokens=2 * (n_prompt + 29))
    with steps_of(model) as fed:
        made = generator.generate(groups)
    assert [row.n_tokens for [row] in made] == list(lengths)
    assert len(fed) == 30  # as many as the longest row alone takes
    assert fed[:3] == [2 * n_prompt, 2, 1 + n_prompt]
    assert made == one_by_one(model, groups)


def test_prompts_enter_as_far_as_a_step_has_room_for_their_tokens(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    ends = end_tokens(model)
    asks = [Ask(tuple(range(20, 20 + n)), StopStrings(model.tokenizer, ()), 4) for n in (12, 7, 7, 3)]
    with steps_of(model) as fed:
        engine = GreedyEngine(model, ends=ends, cache_tokens=1000, step_tokens=10)
        engine.generate(asks, find_beginnings([ask.tokens for ask in asks], 99))
    assert fed[1:4] == [12, 1 + 7, 2 + 7]  # the first alone is longer than a step; before them one token tells the shapes


def test_a_root_stands_before_everything(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    stops = StopStrings(model.tokenizer, ())
    engine = GreedyEngine(model, ends=end_tokens(model), cache_tokens=300)
    tokens = [tuple(model.tokenizer.encode(context)) for context in CONTEXTS[:4]]
    root, rest = tokens[0][:9], [row[9:] for row in tokens]
    asks = [Ask(row, stops, 8) for row in rest]
    module: Any = model.module
    kept = [(layer.keys, layer.values) for layer in module(torch.tensor([root]), use_cache=True).past_key_values.layers]
    made = engine.generate(asks, find_beginnings(rest, 4), root=kept)
    assert [StopStrings.text(stops, row) for row in made] == [
        row.text for [row] in one_by_one(model, [[Prompt(context, (), 8)] for context in CONTEXTS[:4]])
    ]


def test_fewer_rows_run_where_the_memory_has_no_room_for_their_slots(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("llama")
    expected = one_by_one(model, prompts())
    generator = GreedyGenerator(model)

    def small(n_rows: int, *given: Any) -> Slots:
        if n_rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Slots(n_rows, *given)

    monkeypatch.setattr(greedy, "Slots", small)
    assert generator.generate(prompts()) == expected
    assert "no room for more than" in caplog.text


# ------------------------------------------------------------------------------------------------ does it hold?


def test_a_model_that_takes_other_positions_than_it_is_given_is_left_to_generate(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")

    def forget(_module: object, given: object, named: dict[str, Any]) -> tuple[object, dict[str, Any]]:
        return given, ({**named, "position_ids": 0 * named["position_ids"]} if "slots" in named else named)

    hook = model.module.base_model.register_forward_pre_hook(forget, with_kwargs=True)  # type: ignore[union-attr,operator]
    try:
        generator = GreedyGenerator(model)
        assert generator.path == "plain"
        assert generator.generate(prompts()) == one_by_one(model, prompts())
    finally:
        hook.remove()


def test_the_models_own_attention_is_back_after_an_error(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    generator = GreedyGenerator(model)

    def fail(*_given: object) -> None:
        raise KeyboardInterrupt

    hook = model.module.base_model.register_forward_pre_hook(fail)  # type: ignore[union-attr,operator]
    try:
        with pytest.raises(KeyboardInterrupt):
            generator.generate(prompts())
    finally:
        hook.remove()
    assert model.module.config._attn_implementation == "sdpa"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "windows", "deepest"),
    [
        ({}, {0: None, 1: None}, None),
        ({"sliding_window": 8}, {0: 8, 1: 8}, None),
        ({"sliding_window": 8}, {0: 8, 1: None}, 8),  # a layer that slides without telling the attention
        ({"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, {0: 8, 1: None}, None),
        ({"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}, {0: 8, 1: 8}, 8),
        ({"sliding_window": 8, "layer_types": ["chunked_attention", "full_attention"]}, {0: None, 1: None}, 8),
        ({"attention_chunk_size": 16}, {0: None, 1: None}, 16),
        ({"window_size": 4, "sliding_window": 8}, {0: 8, 1: 8}, 4),
    ],
)
def test_rows_stay_within_a_window_unless_every_layer_tells_of_its_own(
    config: dict[str, Any], windows: dict[int, int | None], deepest: int | None
) -> None:
    assert deepest_row(SimpleNamespace(**config), windows) == deepest


def test_rows_that_reach_beyond_an_unknown_window_are_left_to_generate(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("mistral", sliding_window=40)
    monkeypatch.setattr("harness.scoring.generate.deepest_row", lambda _config, _windows: 40)
    generator = GreedyGenerator(model)
    engine: Any = generator._engine
    fed_before = engine.tokens_fed
    assert generator.generate(prompts()) == one_by_one(model, prompts())
    fits = [p for [p] in prompts() if len(model.tokenizer.encode(p.context)) + p.max_new_tokens <= 40]
    assert 0 < len(fits) < len(CONTEXTS)
    assert 0 < engine.tokens_fed - fed_before < generator.tokens_fed


# ------------------------------------------------------------------------------------------------ stop strings


def test_a_stop_string_is_looked_for_in_the_last_tokens_only(tiny_model: MakeModel) -> None:
    tokenizer = tiny_model("llama").tokenizer
    stops = StopStrings(tokenizer, (" Japan", "\n\n", ""))
    assert stops.strings == (" Japan", "\n\n", "</s>")
    decoded: list[int] = []
    counted = SimpleNamespace(
        eos_token_id=tokenizer.eos_token_id,
        encode=tokenizer.encode,
        decode=lambda ids, **options: (
            decoded.append(len(ids) if isinstance(ids, list) else 1),
            tokenizer.decode(ids, **options),
        )[1],
    )
    watched = StopStrings(counted, (" Japan", "\n\n"))
    made = tokenizer.encode("The currency of Japan is the yen", add_special_tokens=False)
    found = [watched.appear(made[: n + 1]) for n in range(len(made))]
    first = found.index(True)
    assert tokenizer.decode(made[: first + 1]).endswith(" Japan")
    assert max(decoded) <= max(len(tokenizer.encode(stop, add_special_tokens=False)) for stop in watched.strings) + 2
    assert stops.text(made) == "The currency of"
