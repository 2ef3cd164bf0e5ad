"""lm-eval's tasks as tasks of ours: items, outcomes, digests, and every way to ask for something that can't be had."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from harness.core.errors import ConfigError, DownloadError, FileFormatError, ModelError, ScoreError, UnknownNameError
from harness.core.outcomes import UNPARSED
from harness.core.records import Item
from harness.knowledge import KNOWLEDGE
from harness.knowledge.continuations import BEYOND_WINDOW, NO_TOKENS
from harness.knowledge.lm_eval import LmEval
from harness.knowledge.lm_eval_items import NO_OPTIONS, NOT_SAMPLED, NULL_FIELD, REPEATED
from harness.knowledge.task_index import GROUP_KEYS
from harness.models.tiny_tokenizers import tiny_tokenizer
from harness.scoring import Answer, Generated, Prompt, Request, Score

BUILT_FOR: Any = None
"""Texts fit any tokenizer."""

QUESTIONS = [
    {"question": "What is the capital of France?", "options": ["Rome", "Paris", "Lima"], "answer": 1},
    {"question": "Which metal is liquid at room temperature?", "options": ["mercury", "iron", "gold"], "answer": 0},
    {"question": "How many legs has a spider?", "options": ["four", "six", "eight"], "answer": 2},
    {"question": "What do bees make?", "options": ["honey", "silk", "salt"], "answer": 0},
    {"question": "Which planet is nearest the sun?", "options": ["Mercury", "Venus", "Mars"], "answer": 0},
    {"question": "What freezes at zero degrees?", "options": ["iron", "water", "salt"], "answer": 1},
]

CHOICE: dict[str, Any] = {
    "task": "made_up",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "test.jsonl", "train": "train.jsonl"}},
    "output_type": "multiple_choice",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_choice": "options",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "f1"}],
}
GENERATION: dict[str, Any] = {
    **CHOICE,
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": "{{options}}",
    "metric_list": [{"metric": "exact_match", "ignore_case": True}],
    "generation_kwargs": {"until": ["\n", "."], "do_sample": False, "max_gen_toks": 7},
    "filter_list": [
        {"name": "bare", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]},
        {"name": "first-word", "filter": [{"function": "regex", "regex_pattern": r"(\w+)"}, {"function": "take_first"}]},
    ],
}
LAST_WORD: dict[str, Any] = {
    **CHOICE,
    "output_type": "loglikelihood",
    "doc_to_choice": None,
    "doc_to_target": "{{' ' + options[answer]}}",
    "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
}
ROLLING: dict[str, Any] = {
    **CHOICE,
    "output_type": "loglikelihood_rolling",
    "doc_to_choice": None,
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "word_perplexity"}],
}

Make = Callable[..., LmEval]


class Function(str):
    """A `!function` in a task file."""


yaml.SafeDumper.add_representer(Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def write_task(folder: Path, config: dict[str, Any], name: str = "task.yaml") -> Path:
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return folder / name


def write_rows(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path, "test", QUESTIONS)
    write_rows(tmp_path, "train", [{**row, "question": f"{row['question']} (train)"} for row in QUESTIONS])
    return tmp_path


@pytest.fixture
def make(folder: Path) -> Make:
    """A task from a config written to a file; keyword arguments in capitals are keys of the task file."""

    def made(
        config: dict[str, Any] = CHOICE, *, metric: str = "acc", changes: dict[str, Any] | None = None, **choices: Any
    ) -> LmEval:
        return LmEval(file=write_task(folder, {**config, **(changes or {})}), metric=metric, **choices)

    return made


def built(task: LmEval) -> tuple[Item, ...]:
    return task.build(BUILT_FOR)[1]


def scores(*logliks: float, greedy: int | None = None) -> list[Answer]:
    return [Score(loglik, i == greedy, 3) for i, loglik in enumerate(logliks)]


# ------------------------------------------------------------------------------------------------ what is asked


def test_multiple_choice_asks_each_option_after_the_prompt(make: Make) -> None:
    task = make()
    info, items = task.build(BUILT_FOR)
    assert [item.prompt for item in items] == [f"Q: {row['question']}\nA:" for row in QUESTIONS]
    assert (items[0].options, items[0].gold, items[0].group) == (("Rome", "Paris", "Lima"), (1,), "made_up")
    assert task.requests(items[0])[1] == Request("Q: What is the capital of France?\nA:", " Paris")
    assert (task.kind, info.score_class, info.chance, info.majority) == ("continuation", "log_likelihood", 1 / 3, 1 / 6)
    assert (info.pooled, info.limit, info.excluded) == (True, None, {})
    assert info.tie_rule.startswith("lm-eval's")
    assert info.protocol.endswith("acc, 0-shot")


def test_always_saying_no_is_a_majority_whatever_stands_before_it(make: Make) -> None:
    """As in super_glue's multirc, whose options repeat the answer in question: "no" is right in three documents of six."""
    options = "{{ [options[0] + '? yes', options[0] + '? no'] }}"
    task = make(changes={"doc_to_choice": options, "doc_to_target": "{{ 0 if answer == 0 else 1 }}"})
    info, items = task.build(BUILT_FOR)
    assert items[0].options == ("Rome? yes", "Rome? no")
    assert (info.chance, info.majority) == (1 / 2, 3 / 6)


def test_generation_asks_prompts_and_takes_every_accepted_answer(make: Make) -> None:
    task = make(GENERATION, metric="exact_match")
    info, items = task.build(BUILT_FOR)
    assert task.requests(items[0]) == (Prompt("Q: What is the capital of France?\nA:", ("\n", "."), 7),)
    assert (items[0].options, items[0].gold) == (("Rome", "Paris", "Lima"), (0, 1, 2))
    assert (task.kind, info.score_class, info.chance, task.keeps_option_scores) == ("generation", "generation", 0.0, False)
    assert info.protocol.endswith("exact_match, 0-shot, filter bare")


def test_the_last_word_is_asked_as_a_continuation_without_chance(make: Make) -> None:
    task = make(LAST_WORD)
    info, items = task.build(BUILT_FOR)
    assert task.requests(items[0]) == (Request("Q: What is the capital of France?\nA:", " Paris"),)
    assert (items[0].options, info.chance) == ((" Paris",), 0.0)
    assert "next tokens" in info.tie_rule


def test_options_in_the_prompt_leave_a_blank(make: Make) -> None:
    rows = {"doc_to_text": "{{answer}}", "doc_to_target": " is right.", "doc_to_choice": "{{['I say ' + x for x in options]}}"}
    task = make(
        changes={**rows, "doc_to_choice": "{{[question + ' It is ' + options[0], question + ' It is ' + options[1]]}}"}
    )
    write_rows(task.file.parent, "test", QUESTIONS[:2])  # type: ignore[union-attr]
    item = built(task)[0]
    assert item.prompt == "What is the capital of France? It is [Y]  is right."
    assert (item.options, item.gold) == (("Rome", "Paris"), (1,))
    assert [r.context for r in task.requests(item)] == [f"What is the capital of France? It is {o}" for o in item.options]


def test_mutual_information_asks_each_option_without_context_too(make: Make) -> None:
    task = make(changes={"metric_list": [{"metric": "acc"}, {"metric": "acc_mutual_info"}]}, metric="acc_mutual_info")
    item = task.build(tiny_tokenizer())[1][0]
    requests = task.requests(item)
    assert [(r.context == "", r.continuation) for r in requests[3:]] == [(True, f" {option}") for option in item.options]
    made = task.outcome(item, scores(-3.0, -4.0, -9.0, -1.0, -6.0, -7.0))
    assert (made.option_logliks_nats, made.answer, made.correct) == ((-2.0, 2.0, -2.0), 1, True)


def test_the_other_metrics_of_a_task_cost_nothing(make: Make) -> None:
    task = make(changes={"metric_list": [{"metric": "acc"}, {"metric": "acc_mutual_info"}]})
    assert len(task.requests(built(task)[0])) == 3


def test_rolling_texts_are_asked_where_a_metric_of_the_tasks_own_is_right_or_wrong(make: Make, folder: Path) -> None:
    (folder / "own.py").write_text(
        "def right(doc, results):\n    return {'likely': int(results[0] > -10)}\n", encoding="utf-8"
    )
    measured = [{"metric": "likely", "aggregation": "mean", "higher_is_better": True}]
    changes = {"process_results": Function("own.right"), "metric_list": measured}
    task = make(ROLLING, changes=changes, metric="likely", allow_code=True)
    item = built(task)[0]
    assert task.kind == "rolling"
    assert task.requests(item) == (Request("", QUESTIONS[0]["question"], reading="rolling"),)
    assert [task.outcome(item, scores(x)).correct for x in (-9.0, -11.0)] == [True, False]


def test_a_perplexity_is_measured_text_by_text_and_nothing_is_right(make: Make) -> None:
    task = make(ROLLING, metric="word_perplexity")
    info, items = task.build(None)  # type: ignore[arg-type]
    outcomes = [task.outcome(item, scores(-6.0 - i)) for i, item in enumerate(items)]
    assert (info.score_class, info.pooled, info.chance) == ("perplexity", False, 0.0)
    assert not any(one.correct for one in outcomes)
    n_words = [len(row["question"].split()) for row in QUESTIONS[: len(items)]]
    assert [one.margin_nats for one in outcomes] == pytest.approx([-(6 + i) / n for i, n in enumerate(n_words)])
    assert [one.option_logliks_nats for one in outcomes] == [(-6.0 - i,) for i in range(len(items))]


# ------------------------------------------------------------------------------------------------ what comes back


def test_of_equal_scores_the_first_option_is_given_as_lm_eval_does(make: Make) -> None:
    task = make()
    item = built(task)[1]  # the first option is right
    tied = task.outcome(item, scores(-2.0, -2.0, -5.0))
    assert (tied.answer, tied.correct, tied.rank, tied.margin_nats, tied.near_tie) == (0, True, 1, 0.0, True)
    beaten = task.outcome(built(task)[0], scores(-2.0, -2.0, -5.0))  # the second one is
    assert (beaten.answer, beaten.correct, beaten.rank, beaten.margin_nats) == (0, False, 2, 0.0)


def test_acc_norm_compares_by_character_and_acc_bytes_by_byte(make: Make) -> None:
    rows = [{"question": "?", "options": ["éé", "abcd"], "answer": 1}]
    for metric, answer, compared in (("acc", 0, (-4.0, -6.0)), ("acc_norm", 1, (-2.0, -1.5)), ("acc_bytes", 0, (-1.0, -1.5))):
        task = make(changes={"metric_list": [{"metric": metric}]}, metric=metric)
        write_rows(task.file.parent, "test", rows)  # type: ignore[union-attr]
        made = task.outcome(built(task)[0], scores(-4.0, -6.0))
        assert (made.answer, made.correct, made.option_logliks_nats) == (answer, answer == 1, compared)
        assert made.margin_nats == pytest.approx(compared[1] - compared[0])


def test_a_greedy_task_is_right_when_the_target_is_what_the_model_would_write(make: Make) -> None:
    task = make(LAST_WORD)
    item = built(task)[0]
    right, wrong = task.outcome(item, scores(-2.0, greedy=0)), task.outcome(item, scores(-1.0))
    assert (right.correct, right.answer, right.rank, right.margin_nats) == (True, 0, 1, 0.0)
    assert (wrong.correct, wrong.answer, wrong.rank) == (False, -1, 2)


@pytest.mark.parametrize(
    ("text", "name", "answer", "correct"),
    [
        (" paris ", None, 1, True),
        ("London", None, -1, False),
        ("Lima, of course", None, -1, False),
        ("Lima, of course", "first-word", 2, True),
    ],
)
def test_a_generated_text_is_judged_after_the_tasks_filter(
    text: str, name: str | None, answer: int, correct: bool, make: Make
) -> None:
    task = make(GENERATION, metric="exact_match", filter=name)
    made = task.outcome(built(task)[0], [Generated(text, 3)])
    assert (made.answer, made.correct, made.rank, made.text) == (answer, correct, 1 if correct else 4, text)


@pytest.mark.parametrize(
    ("made", "filtered", "answer"),
    [
        (Generated("London", 2), None, -1),
        (Generated("  ", 2), None, UNPARSED),
        (Generated("Lima, and so on, and so", 8, is_ended=False), None, UNPARSED),
        (Generated("paris", 8, is_ended=False), None, 1),  # what the task takes is right, however it ends
        (Generated("no number", 3), "a-number", UNPARSED),
        (Generated("it is 7", 3), "a-number", -1),
    ],
)
def test_an_answer_that_could_not_be_read_is_apart_from_the_wrong_ones(
    made: Generated, filtered: str | None, answer: int, make: Make
) -> None:
    number = {"name": "a-number", "filter": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}]}
    changes = {"filter_list": [*GENERATION["filter_list"], number]}
    task = make(GENERATION, metric="exact_match", filter=filtered, changes=changes)
    outcome = task.outcome(built(task)[0], [made])
    assert (outcome.answer, outcome.correct) == (answer, answer == 1)


def test_a_fixed_sample_is_counted_and_holds_the_smaller_ones(make: Make) -> None:
    whole = built(make())
    info, drawn = make(n_items=2).build(BUILT_FOR)
    assert (info.n_items, info.limit, info.excluded) == (2, None, {"documents outside the fixed sample": len(whole) - 2})
    assert {item.id for item in built(make(n_items=1))} < {item.id for item in drawn} < {item.id for item in whole}
    with pytest.raises(ConfigError, match="n_items is 0, expected 1 or more"):
        make(n_items=0)


def test_a_score_that_is_not_finite_or_missing_is_an_error(make: Make) -> None:
    task = make()
    item = built(task)[0]
    with pytest.raises(ScoreError, match="NaN or infinite"):
        task.outcome(item, scores(-1.0, float("nan"), -2.0))
    with pytest.raises(ScoreError, match="2 answers came for 3 requests"):
        task.outcome(item, scores(-1.0, -2.0))


# ------------------------------------------------------------------------------------------------ order, limit, examples


def test_examples_are_drawn_in_document_order_before_a_limit_leaves_items_out(make: Make) -> None:
    whole = {item.id: item for item in built(make(num_fewshot=2))}
    some = built(make(num_fewshot=2, limit=3))
    assert len(some) == 3
    assert all(whole[item.id] == item for item in some)
    assert [item.id for item in some] == [name for name in whole if name in {item.id for item in some}]
    assert all(item.prompt.count("(train)") == 2 for item in whole.values())


def test_a_limit_takes_the_same_documents_with_and_without_examples(make: Make) -> None:
    assert [i.id for i in built(make(num_fewshot=2, limit=3))] == [i.id for i in built(make(limit=3))]


def test_probe_sentences_are_questions_with_right_answers_whatever_limit_and_examples(make: Make) -> None:
    sentences = list(make(num_fewshot=2, limit=1).probe_sentences())
    assert sentences[0] == "Q: What is the capital of France?\nA: Paris"
    assert len(sentences) == len(QUESTIONS)


def test_documents_without_a_right_option_are_left_out_and_counted(make: Make, folder: Path) -> None:
    write_rows(folder, "test", [*QUESTIONS, {**QUESTIONS[0], "answer": -1}, {**QUESTIONS[0], "answer": 7}])
    info, items = make().build(BUILT_FOR)
    assert (len(items), info.excluded) == (6, {"documents without a right option": 2})
    write_rows(folder, "test", [{**QUESTIONS[0], "answer": -1}])
    with pytest.raises(ConfigError, match="none of its documents can be asked"):
        make().build(BUILT_FOR)


@pytest.mark.parametrize("field", ["question", "options", "answer"])
def test_a_missing_field_is_not_asked_as_the_word_none(field: str, make: Make, folder: Path) -> None:
    write_rows(folder, "test", [*QUESTIONS, {key: value for key, value in QUESTIONS[0].items() if key != field}])
    for changes in ({}, {"doc_to_choice": "{{options}}", "doc_to_target": "{{answer}}"}):
        info, items = make(changes=changes).build(BUILT_FOR)
        assert (len(items), info.excluded) == (6, {NULL_FIELD: 1})


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'Q: ' ~ question }}",
        "{{ 'Q: ' + question }}",
        "{{ question + '?' }}",
        "{{question|trim}}",
        "{{question|replace('a', 'b')}}",
        "{{[question, 'x']|join(' ')}}",
        "{{'%s?'|format(question)}}",
        "{{question.strip()}}",
        "{{question[0]}} ...",
        "{% set asked = question %}{{asked}}",
        "{% for letter in question %}{{letter}}{% endfor %} ...",
    ],
)
def test_no_way_of_writing_a_missing_field_is_asked(template: str, make: Make, folder: Path) -> None:
    write_rows(folder, "test", [*QUESTIONS[:3], {**QUESTIONS[3], "question": None}, *QUESTIONS[4:]])
    whole = make(changes={"doc_to_text": template}, num_fewshot=2).build(BUILT_FOR)
    assert (len(whole[1]), whole[0].excluded) == (5, {NULL_FIELD: 1})


@pytest.mark.parametrize(
    "template",
    [
        "{{question or ''}} ...",
        "{{question|default('-', true)}}",
        "{{'-' if question == none else question}}",
        "{{options[0]}}",
    ],
)
def test_a_template_that_says_what_stands_for_a_missing_field_is_taken_at_its_word(
    template: str, make: Make, folder: Path
) -> None:
    write_rows(folder, "test", [*QUESTIONS[:3], {**QUESTIONS[3], "question": None}])
    info, items = make(changes={"doc_to_text": template}).build(BUILT_FOR)
    assert (len(items), info.excluded) == (4, {})
    assert "None" not in items[3].prompt


def test_a_missing_answer_among_several_is_none(make: Make, folder: Path) -> None:
    write_rows(folder, "test", [*QUESTIONS, {**QUESTIONS[0], "options": ["honey", None]}])
    info, items = make(GENERATION, metric="exact_match", changes={"doc_to_target": "options"}).build(BUILT_FOR)
    assert (len(items), info.excluded) == (6, {NULL_FIELD: 1})


def test_a_row_that_can_not_be_written_is_told_by_its_number(make: Make, folder: Path) -> None:
    write_rows(folder, "test", [*QUESTIONS, {**QUESTIONS[0], "answer": 9}])
    with pytest.raises(
        ConfigError, match=r"document 6 of 'test', counted from 0, can't be asked \(UndefinedError: .*\): corr"
    ):
        make(LAST_WORD).build(BUILT_FOR)


def test_texts_like_dates_are_asked_as_they_are_written(make: Make, folder: Path) -> None:
    """The loader makes times of them, which end in hours."""
    rows = [{"question": f"196{i}-07-20", "options": [f"197{i}-01-01", "1981-01-01T10:00:00"], "answer": 0} for i in range(3)]
    write_rows(folder, "test", rows)
    items = built(make())
    assert [(item.prompt, item.options) for item in items] == [(f"Q: {r['question']}\nA:", tuple(r["options"])) for r in rows]  # type: ignore[arg-type]
    (folder / "test.jsonl").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"test\.jsonl holds texts like dates, which are read as times unless each line"):
        built(make())


def test_a_missing_option_is_not_asked_either(make: Make, folder: Path) -> None:
    write_rows(folder, "test", [*QUESTIONS, {**QUESTIONS[0], "options": ["Rome", None, "Lima"]}])
    assert make().build(BUILT_FOR)[0].excluded == {NULL_FIELD: 1}


def test_a_field_that_a_template_only_looks_at_may_be_missing(make: Make, folder: Path) -> None:
    write_rows(folder, "test", [{**QUESTIONS[0], "hint": "in Europe"}, *QUESTIONS[1:]])
    template = "{% if hint is not none %}{{hint}} {% endif %}Q: {{question}}\nA:"
    info, items = make(changes={"doc_to_text": template}).build(BUILT_FOR)
    assert info.excluded == {}
    assert [item.prompt[:9] for item in items[:2]] == ["in Europe", "Q: Which "]


def test_what_is_left_out_moves_no_examples(make: Make, folder: Path) -> None:
    changes = {"doc_to_text": "Q: {{question}} {{hint}}\nA:"}
    write_rows(folder, "test", [{**row, "hint": "?"} for row in QUESTIONS])
    write_rows(folder, "train", [{**row, "question": f"{row['question']} (train)", "hint": "?"} for row in QUESTIONS])
    whole = built(make(changes=changes, num_fewshot=2))
    write_rows(folder, "test", [{**row, "hint": None if i == 1 else "?"} for i, row in enumerate(QUESTIONS)])
    assert built(make(changes=changes, num_fewshot=2)) == whole[:1] + whole[2:]


def test_documents_without_options_are_left_out_and_counted(make: Make, folder: Path) -> None:
    write_rows(folder, "test", [*QUESTIONS, {**QUESTIONS[0], "options": []}])
    info, items = make().build(BUILT_FOR)
    assert (len(items), info.excluded) == (6, {NO_OPTIONS: 1})


@pytest.mark.parametrize("options", [["", "b"], [1, 2]])
@pytest.mark.parametrize("template", ["options", "{{options}}"])
def test_lm_eval_wants_options_of_the_first_document(options: Any, template: str, make: Make, folder: Path) -> None:
    write_rows(folder, "test", [{**QUESTIONS[0], "options": options, "answer": 0}])
    with pytest.raises(
        ConfigError, match=r"task\.yaml:\d+\) failed at doc_to_choice \(ValueError: the first document's options"
    ):
        make(changes={"doc_to_choice": template}).build(tiny_tokenizer())


def test_a_document_that_repeats_another_is_no_more_evidence(make: Make, folder: Path) -> None:
    again = {**QUESTIONS[2], "answer": 0}
    write_rows(folder, "test", [*QUESTIONS, QUESTIONS[2], again, QUESTIONS[2]])
    for config, metric in ((CHOICE, "acc"), (LAST_WORD, "acc")):
        info, items = make(config, metric=metric).build(BUILT_FOR)
        assert (len(items), info.excluded) == (7, {REPEATED: 2})


def test_what_own_code_judges_by_another_field_is_no_repetition(make: Make, folder: Path) -> None:
    """As in super_glue's wsc as T5 was asked it: one sentence, and whether the named noun is the right one."""
    (folder / "own.py").write_text("def right(doc, results):\n    return {'hit': doc['label']}\n", encoding="utf-8")
    write_rows(folder, "test", [{**QUESTIONS[0], "label": label} for label in (0, 1, 1)])
    measured = [{"metric": "hit", "aggregation": "mean", "higher_is_better": True}]
    changes = {"process_results": Function("own.right"), "metric_list": measured}
    info, items = make(changes=changes, metric="hit", allow_code=True).build(BUILT_FOR)
    assert (len(items), info.excluded) == (2, {REPEATED: 1})


def test_what_this_model_can_not_be_asked_is_left_out_after_the_sample_is_drawn(make: Make, folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 64
    thirds = ("c", "c", "c", "", "", "x" * 300)
    rows = [{**row, "options": ["a", "b", third], "answer": 0} for row, third in zip(QUESTIONS, thirds, strict=True)]
    write_rows(folder, "test", rows)
    changes = {"target_delimiter": ""}
    info, items = make(changes=changes).build(tokenizer)
    assert [item.id.partition("-")[0] for item in items] == ["made_up/0", "made_up/1", "made_up/2"]
    assert info.excluded == {NO_TOKENS: 2, BEYOND_WINDOW: 1}
    some, kept = make(changes=changes, n_items=4).build(tokenizer)
    assert set(kept) <= set(items)
    assert some.excluded[NOT_SAMPLED] == 2
    assert sum(some.excluded.values()) + len(kept) == 6


def test_a_task_of_which_this_model_can_be_asked_nothing_says_why(make: Make, folder: Path) -> None:
    write_rows(folder, "test", [{"question": "", "options": ["a"], "answer": 0}])
    with pytest.raises(ModelError, match=rf"none of its documents can be asked \({NO_TOKENS}: 1\)"):
        make(ROLLING, metric="word_perplexity").build(tiny_tokenizer())


def test_a_group_is_one_task_whose_items_say_where_they_come_from(folder: Path) -> None:
    write_task(folder, {**CHOICE, "task": "one"}, "one.yaml")
    write_task(folder, {**CHOICE, "task": "two", "tag": "tagged"}, "two.yaml")
    write_task(folder, {"group": "both", "task": ["one", "tagged"]}, "both.yaml")
    task = LmEval(task="both", metric="acc", include=folder)
    items = built(task)
    assert [item.group for item in items] == ["one"] * 6 + ["two"] * 6
    assert len({item.id for item in items}) == len({item.digest for item in items}) == 12
    assert [i.group for i in built(LmEval(file=folder / "both.yaml", metric="acc", include=folder))] == [
        i.group for i in items
    ]


def test_group_and_member_override_what_a_task_says(folder: Path) -> None:
    write_task(folder, {**CHOICE, "task": "one"}, "one.yaml")
    members = [{"task": "one", "doc_to_text": "{{question}} ="}, {**CHOICE, "task": "written_here", "description": "Think."}]
    write_task(folder, {"group": "both", "task": members, "description": "Hello. "}, "both.yaml")
    items = built(LmEval(file=folder / "both.yaml", metric="acc", include=folder))
    assert items[0].prompt == "Hello. What is the capital of France? ="
    assert (items[6].group, items[6].prompt[:7]) == ("both::written_here", "Think.Q")


# ------------------------------------------------------------------------------------------------ the digest


def changed_rows(folder: Path, split: str) -> None:
    write_rows(folder, split, [{**row, "question": row["question"].upper()} for row in QUESTIONS])


def test_a_task_that_is_in_a_group_more_than_once_is_asked_once(folder: Path) -> None:
    write_task(folder, {**CHOICE, "task": "one", "tag": "tagged"}, "one.yaml")
    write_task(folder, {"group": "inner", "task": ["one"]}, "inner.yaml")
    write_task(folder, {"group": "outer", "task": ["one", "inner", "tagged", "one"]}, "outer.yaml")
    assert len(built(LmEval(task="outer", metric="acc", include=folder))) == len(QUESTIONS)
    write_task(folder, {"group": "outer", "task": ["one", {"task": "one", "num_fewshot": 2}]}, "outer.yaml")
    with pytest.raises(ConfigError, match="the task 'one' is asked for twice and differently"):
        built(LmEval(task="outer", metric="acc", include=folder))


def test_the_digest_is_the_same_for_the_same_task_wherever_it_lies(make: Make, folder: Path, tmp_path_factory: Any) -> None:
    other = tmp_path_factory.mktemp("other")
    for split in ("test", "train"):
        (other / f"{split}.jsonl").write_bytes((folder / f"{split}.jsonl").read_bytes())
    moved = LmEval(file=write_task(other, CHOICE, "renamed.yaml"), metric="acc")
    assert moved.spec_digest() == make().spec_digest() == make(limit=2).spec_digest()
    assert make(changes={"tag": "x", "task_alias": "nice"}).spec_digest() == moved.spec_digest()
    assert make(pooled=False, allow_code=True).spec_digest() == moved.spec_digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"metric": "acc_norm"},
        {"num_fewshot": 1},
        {"changes": {"doc_to_text": "{{question}}"}},
        {"changes": {"target_delimiter": "\n"}},
        {"changes": {"task": "other"}},
        {"changes": {"metadata": {"version": 2}}},
    ],
    ids=str,
)
def test_the_digest_changes_with_the_config(changed: dict[str, Any], make: Make) -> None:
    before = make().spec_digest()
    assert make(**changed).spec_digest() != before


def test_the_digest_changes_with_the_data_that_are_read_and_only_with_them(make: Make, folder: Path) -> None:
    zero_shot, with_examples = make().spec_digest(), make(num_fewshot=1).spec_digest()
    changed_rows(folder, "train")
    assert make().spec_digest() == zero_shot
    assert make(num_fewshot=1).spec_digest() != with_examples
    changed_rows(folder, "test")
    assert make().spec_digest() != zero_shot


def test_the_digest_changes_with_an_included_file_and_with_a_functions_source(make: Make, folder: Path) -> None:
    write_task(folder, {"description": "Hello. "}, "_base")
    (folder / "own.py").write_text("def text(doc):\n    return doc['question']\n", encoding="utf-8")
    changes = {"include": "_base", "doc_to_text": Function("own.text")}
    first = make(changes=changes, allow_code=True).spec_digest()
    write_task(folder, {"description": "Goodbye. "}, "_base")
    second = make(changes=changes, allow_code=True).spec_digest()
    (folder / "own.py").write_text("def text(doc):\n    return doc['question'].lower()\n", encoding="utf-8")
    third = make(changes=changes, allow_code=True).spec_digest()
    assert len({first, second, third}) == 3


def test_the_digest_is_made_once_an_object(make: Make, folder: Path) -> None:
    task = make()
    before = task.spec_digest()
    changed_rows(folder, "test")
    assert task.spec_digest() == before


# ------------------------------------------------------------------------------------------------ what can't be gated


@pytest.mark.parametrize(
    ("config", "metric", "words"),
    [
        (CHOICE, "f1", r"can't be gated on 'f1': it has the metrics acc, acc_norm, f1; right or wrong .* acc, acc_norm; take"),
        (CHOICE, "exact_match", "it has the metrics acc, acc_norm, f1"),
        (LAST_WORD, "perplexity", "right or wrong for each item: acc;"),
        (GENERATION, "acc", "right or wrong for each item: exact_match;"),
        (
            {**CHOICE, "output_type": "loglikelihood_rolling", "metric_list": None},
            "acc",
            "word_perplexity, byte_perplexity, bits_per_byte; none of them is right or wrong for each item; the task can't be",
        ),
    ],
)
def test_a_metric_that_is_not_right_or_wrong_for_each_item_is_refused(
    config: dict[str, Any], metric: str, words: str, make: Make
) -> None:
    with pytest.raises(ConfigError, match=words):
        make(config, metric=metric).kind  # noqa: B018 - known before any data are read


def test_a_metric_of_the_tasks_own_is_tried_before_it_is_believed(make: Make, folder: Path) -> None:
    code = "def judge(doc, results):\n    return {'right': int('Pa' in results[0]), 'half': len(results[0]) / 100}\n"
    (folder / "own.py").write_text(code, encoding="utf-8")
    listed = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("right", "half")]
    changes = {"process_results": Function("own.judge"), "metric_list": listed}
    task = make(GENERATION, metric="right", changes=changes, allow_code=True)
    assert task.outcome(built(task)[0], [Generated("Paris", 1)]).correct
    with pytest.raises(ConfigError, match=r"on 'half': it has the metrics right, half; right or wrong for each item: right"):
        make(GENERATION, metric="half", changes=changes, allow_code=True).build(BUILT_FOR)
    with pytest.raises(ConfigError, match="on 'wrong': its own code measures right, half; take one of these that is 0 or 1"):
        make(GENERATION, metric="wrong", changes=changes, allow_code=True).kind  # noqa: B018


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"do_sample": True, "temperature": 0.7}, r"task\.yaml:\d+: the task 'made_up' samples its answers"),
        ({"temperature": 0.7}, "samples its answers"),
        ({"num_beams": 4}, "asks for num_beams, and only plain greedy generation"),
    ],
)
def test_sampled_generation_is_refused(options: dict[str, Any], words: str, make: Make) -> None:
    with pytest.raises(ConfigError, match=words):
        make(GENERATION, metric="exact_match", changes={"generation_kwargs": options}).kind  # noqa: B018


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_gen_toks": "many"}, r"task.yaml:\d+: max_gen_toks is 'many', expected a whole number above 0"),
        ({"max_gen_toks": 0}, "max_gen_toks is 0, expected a whole number above 0"),
        ({"temperature": "hot"}, "temperature is 'hot', expected a number"),
        ({"until": 5}, "until is 5, expected a text or a list of texts"),
        ({"until": ["\n", None]}, r"until is \['\\n', None\], expected a text or a list of texts"),
    ],
)
def test_a_mistake_in_how_to_generate_is_named(options: dict[str, Any], words: str, make: Make) -> None:
    with pytest.raises(ConfigError, match=words):
        make(GENERATION, metric="exact_match", changes={"generation_kwargs": options}).kind  # noqa: B018


def test_a_length_may_be_written_as_lm_eval_reads_it(make: Make) -> None:
    task = make(GENERATION, metric="exact_match", changes={"generation_kwargs": {"max_tokens": "12", "until": None}})
    [prompt] = task.requests(built(task)[0])
    assert isinstance(prompt, Prompt)
    assert (prompt.max_new_tokens, prompt.stop) == (12, ())


def test_an_unknown_filter_is_refused_with_those_that_there_are(make: Make) -> None:
    with pytest.raises(UnknownNameError, match=r"'bear': did you mean 'bare'\? Known: bare, first-word"):
        make(GENERATION, metric="exact_match", filter="bear").kind  # noqa: B018


def test_fewer_than_no_examples_are_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"task.yaml:\d+: num_fewshot is -2, expected 0 or more"):
        make(changes={"num_fewshot": -2}).kind  # noqa: B018


@pytest.mark.parametrize("own", [{}, {"training_split": None}, {"fewshot_config": {"split": "test"}, "test_split": None}])
def test_examples_never_show_the_asked_document_with_its_answer(own: dict[str, Any], make: Make) -> None:
    """lm-eval draws them from the asked split where nothing else is named, and takes the asked one out where both are."""
    asked = {"validation_split": "test", "training_split": None, **own}
    if own:
        with pytest.raises(ConfigError, match=r"the examples of 'made_up' come from 'test', the split that is asked"):
            make(changes=asked, num_fewshot=2).kind  # noqa: B018
    task = make(changes={**asked, "test_split": "test", "fewshot_split": "test"}, num_fewshot=5)
    for item in built(task):
        *examples, question = [part.partition("\n")[0] for part in item.prompt.split("\n\n")]
        assert len(examples) == 5
        assert question not in examples


def test_a_task_of_lm_evals_own_that_shows_answers_says_so(tmp_path: Path) -> None:
    rows = [{"text": f"It was the day number {word}"} for word in ("one", "two", "three", "four")]
    file = tmp_path / "EleutherAI" / "lambada_openai" / "default" / "test.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    own = {"task": "lambada_openai", "metric": "acc", "data": tmp_path}
    assert "2-shot from the asked documents themselves" in LmEval(**own, num_fewshot=2).build(BUILT_FOR)[0].protocol
    assert LmEval(**own).build(BUILT_FOR)[0].protocol.endswith("acc, 0-shot")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, r"num_fewshot is 9, and the split 'train' has 6 documents to draw examples from; ask with fewer"),
        ({"fewshot_split": "test"}, r"the split 'test' has 6 documents to draw examples from, the asked one among them"),
        (
            {"fewshot_config": {"sampler": "first_n", "samples": [QUESTIONS[0]]}},
            r"num_fewshot is 9, and fewshot_config has 1 documents",
        ),
    ],
)
def test_more_examples_than_there_are_is_named_with_their_source(changes: dict[str, Any], words: str, make: Make) -> None:
    with pytest.raises(ConfigError, match=words):
        built(make(changes=changes, num_fewshot=9))


def test_an_example_that_can_not_be_written_is_told_with_its_split(make: Make, folder: Path) -> None:
    write_rows(folder, "train", [*QUESTIONS, {**QUESTIONS[0], "options": []}])
    with pytest.raises(
        ConfigError, match=r"an example out of the split 'train' can't be written \(\w+: .*\): every row there"
    ):
        built(make(num_fewshot=7))


def test_as_many_examples_as_there_are_may_be_asked_with(make: Make) -> None:
    assert len(built(make(num_fewshot=6))) == 6
    assert len(built(make(changes={"fewshot_split": "test"}, num_fewshot=5))) == 6
    with pytest.raises(ConfigError, match="num_fewshot is 6"):
        built(make(changes={"fewshot_split": "test"}, num_fewshot=6))


@pytest.mark.parametrize("metadata", ["hello", [1], {"version": 1}])
def test_metadata_may_be_anything(metadata: Any, make: Make) -> None:
    assert make(changes={"metadata": metadata}).build(BUILT_FOR)[0].pooled


def test_metadata_say_whether_items_are_pooled_in_yes_or_no(make: Make) -> None:
    assert not make(changes={"metadata": {"pooled": False}}).build(BUILT_FOR)[0].pooled
    with pytest.raises(ConfigError, match=r"task\.yaml:\d+: pooled is 'no', expected true or false"):
        make(changes={"metadata": {"pooled": "no"}}).kind  # noqa: B018


def test_a_data_file_that_is_not_utf_8_is_named(make: Make, folder: Path) -> None:
    text = json.dumps({**QUESTIONS[0], "question": "Où est-ce ?"}, ensure_ascii=False)
    (folder / "test.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(FileFormatError, match=r"test\.jsonl (holds bytes that are not UTF-8|can't be read as json)"):
        built(make())


def test_a_data_file_without_rows_is_named(make: Make, folder: Path) -> None:
    write_rows(folder, "test", [])
    with pytest.raises(FileFormatError, match=r"test.jsonl can't be read as json \(no rows in it\)"):
        built(make())


def test_a_data_set_without_rows_is_named_with_the_key(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "mirror" / "some" / "data" / "test.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"question": pa.array([], pa.string())}), file)
    task = make(changes={"dataset_path": "some/data", "dataset_kwargs": None}, data=tmp_path / "mirror")
    with pytest.raises(ConfigError, match=r"task\.yaml:\d+: test_split: the split 'test' of some/data.* holds no rows"):
        built(task)


def test_examples_for_a_task_that_forbids_them_are_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"task\.yaml:\d+: the task 'made_up' is to be asked without examples"):
        make(changes={"num_fewshot": 0}, num_fewshot=5).kind  # noqa: B018


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({}, "give one of the two"),
        ({"task": "a", "file": Path("b")}, "give one of the two"),
        ({"task": 7}, "task is 7, expected the name"),
        ({"task": "a", "num_fewshot": "5"}, "num_fewshot is '5', expected a whole number"),
        ({"task": "a", "num_fewshot": True}, "num_fewshot is True"),
        ({"task": "a", "num_fewshot": -1}, "num_fewshot is -1, expected 0 or more"),
        ({"task": "a", "allow_code": "yes"}, "allow_code is 'yes', expected true or false"),
        ({"task": "a", "filter": 1}, "filter is 1"),
    ],
)
def test_fields_of_the_wrong_type_are_refused_at_once(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LmEval(metric="acc", **choices)


# ------------------------------------------------------------------------------------------------ task files with mistakes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"doc_to_txt": "x"}, r"task\.yaml:\d+: unknown key 'doc_to_txt': did you mean 'doc_to_text'"),
        ({"doc_to_text": None}, r"task\.yaml: a task of output_type multiple_choice needs doc_to_text, which it has not"),
        ({"doc_to_choice": None}, "needs doc_to_choice"),
        ({"dataset_path": None}, r"needs dataset_path \(or custom_dataset\)"),
        ({"test_split": None}, "needs test_split or validation_split"),
        ({"num_fewshot": "two"}, r"task\.yaml:\d+: num_fewshot is 'two', expected a whole number"),
        ({"metric_list": "acc"}, "metric_list is 'acc', expected a list"),
        ({"metric_list": [{"name": "acc"}]}, "expected a mapping with the key 'metric'"),
        ({"output_type": "multiple_choices"}, "unknown output_type 'multiple_choices': did you mean 'multiple_choice'"),
        ({"include": "_absent"}, "includes '_absent', and there is no file"),
        ({"include": "task.yaml"}, "includes itself by way of 'task.yaml'"),
        (
            {"doc_to_text": "{{questoin}}"},
            r"'made_up' \(.*task\.yaml:\d+\) failed at doc_to_text \(UndefinedError: 'questoin' is undefined\)",
        ),
        ({"doc_to_text": "{{question"}, r"task\.yaml:\d+\) failed at doc_to_text \(TemplateSyntaxError"),
        ({"doc_to_choice": "{{question}}"}, r"task\.yaml:\d+\) failed at doc_to_choice \(SyntaxError"),
        ({"doc_to_target": "{{question}}"}, r"none of its documents can be asked \(documents without a right option: \d+\)"),
        ({"test_split": "dev"}, r"task\.yaml:\d+: test_split: data_files have no split 'dev': they have test, train"),
        ({"fewshot_split": "dev", "num_fewshot": 1}, r"task\.yaml:\d+: fewshot_split: data_files have no split 'dev'"),
        ({"class": "x"}, "is a Python class"),
        ({"doc_to_image": "picture"}, "asks about images"),
    ],
    ids=str,
)
def test_a_mistake_in_a_task_file_is_named_with_file_and_key(changes: dict[str, Any], words: str, make: Make) -> None:
    with pytest.raises(ConfigError, match=words):
        make(changes=changes).build(BUILT_FOR)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: [", r"task\.yaml:\d: not YAML \("),
        ("task: a\n  b: c\n", r"task\.yaml:2: not YAML"),
        ("- a\n", r"task\.yaml: expected a mapping of keys, found list"),
        ("a: !!python/object/apply:os.system [ls]\n", r"task\.yaml:1: not YAML"),
        ("dataset_path: x\n", "names no task"),
    ],
)
def test_what_is_not_a_task_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        LmEval(file=tmp_path / "task.yaml", metric="acc").kind  # noqa: B018


def test_a_key_that_stands_twice_is_named(make: Make, folder: Path) -> None:
    task = make()
    (folder / "task.yaml").write_text((folder / "task.yaml").read_text() + "test_split: train\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"task\.yaml:\d+: the key 'test_split' stands there twice \(first in line \d+\)"):
        task.kind  # noqa: B018


def test_a_missing_task_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml can't be read"):
        LmEval(file=tmp_path / "absent.yaml", metric="acc").kind  # noqa: B018
    with pytest.raises(ConfigError, match="absent is no folder"):
        LmEval(task="x", include=tmp_path / "absent", metric="acc").kind  # noqa: B018


def test_an_unknown_task_is_told_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown lm-eval task 'arc_eazy': did you mean 'arc_easy'.*names were looked"):
        LmEval(task="arc_eazy", metric="acc").kind  # noqa: B018


def test_an_unknown_member_names_its_group(folder: Path) -> None:
    file = write_task(folder, {"group": "g", "task": ["mmlu_astronomi"]})
    with pytest.raises(UnknownNameError, match=r"the group 'g' has an unknown member: .*did you mean 'mmlu_astronomy'"):
        LmEval(file=file, metric="acc").kind  # noqa: B018


def test_a_group_of_different_kinds_and_one_that_holds_itself_are_refused(folder: Path) -> None:
    write_task(folder, {**CHOICE, "task": "one"}, "one.yaml")
    process = {"process_results": None, "metric_list": [{"metric": "exact_match"}]}
    write_task(folder, {**GENERATION, **process, "task": "two"}, "two.yaml")
    both = write_task(
        folder, {"group": "both", "task": ["one", "two"], "metric_list": [{"metric": "exact_match"}]}, "both.yaml"
    )
    with pytest.raises(ConfigError, match=r"mixes tasks .* one \(multiple_choice\), two \(generate_until\)"):
        LmEval(file=both, metric="exact_match", include=folder).kind  # noqa: B018
    write_task(folder, {"group": "loop", "task": ["loop"]}, "loop.yaml")
    with pytest.raises(ConfigError, match="member of itself"):
        LmEval(task="loop", metric="acc", include=folder).kind  # noqa: B018


# ------------------------------------------------------------------------------------------------ code from outside


@pytest.fixture
def marker(folder: Path) -> Path:
    """A file that a function beside the task file leaves behind when it is imported."""
    code = f"import pathlib\npathlib.Path({str(folder / 'ran')!r}).touch()\ndef text(doc):\n    return doc['question']\n"
    (folder / "own.py").write_text(code, encoding="utf-8")
    return folder / "ran"


def test_functions_from_outside_run_only_where_they_are_allowed(make: Make, marker: Path) -> None:
    changes = {"doc_to_text": Function("own.text")}
    with pytest.raises(ConfigError, match=r"would run code from outside: the function own\.text .*allow_code = true"):
        make(changes=changes).build(BUILT_FOR)
    assert not marker.exists()
    assert built(make(changes=changes, allow_code=True))[0].prompt == QUESTIONS[0]["question"]
    assert marker.exists()


def test_a_function_that_ends_the_process_is_a_mistake_of_the_task_s(make: Make, folder: Path) -> None:
    (folder / "own.py").write_text("def text(doc):\n    raise SystemExit('enough')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"failed in its own code \(SystemExit: enough\)"):
        make(changes={"doc_to_text": Function("own.text")}, allow_code=True).build(BUILT_FOR)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unsafe_code": True}, r"what the model writes \(unsafe_code: true\)"),
        ({"doc_to_text": Function("os.system")}, r"the function os\.system"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, r"the metric acc, which comes from the hub"),
        ({"dataset_path": "a/b", "dataset_kwargs": {"trust_remote_code": True}}, r"the loading script of a/b \(trust_remote"),
    ],
    ids=str,
)
def test_each_kind_of_code_from_outside_is_refused_by_its_name(changes: dict[str, Any], words: str, make: Make) -> None:
    with pytest.raises(ConfigError, match=words):
        make(changes=changes).build(BUILT_FOR)


@pytest.mark.parametrize(
    "template",
    [
        "{{ question.__class__ }}",
        "{{ question['__cla' ~ 'ss__'] }}",
        "{{ question|attr('__class__') }}",
        "{{ [question]|map(attribute='__class__')|list }}",
    ],
)
def test_a_template_may_not_reach_into_python(template: str, make: Make) -> None:
    with pytest.raises(ConfigError, match="a template may read fields only, and this one reaches for '__class__'"):
        make(changes={"doc_to_text": template}).build(BUILT_FOR)


def test_a_metric_of_the_hub_that_is_not_gated_is_not_fetched(make: Make) -> None:
    listed = [{"metric": "acc"}, {"metric": "f1", "hf_evaluate": True}]
    assert len(built(make(changes={"metric_list": listed}))) == len(QUESTIONS)


def test_a_function_of_lm_evals_own_tasks_needs_no_permission(tmp_path: Path) -> None:
    task = LmEval(task="hellaswag", metric="acc_norm", data=tmp_path)
    assert task.kind == "continuation"


def test_a_function_that_is_not_there_is_named(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"`!function own\.text` names no function"):
        make(changes={"doc_to_text": Function("own.text")}, allow_code=True).spec_digest()


# ------------------------------------------------------------------------------------------------ the shelf, and manners


def test_the_projects_own_facts_are_a_guard_that_needs_no_mirror() -> None:
    task = LmEval(task="facts_choice", metric="acc", limit=20)
    info, items = task.build(BUILT_FOR)
    _, asked = KNOWLEDGE.load("facts")(limit=None).build(tiny_tokenizer())
    by_sentence = {item.prompt.replace("[Y]", "____"): item for item in asked}
    for item in items:
        same = by_sentence[item.prompt.removeprefix("Fill in the blank: ").removesuffix("\nAnswer:")]
        assert (item.options, item.gold) == (same.options, same.gold)
    assert (info.pooled, len(items), info.excluded) == (False, 20, {})
    assert LmEval(task="facts_choice", metric="acc", limit=1, pooled=True).build(BUILT_FOR)[0].pooled
    outcome = task.outcome(items[0], scores(*(-float(i + 1) for i in range(len(items[0].options)))))
    assert outcome.correct == (0 in items[0].gold)


def test_without_mirror_and_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    with pytest.raises(DownloadError, match=r"allenai/ai2_arc .*no folder .*allenai/ai2_arc: .*--harness-data"):
        LmEval(task="arc_easy", metric="acc", data=tmp_path).spec_digest()


def test_nothing_is_printed_and_log_levels_and_bars_are_left_as_they_were(
    make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    datasets.enable_progress_bars()
    before = logging.getLogger("lm_eval").level
    make(num_fewshot=1).build(BUILT_FOR)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lm_eval").level == before
    assert not datasets.utils.are_progress_bars_disabled()


def test_neither_digest_nor_items_need_torch(make: Make) -> None:
    file = make().file
    code = (
        "import sys; from pathlib import Path; from harness.knowledge.lm_eval import LmEval\n"
        f"task = LmEval(file=Path({str(file)!r}), metric='acc'); task.spec_digest(); task.build(None)\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_given_by_path_does_not_search_lm_evals_folder(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the folder was scanned")

    monkeypatch.setattr("harness.knowledge.task_index.TaskFolder.scan", refuse)
    assert len(built(make())) == 6


def test_what_a_group_says_of_itself_is_what_lm_eval_reads_there() -> None:
    from lm_eval.config.group import GroupConfig

    assert {field.name for field in fields(GroupConfig)} == set(GROUP_KEYS)
