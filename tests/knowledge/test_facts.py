"""Claims about the two ways of asking the facts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter

import pytest

from harness.core.errors import ConfigError, ModelError, ScoreError
from harness.core.records import Item
from harness.knowledge.factbook import FOLDER, Fact, Relation, load_facts, prompt
from harness.knowledge.facts import (
    LONG_CANDIDATES,
    MAX_GOLD,
    MAX_OPTIONS,
    NO_GOLD,
    NO_WRONG,
    Facts,
    FactsBlank,
    choose_options,
    rank_options,
    single_token_answers,
)
from harness.knowledge.sentences import BEYOND_WINDOW
from harness.scoring import Request, Score

GOLDEN_ITEMS_DIGEST = "f65e483b3412e77b5193367ceea2df52d73ff530c850c19f37b26b3b363f59c8"
"""Of all items of ``facts``. If it changes, every baseline must be measured again: change data and seed only on purpose."""


def item(*options: str, gold: tuple[int, ...] = (0,)) -> Item:
    return Item("capital:FR", "capital", "The capital of France is [Y].", options, gold)


def scores(*logliks: float, n_tokens: int = 1) -> list[Score]:
    return [Score(loglik, False, n_tokens) for loglik in logliks]


# ------------------------------------------------------------------------------------------------ outcomes


def test_the_likeliest_option_is_the_answer_and_the_margin_is_to_the_best_wrong_one():
    outcome = rank_options(item("Paris", "Rome", "Lima"), [-3.0, -5.0, -4.5])
    assert (outcome.answer, outcome.correct, outcome.rank, outcome.margin_nats) == (0, True, 1, 1.5)
    assert outcome.option_logliks_nats == (-3.0, -5.0, -4.5)


def test_the_rank_counts_the_wrong_options_above_the_best_right_one():
    outcome = rank_options(item("Paris", "Rome", "Lima", "Oslo", gold=(0, 3)), [-9.0, -1.0, -2.0, -4.0])
    assert (outcome.answer, outcome.correct, outcome.rank, outcome.margin_nats) == (1, False, 3, -3.0)


def test_any_right_answer_counts_and_right_ones_do_not_push_each_other_down():
    outcome = rank_options(item("Paris", "Rome", "Lima", gold=(0, 2)), [-2.0, -8.0, -1.0])
    assert (outcome.answer, outcome.correct, outcome.rank) == (2, True, 1)


@pytest.mark.parametrize("options", [("Paris", "Rome"), ("Rome", "Paris")])
def test_a_tie_with_a_wrong_option_counts_as_wrong_wherever_it_stands(options):
    tied = item(*options, gold=(options.index("Paris"),))
    outcome = rank_options(tied, [-2.0, -2.0])
    assert (options[outcome.answer], outcome.correct, outcome.rank, outcome.near_tie) == ("Rome", False, 2, True)


def test_a_lead_below_the_noise_of_float32_is_a_near_tie_but_decides():
    outcome = rank_options(item("Paris", "Rome"), [-2.0, -2.00005])
    assert outcome.correct
    assert outcome.near_tie
    assert not rank_options(item("Paris", "Rome"), [-2.0, -2.001]).near_tie


def test_options_that_are_all_right_have_no_margin():
    outcome = rank_options(item("Paris", "Lutetia", gold=(0, 1)), [-2.0, -3.0])
    assert (outcome.correct, outcome.rank, outcome.margin_nats, outcome.near_tie) == (True, 1, 0.0, False)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_refused_by_name(broken):
    with pytest.raises(ScoreError, match=r"capital:FR.*NaN or infinite"):
        Facts().outcome(item("Paris", "Rome"), scores(-1.0, broken))


@pytest.mark.parametrize("task", [Facts(), FactsBlank()])
def test_a_lost_score_is_refused(task):
    with pytest.raises(ScoreError, match="1 scores came for 2 options"):
        task.outcome(item("Paris", "Rome"), scores(-1.0))


def test_an_option_that_takes_two_tokens_at_the_blank_is_refused():
    with pytest.raises(ScoreError, match="several tokens"):
        FactsBlank().outcome(item("Paris", "Rome"), scores(-1.0, -2.0, n_tokens=2))


# ------------------------------------------------------------------------------------------------ requests


def test_the_primary_protocol_scores_the_whole_sentence_and_nothing_else():
    assert Facts().requests(item("Paris", "Rome")) == (
        Request("The capital of France is", " Paris", ".", "sentence"),
        Request("The capital of France is", " Rome", ".", "sentence"),
    )


def test_the_blank_is_read_from_left_to_right_with_the_space_on_the_answer():
    assert FactsBlank().requests(item("Paris", "Rome")) == (
        Request("The capital of France is", " Paris", ".", "blank"),
        Request("The capital of France is", " Rome", ".", "blank"),
    )


HOSTILE = ["<script>alert(1)</script>", "[Y]", "[X]", "{x}", "%s", "\u202eevil", "a\\b", "الرباط", "\U0001f600"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_asked_as_it_stands(text):
    relation = Relation("[X] is a city in [Y].", "N-1", "geography", "", "", ("Rome", text))
    fact = Fact("city:x", "city", text, (text,), ())
    asked = Item("city:x", "city", prompt(relation, fact), ("Rome", text), (1,))
    sentence = f"{text[:1].upper()}{text[1:]} is a city in {text}."
    assert Facts().requests(asked)[1] == Request(sentence[: -len(text) - 2], f" {text}", ".", "sentence")
    assert FactsBlank().requests(asked)[1] == Request(sentence[: -len(text) - 2], f" {text}", ".", "blank")


# ------------------------------------------------------------------------------------------------ candidates


def test_the_items_are_those_that_the_baselines_were_measured_on(tokenizer):
    info, _ = Facts().build(tokenizer)
    assert info.items_digest == GOLDEN_ITEMS_DIGEST


def test_candidates_do_not_depend_on_the_order_of_the_answer_set():
    answers = tuple(sorted(f"answer {n}" for n in range(40)))
    fact = Fact("capital:FR", "capital", "France", ("answer 7",), ("answer 9",))
    forwards = choose_options(fact, Relation("[X] is [Y].", "1-1", "", "", "", answers))
    backwards = choose_options(fact, Relation("[X] is [Y].", "1-1", "", "", "", answers[::-1]))
    assert forwards == backwards


def test_an_answer_that_joins_the_set_takes_one_place_or_none():
    answers = tuple(f"answer {n}" for n in range(40))
    changed = 0
    for n in range(200):
        fact = Fact(f"capital:{n}", "capital", "France", ("answer 7",), ())
        before, _ = choose_options(fact, Relation("[X] is [Y].", "1-1", "", "", "", answers))
        after, _ = choose_options(fact, Relation("[X] is [Y].", "1-1", "", "", "", (*answers, "newcomer")))
        assert set(after) - set(before) <= {"newcomer"}
        changed += set(after) != set(before)
    assert 0.15 < changed / 200 < 0.4  # 11 of 40 wrong answers are drawn


def test_right_answers_stand_anywhere_among_the_options(tokenizer):
    _, items = Facts().build(tokenizer)
    places = Counter(one.gold[0] for one in items if len(one.options) == MAX_OPTIONS and len(one.gold) == 1)
    assert set(places) == set(range(MAX_OPTIONS))
    assert max(places.values()) < 1.5 * sum(places.values()) / MAX_OPTIONS


# ------------------------------------------------------------------------------------------------ the shipped items


def test_every_item_offers_right_and_wrong_answers_within_the_limits(tokenizer):
    _, items = Facts().build(tokenizer)
    facts = {fact.id: fact for fact in load_facts().facts}
    for one in items:
        fact = facts[one.id]
        right = {one.options[i] for i in one.gold}
        assert len(one.options) <= MAX_OPTIONS
        assert len(set(one.options)) == len(one.options)
        assert 1 <= len(right) <= MAX_GOLD
        assert right <= set(fact.answers)
        assert not (set(one.options) - right) & {*fact.answers, *fact.also}


def test_guessing_and_the_commonest_answer_are_far_from_useful(tokenizer):
    info, items = Facts().build(tokenizer)
    assert info.n_items == len(items) >= 1000
    assert 1 / MAX_OPTIONS <= info.chance < 0.12
    assert info.majority < 0.15
    assert len({one.group for one in items}) >= 10


def test_chance_and_majority_are_what_a_hand_counts(facts_folder, tokenizer):
    info, items = Facts(folder=facts_folder()).build(tokenizer)
    # border: {5 options, 2 right}, {4, 1}; capital: {4, 1}, {2, 1}, {4, 1}. Commonest: one a relation.
    assert [len(one.options) for one in items] == [5, 4, 4, 2, 4]
    assert info.chance == pytest.approx((2 / 5 + 1 / 4 + 1 / 4 + 1 / 2 + 1 / 4) / 5)
    assert info.majority == pytest.approx(2 / 5)
    assert info.excluded == {}


def test_the_blank_enters_the_pool_where_it_is_asked_alone(tokenizer):
    assert FactsBlank(pooled=True).build(tokenizer)[0].pooled


def test_only_the_primary_protocol_enters_the_pool(tokenizer):
    assert Facts().build(tokenizer)[0].pooled
    assert not FactsBlank().build(tokenizer)[0].pooled


def test_the_probe_sentences_are_all_right_sentences_whatever_the_limit():
    sentences = list(Facts(limit=1).probe_sentences())
    assert "The capital of France is Paris." in sentences
    assert "The Netherlands shares a land border with Germany." in sentences
    assert len(sentences) == len(set(sentences)) == sum(len(fact.answers) for fact in load_facts().facts)


# ------------------------------------------------------------------------------------------------ the blank


def test_a_single_token_answer_adds_exactly_one_token_to_the_words_before_the_blank(tokenizer):
    relation = Relation("[X] is in [Y].", "N-1", "", "", "", ("France", "Timor-Leste", "the Netherlands"))
    assert single_token_answers(tokenizer, relation) == ("France",)


def test_answers_that_share_one_token_are_both_left_out():
    class Unknowing:
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return [{"is": 1, "Paris": 2}.get(word, 99) for word in text.split()]

    relation = Relation("[X] is [Y].", "N-1", "", "", "", ("Lima", "Paris", "Rome"))
    assert single_token_answers(Unknowing(), relation) == ("Paris",)


def test_a_tokenizer_that_merges_into_the_words_before_the_blank_has_no_single_token_answers():
    class Merging:
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return list(range(len(text.split()))) if text.count(" ") == 0 else [7] * (len(text.split()))

    relation = Relation("[X] is [Y].", "N-1", "", "", "", ("Lima", "Paris"))
    assert single_token_answers(Merging(), relation) == ()


def test_what_the_blank_can_not_ask_is_counted_by_reason(facts_folder, tokenizer):
    info, items = FactsBlank(folder=facts_folder()).build(tokenizer)
    assert [(one.id, one.options, one.gold) for one in items] == [
        ("border:CH", ("France", "Italy", "Peru"), (0, 1)),
        ("capital:FR", ("Lima", "Paris", "Rome"), (1,)),
    ]
    # Out: "the Netherlands" and "Port-Louis" are two tokens, and Italy's capital has no wrong candidate but Port-Louis.
    assert info.excluded == {NO_GOLD: 2, NO_WRONG: 1, LONG_CANDIDATES: 3}
    assert info.n_items == 2
    assert info.chance == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_a_tokenizer_without_any_single_token_answer_is_refused(facts_folder):
    class Letters:
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return [ord(letter) for letter in text]

    with pytest.raises(ModelError, match="nothing to ask"):
        FactsBlank(folder=facts_folder()).build(Letters())


# ------------------------------------------------------------------------------------------------ identity


def test_a_limit_takes_the_same_facts_in_the_same_order(tokenizer):
    _, every = Facts().build(tokenizer)
    info, some = Facts(limit=100).build(tokenizer)
    _, fewer = Facts(limit=40).build(tokenizer)
    assert len(some) == info.n_items == info.limit == 100
    assert set(fewer) < set(some)
    assert list(some) == [one for one in every if one in set(some)]
    assert len({one.group for one in some}) >= 10


def test_a_limit_beyond_the_facts_changes_no_item(tokenizer):
    assert Facts(limit=10**6).build(tokenizer)[1] == Facts().build(tokenizer)[1]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_asks_for_nothing_is_refused(limit, tokenizer):
    with pytest.raises(ConfigError, match="expected 1 or more"):
        Facts(limit=limit).build(tokenizer)


def test_the_spec_digest_changes_with_data_and_protocol_but_not_with_the_limit(facts_folder):
    specs = [Facts(), FactsBlank(), Facts(folder=facts_folder())]
    assert len({task.spec_digest() for task in specs}) == len(specs)
    assert Facts().spec_digest() == Facts(limit=10).spec_digest()


def test_the_facts_are_read_without_torch():
    code = (
        "import sys\nfrom harness.knowledge import KNOWLEDGE\n"
        "for name in ('facts', 'facts_blank'): KNOWLEDGE.load(name)(limit=5).spec_digest()\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_shipped_files_use_unix_lines_and_are_sorted_by_id():
    data = (FOLDER / "facts.jsonl").read_bytes()
    ids = [json.loads(line)["id"] for line in data.splitlines()]
    assert b"\r" not in data
    assert ids == sorted(ids)


# ------------------------------------------------------------------------------------------------ what a model can't be asked


@pytest.mark.parametrize("family", ["decoder", "encoder", "seq2seq"])
def test_a_sentence_that_does_not_fit_into_the_window_is_left_out_and_counted(family, facts_folder, tokenizer):
    subjects = {"long": " ".join(["long"] * 30), "short": "France"}
    facts = [
        {"id": name, "relation": "capital", "subject": subject, "answers": ["Paris"], "also": []}
        for name, subject in subjects.items()
    ]
    folder, tokenizer.model_max_length = facts_folder(facts=facts), 20
    info, items = Facts(folder=folder, family=family).build(tokenizer)
    assert ([one.id for one in items], info.excluded) == (["short"], {BEYOND_WINDOW: 1})
    blank, items = FactsBlank(folder=folder, family=family).build(tokenizer)
    left = {} if family == "decoder" else {BEYOND_WINDOW: 1}  # a decoder's context is cut on the left
    assert {key: n for key, n in blank.excluded.items() if key == BEYOND_WINDOW} == left
    assert len(items) == 2 - len(left)
    tokenizer.model_max_length = 4
    with pytest.raises(ModelError, match=rf"facts: none of its facts can be asked \({BEYOND_WINDOW}: 2\)"):
        Facts(folder=folder, family=family).build(tokenizer)
