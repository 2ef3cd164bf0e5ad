"""Any task of lm-eval's on our scoring: its own task code makes prompts, few-shot examples, filters and verdicts.

The only importer of lm_eval. A task, group or tag is found by name (``task_index``), read without running it
(``task_yaml``), refused where it would run code from outside (``task_plan``), fed from the mirror or the hub
(``data_source``), and made into items in lm-eval's own document order (``lm_eval_documents``), because its few-shot examples
come from one running generator; only then does a limit leave items out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, cast

import lm_eval
import numpy as np

from harness.core.digest import digest_json, digest_sequence
from harness.core.errors import ConfigError, HarnessError, ModelError, ScoreError
from harness.core.records import Item, ItemOutcome, TaskInfo
from harness.knowledge.continuations import askable_documents
from harness.knowledge.data_source import Rows, Source, find_source
from harness.knowledge.lm_eval_documents import Document, ask_task
from harness.knowledge.lm_eval_items import (
    CHOICE_TIE_RULE,
    GREEDY_TIE_RULE,
    KINDS,
    NOT_SAMPLED,
    PERPLEXITY_TIE_RULE,
    SEED,
    choice_outcome,
    generated_outcome,
    greedy_outcome,
    majority_share,
    option_scores,
    perplexity_outcome,
)
from harness.knowledge.quiet import quiet_loading
from harness.knowledge.sample import chance_share, reasons, sample
from harness.knowledge.task_index import Leaf, TaskFolders, find_leaves, leaves_of
from harness.knowledge.task_plan import DEFAULT_METRICS, Plan, gated_entries, naming_splits, package_folder, plan_task
from harness.knowledge.task_templates import bound_templates, try_templates
from harness.knowledge.task_yaml import Code, as_json, read_task_file
from harness.scoring import NEAR_TIE_NATS, Answer, Generated, Prompt, Request, Score, TaskKind, Tokenizer

PROBE_WORDS = 13
"""As Brown et al. 2020 (GPT-3, appendix C) have it."""

PROTOCOL = "lm_eval/1"
"""Part of every digest; another number where our side of the protocol changes."""

SHIPPED = Path(__file__).parent / "tasks"
"""Task files of the project's own, found by name before lm-eval's."""

_COSMETIC = ("task_alias", "tag", "group", "task_list")
_TALKATIVE = ("lm_eval", "datasets", "huggingface_hub", "evaluate")


@dataclass(frozen=True, kw_only=True)
class LmEval:
    """A task, group or tag of lm-eval's by its name (``task``), or a task file (``file``), gated on one right-or-wrong metric.

    A rolling task may name a perplexity (``word_perplexity``, ``byte_perplexity``, ``bits_per_byte``): reported, never gated.
    ``filter`` is the name of one of the task's filters (the first if none is given), ``num_fewshot`` overrides the task's own,
    ``include`` is a folder of more task files, ``allow_code`` lets a task run functions that are neither lm-eval's nor ours.
    ``n_items``: a fixed sample of so many documents (of all tasks of a group together).
    ``pooled``: whether the items enter the cell's pool; if not given, as the task file's metadata say, else they do.
    ``family``: the model's, which says what of a document is scored.
    """

    metric: str
    task: str | None = None
    file: Path | None = None
    filter: str | None = None
    num_fewshot: int | None = None
    include: Path | None = None
    allow_code: bool = False
    pooled: bool | None = None
    n_items: int | None = None
    limit: int | None = None
    data: Path | None = None
    family: str | None = None
    name = "lm_eval"
    clusters: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if (self.task is None) == (self.file is None):
            raise ConfigError('an lm_eval task has either `task = "<name>"` or `file = "<task file>"`: give one of the two.')
        for field, kind, words in _FIELDS:
            value = getattr(self, field)
            if value is not None and (type(value) is not kind if kind is int else not isinstance(value, kind)):
                raise ConfigError(f"{self._called}: {field} is {value!r}, expected {words}; correct the matrix.")
        for field, least in (("num_fewshot", 0), ("n_items", 1)):
            if (value := getattr(self, field)) is not None and value < least:
                raise ConfigError(f"{self._called}: {field} is {value}, expected {least} or more; correct the matrix.")

    @property
    def probe_words(self) -> int:
        """Words of an overlap that counts: natural text shares shorter ones with any other."""
        return PROBE_WORDS

    @property
    def kind(self) -> TaskKind:
        """What the task's output type asks of a model."""
        return KINDS[self._plans[0].output_type]

    @property
    def keeps_option_scores(self) -> bool:
        """Generated answers have none."""
        return self.kind != "generation"

    def spec_digest(self) -> str:
        """The digest of lm-eval's version, every task's resolved config with its functions' files, metric, filter, shots and
        data; a limit and a fixed sample leave it as it is, because they only leave items out."""
        return self._digest

    def probe_sentences(self) -> Iterable[str]:
        """Every question, asked without examples, with each right answer; whatever the limit."""
        for item, question, _ in self._documents:
            for i in item.gold:
                answer = item.options[i]
                yield question.replace("[Y]", answer) if "[Y]" in question else f"{question} {answer.strip()}"

    def build(self, tokenizer: Tokenizer) -> tuple[TaskInfo, tuple[Item, ...]]:
        """One item a document, in lm-eval's order, the tasks of a group one after the other. Raises ConfigError, ModelError.

        The fixed sample is drawn before any is left out for the tokenizer's sake, so that it is the same for every model.
        """
        every = [item for item, _, _ in self._documents]
        if not every:
            raise ConfigError(self._nothing_to_ask(self._excluded))
        drawn: Sequence[Item] = sample(every, self.n_items, SEED)
        excluded = self._excluded + Counter({NOT_SAMPLED: len(every) - len(drawn)})
        if self.kind != "generation":
            ask = cast(Callable[[Item], Sequence[Request]], self.requests)
            drawn = askable_documents(drawn, ask, tokenizer, excluded, family=self.family)
        if not drawn:
            raise ModelError(self._nothing_to_ask(excluded))
        kept = sample(drawn, self.limit, SEED)
        return self._info(kept, excluded), kept

    def requests(self, item: Item) -> tuple[Request, ...] | tuple[Prompt, ...]:
        """lm-eval's own requests for the document."""
        return self._by_digest[item.digest].requests()

    def outcome(self, item: Item, answers: Sequence[Answer], *, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
        """The task's own verdict on the answers, and how near it was. Raises ScoreError."""
        document = self._by_digest[item.digest]
        if len(answers) != len(document.instances):
            raise ScoreError(f"{item.id}: {len(answers)} answers came for {len(document.instances)} requests; some were lost.")
        with _task_code(document.plan.leaf, ScoreError):
            taken = document.taken(answers)
            if document.plan.is_perplexity:
                return perplexity_outcome(item, *document.weighed(taken))
            correct = document.verdict(taken)
        if isinstance(answers[0], Generated):
            return generated_outcome(item, answers[0], taken[0], correct=correct)
        scores = [answer for answer in answers if isinstance(answer, Score)]
        logliks = [score.loglik_nats for score in scores]
        if document.plan.options_compete:
            compared = option_scores(self.metric, logliks, document.choices)
            how: dict[str, Any] = {"metric": self.metric, "correct": correct, "near_tie_nats": near_tie_nats}
            return choice_outcome(item, compared, document.choices, **how)
        return greedy_outcome(item, scores, correct=correct, near_tie_nats=near_tie_nats)

    # -------------------------------------------------------------------------------------------- made once an object

    @property
    def _called(self) -> str:
        return f"the lm_eval task {self.task or str(self.file)!r}"

    def _nothing_to_ask(self, excluded: Mapping[str, int]) -> str:
        why = reasons(excluded)
        return f"{self._called}: none of its documents can be asked ({why}); correct the task file or leave it out."

    @cached_property
    def _plans(self) -> tuple[Plan, ...]:
        """Every single task, read and checked; nothing is run or loaded."""
        from lm_eval.config.task import TaskConfig

        folders = TaskFolders(self.include, (SHIPPED, package_folder("lm_eval") / "tasks"))
        found = (
            leaves_of(read_task_file(self.file), folders) if self.file is not None else find_leaves(self.task or "", folders)
        )
        keys = [field.name for field in dataclasses.fields(TaskConfig)]
        choices: dict[str, Any] = {"metric": self.metric, "filter_name": self.filter, "num_fewshot": self.num_fewshot}
        plans = tuple(plan_task(leaf, keys, **choices, allow_code=self.allow_code) for leaf in found)
        kinds = {KINDS[plan.output_type]: plan for plan in plans}
        if len(kinds) > 1:
            listed = ", ".join(f"{plan.name} ({plan.output_type})" for plan in kinds.values())
            raise ConfigError(
                f"{self._called} mixes tasks that ask different things of a model, {listed}: give each its own entry."
            )
        return plans

    @cached_property
    def _sources(self) -> tuple[Source, ...]:
        """Where each task's data come from."""
        return tuple(_source(plan, self.data, allow_code=self.allow_code) for plan in self._plans)

    @cached_property
    def _digest(self) -> str:
        tasks = []
        for plan, source in zip(self._plans, self._sources, strict=True):
            config = {key: value for key, value in plan.leaf.config.items() if key not in _COSMETIC}
            with naming_splits(plan):
                data = source.digest(plan.splits)
            tasks.append([plan.name, as_json(config), plan.n_shots, plan.filter, data])
        return digest_json([PROTOCOL, lm_eval.__version__, self.metric, tasks])

    @cached_property
    def _excluded(self) -> Counter[str]:
        """Filled while the documents are made."""
        return Counter()

    @cached_property
    def _documents(self) -> tuple[tuple[Item, str, Document], ...]:
        """Every document with its item and its question without examples, in lm-eval's order."""
        made: list[tuple[Item, str, Document]] = []
        for plan, source in zip(self._plans, self._sources, strict=True):
            with _quiet(), naming_splits(plan):
                rows = source.load(plan.splits)
            _check_rows(plan, source, rows)
            with _task_code(plan.leaf, ConfigError, look_closer=partial(_try_templates, plan, rows)):
                made += ask_task(plan, _construct(plan, rows), self._excluded)
        return tuple(made)

    @cached_property
    def _by_digest(self) -> Mapping[str, Document]:
        return {item.digest: document for item, _, document in self._documents}

    def _info(self, kept: Sequence[Item], excluded: Mapping[str, int]) -> TaskInfo:
        plan, generates = self._plans[0], self.kind == "generation"
        tie_rule = CHOICE_TIE_RULE if plan.options_compete else PERPLEXITY_TIE_RULE if plan.is_perplexity else GREEDY_TIE_RULE
        shots = "/".join(str(n) for n in sorted({p.n_shots for p in self._plans}))
        pooled = plan.pooled if self.pooled is None else self.pooled
        data = list(dict.fromkeys(source.version for source in self._sources))
        called = self.task or plan.name
        with_filter = f", filter {plan.filter}" if generates else ""
        drawn = " from the asked documents themselves" if any(p.shows_answers for p in self._plans) else ""
        return TaskInfo(
            name=self.name,
            protocol=f"{called} of lm-eval {lm_eval.__version__}: {self.metric}, {shots}-shot{drawn}{with_filter}",
            score_class="generation" if generates else "perplexity" if plan.is_perplexity else "log_likelihood",
            pooled=pooled and not plan.is_perplexity,
            tie_rule=tie_rule,
            data_version=data[0] if len(data) == 1 else f"{len(data)} data sets {digest_sequence(data)[:12]}, first {data[0]}",
            spec_digest=self.spec_digest(),
            items_digest=digest_sequence(item.digest for item in kept),
            n_items=len(kept),
            chance=chance_share(kept) if plan.options_compete else 0.0,
            majority=majority_share(kept),
            excluded=dict(sorted(excluded.items())),
            limit=self.limit,
        )


_FIELDS: tuple[tuple[str, type, str], ...] = (
    ("metric", str, "the name of one of the task's metrics in quotes"),
    ("task", str, "the name of a task, group or tag of lm-eval's in quotes"),
    ("file", Path, "the path of a task file in quotes"),
    ("include", Path, "the path of a folder with task files in quotes"),
    ("filter", str, "the name of one of the task's filters in quotes"),
    ("num_fewshot", int, "a whole number of examples"),
    ("n_items", int, "a whole number of items"),
    ("allow_code", bool, "true or false"),
    ("pooled", bool, "true or false"),
)


# ------------------------------------------------------------------------------------------------ names and data


def _source(plan: Plan, data: Path | None, *, allow_code: bool) -> Source:
    config = plan.leaf.config
    options = dict(config.get("dataset_kwargs") or {})
    own = config.get("custom_dataset")
    if isinstance(own, Code):
        with _task_code(plan.leaf, ConfigError):
            return Rows(own.spec, _function(own)(**_metadata(plan.leaf), **options))
    path = config["dataset_path"]
    if options.get("trust_remote_code") and not allow_code and (data is None or not (data / path).is_dir()):
        raise ConfigError(
            f"the task {plan.name!r} would run code from outside: the loading script of {path} (trust_remote_code); put the "
            "data into the mirror, or set `allow_code = true` to try it without the script, which is never run."
        )
    return find_source(path, config.get("dataset_name"), options, data=data, near=plan.leaf.file.path.parent)


def _check_rows(plan: Plan, source: Source, rows: Mapping[str, Any]) -> None:
    """Raise ConfigError for a split without rows."""
    for split in plan.splits:
        if not len(rows[split]):
            raise ConfigError(f"{plan.where(split)}the split {split!r} of {source.version} holds no rows; get the data again.")


# ------------------------------------------------------------------------------------------------ lm-eval's own code


def _construct(plan: Plan, rows: Mapping[str, Any]) -> Any:
    """lm-eval's task object on our data, measured by the one metric, seeded as ``lm_eval.simple_evaluate`` does it."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    config = _resolved(plan.leaf.config)
    entries = config.get("metric_list") or [{"metric": name} for name in DEFAULT_METRICS[plan.output_type]]
    config |= {
        "metric_list": gated_entries(entries, plan.metric),
        "num_fewshot": plan.n_shots,
        "custom_dataset": lambda **_: dict(rows),
        "metadata": _metadata(plan.leaf),
    }
    if plan.n_shots == 0:  # lm-eval looks at the examples' split even where it draws none
        splits = ("training_split", "validation_split", "test_split", "fewshot_split")
        config |= {key: None for key in splits if config.get(key) not in rows}
        config["fewshot_config"] = {k: v for k, v in (config.get("fewshot_config") or {}).items() if k != "split"}
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    return task


def _resolved(value: Any) -> Any:
    """A config with its functions imported, copied so that lm-eval may change it."""
    if isinstance(value, Code):
        return _function(value)
    if isinstance(value, Mapping):
        return {key: _resolved(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part) for part in value]
    return deepcopy(value)


def _function(code: Code) -> Any:
    from lm_eval.tasks._yaml_loader import _import_func_in_yml

    return _import_func_in_yml(code.spec, code.yaml.parent)


def _metadata(leaf: Leaf) -> dict[str, Any]:
    given = leaf.config.get("metadata") or {}
    return {**(given if isinstance(given, dict) else {"_metadata": given}), "config_source": str(leaf.file.path)}


@contextmanager
def _task_code(
    leaf: Leaf,
    error_type: type[ConfigError] | type[ScoreError],
    *,
    at: str | None = None,
    look_closer: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Around lm-eval's code: quiet, and whatever it raises becomes an error that names the task, and the key that it is
    ``at``; ``look_closer`` may raise a better one."""
    try:
        with _quiet():
            yield
    except HarnessError:
        raise
    except (Exception, SystemExit) as error:  # a function of a task's own that exits would end the run without a word
        if look_closer is not None:
            look_closer()
        first_line = str(error).strip().partition("\n")[0]
        where = f"({leaf.file.path}) failed in its own code" if at is None else f"({leaf.file.at(at)}) failed at {at}"
        raise error_type(
            f"the task {leaf.name!r} {where} ({type(error).__name__}: {first_line}): its templates and functions don't fit "
            "its data; correct the task file, or take another task."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval and the data loader without bars, log lines and numpy's warnings (an empty option has no length to divide by,
    whatever the metric); afterwards as before."""
    _prepare_templates()
    with quiet_loading(_TALKATIVE), np.errstate(divide="ignore", invalid="ignore"):
        yield


@cache
def _prepare_templates() -> None:
    """Once a process."""
    from lm_eval.utils import env

    bound_templates(env)


def _try_templates(plan: Plan, rows: Mapping[str, Any]) -> None:
    """Raise ConfigError with file and key where a template fails on the first row; a task's own code may change the rows."""
    from lm_eval.utils import apply_template

    config, asked = plan.leaf.config, rows[plan.asked_split]
    if config.get("process_docs") is None and len(asked):
        try_templates(config, asked[0], apply_template, lambda key: _task_code(plan.leaf, ConfigError, at=key))
