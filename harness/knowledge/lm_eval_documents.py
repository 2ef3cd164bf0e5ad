"""One document of an lm-eval task: what its task object asks, the item that this makes, and its verdict on the answers.

Works on task objects that ``lm_eval.py`` makes; everything here is called inside its ``task_code``.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from harness.core.digest import digest_json
from harness.core.errors import ConfigError, HarnessError, ScoreError
from harness.core.records import Item
from harness.knowledge.lm_eval_items import EMPTY_OPTION, NO_GOLD, NO_OPTIONS, NULL_FIELD, REPEATED, blanked, gold_positions
from harness.knowledge.task_plan import PER_ITEM, Plan, not_binary
from harness.knowledge.task_templates import TEMPLATES, noting_nulls
from harness.scoring import Answer, Generated, Prompt, Request, Score, Standing

TRIAL_DOCUMENTS = 3
"""Documents on which a metric of a task's own code is tried."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document with lm-eval's requests for it. ``question`` is its prompt without examples, several where the options stand
    in the prompts; ``choices`` are the options of multiple choice as lm-eval counts their length."""

    plan: Plan
    task: Any
    number: int
    doc: Any
    instances: tuple[Any, ...]
    question: str | list[str]
    choices: tuple[str, ...]

    def requests(self) -> tuple[Request, ...] | tuple[Prompt, ...]:
        """What to ask of the model."""
        arguments = [instance.args for instance in self.instances]
        if self.plan.output_type == "generate_until":
            return tuple(Prompt(context, self.plan.stop, self.plan.max_new_tokens) for context, _ in arguments)
        if self.plan.output_type == "loglikelihood_rolling":
            return tuple(Request("", text, reading="rolling") for (text,) in arguments)
        return tuple(Request(context, continuation) for context, continuation in arguments)

    def taken(self, answers: Sequence[Answer]) -> list[Any]:
        """The answers as lm-eval's model class gives them, after the task's filter."""
        instances = [
            dataclasses.replace(instance, resps=[self._response(answer)] * instance.repeats, filtered_resps={})
            for instance, answer in zip(self.instances, answers, strict=True)
        ]
        next(ensemble for ensemble in self.task._filters if ensemble.name == self.plan.filter).apply(instances)
        return [instance.filtered_resps[self.plan.filter] for instance in instances]

    def verdict(self, taken: Sequence[Any]) -> bool:
        """Whether the task's own metric calls the answers right. Raises ScoreError for anything but 0 and 1."""
        measured = self.task.process_results(self.doc, list(taken))
        value = measured.get(self.plan.metric)
        if not is_binary(value):
            found = repr(value) if self.plan.metric in measured else f"missing beside {', '.join(measured) or 'nothing'}"
            raise ScoreError(
                f"{self.plan.metric} of {self.plan.name}, document {self.number}, is {found}: expected 0 or 1; gate the task "
                "on another metric."
            )
        return bool(value)

    def weighed(self, taken: Sequence[Any]) -> tuple[float, float]:
        """The text's log-likelihood (nats) and the number of its words or bytes, by which a perplexity divides. Raises
        ScoreError."""
        value = self.task.process_results(self.doc, list(taken)).get(self.plan.metric)
        if not isinstance(value, tuple) or len(value) != 2 or not value[1] > 0:
            raise ScoreError(
                f"{self.plan.metric} of {self.plan.name}, document {self.number}, is {value!r}: expected a log-likelihood and "
                "a number of words or bytes; take another metric."
            )
        return float(value[0]), float(value[1])

    def _response(self, answer: Answer) -> Any:
        if isinstance(answer, Generated):
            return answer.text
        if isinstance(answer, Standing):
            raise TypeError("a ranking came for a request of lm-eval's, which asks for none")
        rolling = self.plan.output_type == "loglikelihood_rolling"
        return answer.loglik_nats if rolling else (answer.loglik_nats, answer.is_greedy)


def ask_task(plan: Plan, task: Any, excluded: Counter[str]) -> list[tuple[Item, str, Document]]:
    """Every document that can be asked, with its item and its question without examples, in lm-eval's order; ``excluded``
    counts the others. A document that asks the same again, and is judged by the same, is no more evidence, and is left out.

    Raises ConfigError for too few examples, and for a metric that is not 0 or 1.
    """
    _check_shots(plan, task)
    asked = list(_ask_all(plan, task))
    _check_binary(plan, [document for document in asked if isinstance(document, Document)])
    made: list[tuple[Item, str, Document]] = []
    seen: set[tuple[object, ...]] = set()
    for document in asked:
        if isinstance(document, str):
            excluded[document] += 1
            continue
        with _row(plan, document.number):
            found = _make_item(document)
        if isinstance(found, str):
            excluded[found] += 1
            continue
        item, question = found
        judged_by = repr(document.doc) if plan.leaf.config.get("process_results") is not None else None
        if (key := (question, item.options, item.gold, judged_by)) in seen:
            excluded[REPEATED] += 1
            continue
        seen.add(key)
        made.append((item, question, document))
    return made


def _ask_all(plan: Plan, task: Any) -> Iterator[Document | str]:
    """Every document in order, as ``Task.build_all_requests`` asks it without system prompt and chat template, or the reason
    why it can't be asked."""
    has_options = plan.output_type == "multiple_choice"
    for number, doc in task.doc_iterator(rank=0, limit=None, world_size=1):
        if _is_null(plan.leaf.config, doc):
            yield NULL_FIELD
            continue
        with _row(plan, number), noting_nulls() as nulls:
            prefix = task.doc_to_prefix(doc)
            question = task.fewshot_context(doc, num_fewshot=0, gen_prefix=prefix)
            options = task.doc_to_choice(doc) if has_options else ()
        is_null = bool(nulls) or any(option is None for option in options or ())
        # drawn for one that is left out, too: the examples of the next ones are lm-eval's
        with noting_nulls() if is_null else nullcontext():
            context = _with_examples(plan, task, doc, prefix) if plan.n_shots else question
        if is_null or (has_options and not options):
            yield NULL_FIELD if is_null else NO_OPTIONS
            continue
        about = (plan.name, number, task.config.repeats)
        with _row(plan, number):
            made = task.construct_requests(doc=doc, ctx=context, metadata=about, apply_chat_template=False, chat_template=None)
        instances = tuple(made if isinstance(made, list) else [made])
        yield Document(plan, task, number, doc, instances, question, tuple(map(str, options)))


@contextmanager
def _row(plan: Plan, number: int) -> Iterator[None]:
    """Around writing a document: one that can't be written is told by its number. The first is looked at key by key."""
    try:
        yield
    except Exception as error:  # whatever lm-eval's code and the task's may raise
        if number == 0 or isinstance(error, HarnessError):
            raise
        first_line = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"the task {plan.name!r} ({plan.leaf.file.path}): document {number} of {plan.asked_split!r}, counted from 0, "
            f"can't be asked ({type(error).__name__}: {first_line}): correct that row, or the task file."
        ) from error


def _with_examples(plan: Plan, task: Any, doc: Any, prefix: Any) -> Any:
    """The prompt behind its examples. Raises ConfigError where one of them can't be written."""
    try:
        return task.fewshot_context(doc, num_fewshot=plan.n_shots, gen_prefix=prefix)
    except Exception as error:  # of lm-eval's code or the task's: the document by itself was fine, so an example is at fault
        first_line = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"the task {plan.name!r} ({plan.leaf.file.path}): an example out of {_example_source(plan)} can't be written "
            f"({type(error).__name__}: {first_line}): every row there needs its text, options and answer; correct them."
        ) from error


def _example_source(plan: Plan) -> str:
    return "fewshot_config" if plan.example_split is None else f"the split {plan.example_split!r}"


def _check_shots(plan: Plan, task: Any) -> None:
    """Raise ConfigError where there are fewer examples than are to be drawn; the asked document is none of its own."""
    n_there = len(task.sampler.df) if plan.n_shots else 0
    is_among_them = plan.example_split == plan.asked_split and not plan.shows_answers
    if plan.n_shots > n_there - is_among_them:
        less = ", the asked one among them" if is_among_them else ""
        raise ConfigError(
            f"the task {plan.name!r} ({plan.leaf.file.path}): num_fewshot is {plan.n_shots}, and {_example_source(plan)} has "
            f"{n_there} documents to draw examples from{less}; ask with fewer examples, or add some."
        )


def _make_item(document: Document) -> tuple[Item, str] | str:
    """The item and its question without examples, or the reason why the document can't be asked.

    The id is the document's number with the digest of what it asks, so that a limit draws the same documents with and
    without examples.
    """
    plan, task, doc = document.plan, document.task, document.doc
    prompt, question, options = str(document.instances[0].args[0]), document.question, document.choices
    with noting_nulls() as nulls:
        gold: Any = task.doc_to_target(doc)
    if nulls or gold is None or (isinstance(gold, list | tuple) and None in gold):
        return NULL_FIELD
    if plan.output_type == "multiple_choice":
        if isinstance(question, list):
            gold, continuation = task.doc_to_text(doc), document.instances[0].args[1]
            contexts = [instance.args[0] for instance in document.instances[: len(options)]]
            (prompt, options), (question, _) = blanked(contexts, continuation), blanked(question, continuation)
        right = gold_positions(gold, document.choices)
        if plan.metric in ("acc_norm", "acc_bytes") and not all(document.choices):
            return EMPTY_OPTION
    else:
        if plan.output_type == "generate_until":
            gold = task.doc_to_choice(doc)[gold] if task.config.doc_to_choice is not None else gold
        elif plan.output_type == "loglikelihood_rolling":
            prompt = ""
        options = tuple(map(str, gold)) if isinstance(gold, list | tuple) else (str(gold),)
        right = tuple(range(len(options)))
    if not right:
        return NO_GOLD
    asked = digest_json([question, list(options), list(right)])[:12]
    return Item(f"{plan.name}/{document.number}-{asked}", plan.name, prompt, options, right), str(question)


def _is_null(config: Mapping[str, Any], doc: Mapping[str, Any]) -> bool:
    """Whether a key names a field outright, and the document has none."""
    return any(isinstance(name := config.get(key), str) and name in doc and doc[name] is None for key in TEMPLATES)


def is_binary(value: object) -> bool:
    """Whether a metric's value says right or wrong.

    >>> is_binary(1.0), is_binary(False), is_binary(0.5), is_binary((1, 2))
    (True, True, False, False)
    """
    return isinstance(value, bool | int | float) and value in (0, 1)


def _check_binary(plan: Plan, documents: Sequence[Document]) -> None:
    """Raise ConfigError where a metric of the task's own code is not 0 or 1 on made-up answers to the first documents."""
    if plan.is_perplexity:
        return
    if plan.leaf.config.get("process_results") is None and plan.metric in PER_ITEM[plan.output_type]:
        return
    binary: dict[str, bool] = {}
    for document in documents[:TRIAL_DOCUMENTS]:
        for answers in _trials(document):
            for name, value in document.task.process_results(document.doc, document.taken(answers)).items():
                binary[name] = binary.get(name, True) and is_binary(value)
    if not binary.get(plan.metric, False):
        raise ConfigError(not_binary(plan.metric, plan.leaf, binary, [name for name, is_so in binary.items() if is_so]))


def _trials(document: Document) -> Iterator[list[Score] | list[Generated]]:
    """Made-up answers of several kinds: right, wrong, half right."""
    if document.plan.output_type == "generate_until":
        target = document.task.doc_to_target(document.doc)
        right = str(target[0] if isinstance(target, list) and target else target)
        for text in (right, "", f"{right} and something else", right[: len(right) // 2 + 1]):
            yield [Generated(text, 1)]
        return
    n = len(document.instances)
    for best in range(min(n, 4)):
        yield [Score(-0.7 - 1.3 * ((i - best) % n), i == best, 3) for i in range(n)]
