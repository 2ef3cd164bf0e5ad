"""How one of lm-eval's tasks will be asked, decided from its file alone; what can't or must not be asked is refused here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.core.errors import ConfigError, UnknownNameError
from harness.core.shelf import unknown_name
from harness.knowledge.mirror import MissingSplitError
from harness.knowledge.task_index import Leaf
from harness.knowledge.task_yaml import Code, check_config, check_keys_once, codes_in

PER_ITEM: Mapping[str, tuple[str, ...]] = {
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"),
    "loglikelihood": ("acc",),
    "loglikelihood_rolling": (),
    "generate_until": ("exact_match",),
}
"""lm-eval's own metrics that are right or wrong for each item, by output type."""

DEFAULT_METRICS: Mapping[str, tuple[str, ...]] = {
    "multiple_choice": ("acc", "acc_norm"),
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "generate_until": ("exact_match",),
}
"""What a task file without a metric_list is measured by."""

PERPLEXITIES = DEFAULT_METRICS["loglikelihood_rolling"]
"""Metrics that are a text's log-likelihood over its words or bytes: reported beside the tasks, never gated."""

MAX_NEW_TOKENS = 256
"""What lm-eval's ``hf`` model class generates where a task names no limit."""

_SPLITS = ("test_split", "validation_split", "fewshot_split", "training_split")
_SAMPLING = ("do_sample", "temperature", "top_p", "top_k", "min_p")
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Plan:
    """A single task as it will be asked. ``splits`` are those that are read; ``stop`` and ``max_new_tokens`` are for
    generation only. ``example_split`` is that of the examples, None where there are none or the task file lists them.
    ``shows_answers``: an example may be the asked document with its answer; lm-eval takes it out only where both splits are
    named, as ``test_split`` and for the examples. ``pooled``: whether the task file puts its items into a cell's pool."""

    leaf: Leaf
    output_type: str
    metric: str
    filter: str
    n_shots: int
    example_split: str | None
    shows_answers: bool
    splits: tuple[str, ...]
    stop: tuple[str, ...]
    max_new_tokens: int
    pooled: bool

    @property
    def name(self) -> str:
        """The task's own name."""
        return self.leaf.name

    @property
    def asked_split(self) -> str:
        """The split whose documents are asked."""
        return str(self.leaf.config.get("test_split") or self.leaf.config["validation_split"])

    def where(self, split: str) -> str:
        """``<file>:<line>: <key>: `` of the key that names a split, for the start of a sentence."""
        keys = [key for key in _SPLITS if self.leaf.config.get(key) == split] or ["fewshot_config"]
        return f"{self.leaf.file.at(keys[0])}: {keys[0]}: "

    @property
    def options_compete(self) -> bool:
        """Whether one option wins over the others (then guessing has a chance); else each is right or wrong for itself."""
        return self.output_type == "multiple_choice" and self.metric != "exact_match"

    @property
    def is_perplexity(self) -> bool:
        """Whether a text's log-likelihood is measured, and nothing is right or wrong."""
        return self.output_type == "loglikelihood_rolling" and self.metric in PERPLEXITIES


def plan_task(
    leaf: Leaf, known_keys: Iterable[str], *, metric: str, filter_name: str | None, num_fewshot: int | None, allow_code: bool
) -> Plan:
    """A task that can be asked. Raises ConfigError for one that can't, or would run code from outside."""
    file, config = leaf.file, leaf.config
    if "class" in config:
        raise ConfigError(
            f"{file.path}: {leaf.name!r} is a Python class that loads and asks by itself; only YAML tasks can run."
        )
    for path in {file.path, *file.origin.values()}:
        if not _is_known(path):
            check_keys_once(path)
    check_config(file, config, known_keys)
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise ConfigError(
            f"{file.path}: {leaf.name!r} asks about images or sounds, and only text can be measured; leave it out."
        )
    if not allow_code:
        _refuse_code(leaf, metric)
    output_type = config.get("output_type", "generate_until")
    _check_metric(metric, leaf, output_type)
    names = [entry["name"] for entry in config.get("filter_list") or [{"name": "none"}]]
    if filter_name is not None and filter_name not in names:
        raise UnknownNameError(f"{file.path}: {unknown_name(f'filter of {leaf.name!r}', filter_name, names)}")
    stop, max_new_tokens = _generation(leaf) if output_type == "generate_until" else ((), 0)
    n_shots = _shots(num_fewshot, leaf)
    asked = config.get("test_split") or config["validation_split"]
    example_split = _example_split(config) if n_shots else None
    shows_answers = example_split == asked and _named_example_split(config) != config.get("test_split")
    if shows_answers and not _is_known(file.path):
        raise ConfigError(
            f"{file.path}: the examples of {leaf.name!r} come from {asked!r}, the split that is asked, so one of them may be "
            "the asked document with its answer; name a `fewshot_split` of other documents, or both "
            f"`test_split: {asked}` and `fewshot_split: {asked}`, with which the asked one is taken out."
        )
    return Plan(
        leaf=leaf,
        output_type=output_type,
        metric=metric,
        filter=filter_name or names[0],
        n_shots=n_shots,
        example_split=example_split,
        shows_answers=shows_answers,
        splits=tuple(sorted({split for split in (asked, example_split) if split is not None})),
        stop=stop,
        max_new_tokens=max_new_tokens,
        pooled=_pooled(leaf),
    )


@contextmanager
def naming_splits(plan: Plan) -> Iterator[None]:
    """Around reading a task's data: a split that is not there is told with the task file's key. Raises ConfigError."""
    try:
        yield
    except MissingSplitError as error:
        raise ConfigError(f"{plan.where(error.split)}{error}") from error


@cache
def package_folder(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(name=name)
    return Path(next(iter(spec.submodule_search_locations))).resolve()


# ------------------------------------------------------------------------------------------------ code from outside


def _is_known(path: Path) -> bool:
    """Whether a file is lm-eval's or this project's."""
    return any(path.is_relative_to(package_folder(name)) for name in ("lm_eval", "harness"))


def _refuse_code(leaf: Leaf, metric: str) -> None:
    """Raise ConfigError naming the code from outside that a task would run: what stands neither in lm-eval nor here.

    A template that reaches into Python's internals is refused while it is rendered.
    """
    outside = [code for code in codes_in(leaf.config) if not _is_known(code.yaml)]
    found = [f"the function {code.spec} ({code.yaml})" for code in outside]
    if leaf.config.get("process_results") is None:
        fetched = [
            entry["metric"]
            for entry in gated_entries(leaf.config.get("metric_list") or [], metric)
            if entry.get("hf_evaluate")
        ]
        found += [f"the metric {name}, which comes from the hub (hf_evaluate)" for name in fetched]
    if leaf.config.get("unsafe_code"):
        found.append("what the model writes (unsafe_code: true)")
    if found:
        raise ConfigError(
            f"the task {leaf.name!r} would run code from outside: {'; '.join(found)}; read it, and set `allow_code = true` if "
            "you trust it."
        )


# ------------------------------------------------------------------------------------------------ the metric


def _check_metric(metric: str, leaf: Leaf, output_type: str) -> None:
    """Raise ConfigError for a metric that the task does not have, or that is known not to be right or wrong for each item.

    What functions of the task's own measure is found out on its first documents.
    """
    given = [entry["metric"] for entry in leaf.config.get("metric_list") or []] or list(DEFAULT_METRICS[output_type])
    names = [entry.name if isinstance(entry, Code) else str(entry) for entry in given]
    own = leaf.config.get("process_results") is not None
    if output_type == "loglikelihood_rolling" and metric in PERPLEXITIES and metric in names:
        return
    if any(isinstance(entry, Code) for entry in given) or (own and metric in names):
        return
    if own:
        raise ConfigError(
            f"the task {leaf.name!r} can't be gated on {metric!r}: its own code measures {', '.join(names)}; take one of "
            "these that is 0 or 1 for each item (it is tried on the first documents)."
        )
    binary = [name for name in names if name in PER_ITEM[output_type]]
    if metric not in binary:
        raise ConfigError(not_binary(metric, leaf, names, binary))


def gated_entries(listed: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    """The entry of a metric_list that measures a metric, or all where the metric comes out of one of another name."""
    names = [getattr(entry["metric"], "__name__", getattr(entry["metric"], "name", entry["metric"])) for entry in listed]
    return [entry for entry, name in zip(listed, names, strict=True) if name == metric] or list(listed)


def not_binary(metric: str, leaf: Leaf, names: Iterable[str], binary: Sequence[str]) -> str:
    """The sentence for a metric that can't be gated, with those that the task has."""
    able = f"right or wrong for each item: {', '.join(binary)}" if binary else "none of them is right or wrong for each item"
    advice = "take one of these" if binary else "the task can't be gated, take another one"
    return f"the task {leaf.name!r} can't be gated on {metric!r}: it has the metrics {', '.join(names)}; {able}; {advice}."


# ------------------------------------------------------------------------------------------------ examples and generation


def _shots(wanted: int | None, leaf: Leaf) -> int:
    own = leaf.config.get("num_fewshot")
    if own is not None and own < 0:
        raise ConfigError(f"{leaf.file.at('num_fewshot')}: num_fewshot is {own}, expected 0 or more; correct it.")
    if wanted is None:
        return int(own or 0)
    if own == 0 and wanted != 0:
        raise ConfigError(
            f"{leaf.file.at('num_fewshot')}: the task {leaf.name!r} is to be asked without examples, and num_fewshot is "
            f"{wanted}; leave num_fewshot out."
        )
    return wanted


def _example_split(config: Mapping[str, Any]) -> str | None:
    """The split that few-shot examples come from, as lm-eval chooses it; None where the task file lists them."""
    if split := _named_example_split(config):
        return split
    if (config.get("fewshot_config") or {}).get("samples") is not None:
        return None
    return next(str(config[key]) for key in ("training_split", "validation_split", "test_split") if config.get(key))


def _named_example_split(config: Mapping[str, Any]) -> str | None:
    """The split that the task file names for its examples."""
    named = (config.get("fewshot_config") or {}).get("split") or config.get("fewshot_split")
    return str(named) if named else None


def _pooled(leaf: Leaf) -> bool:
    """What a task file's metadata say; without a word, its items are pooled."""
    metadata = leaf.config.get("metadata")
    pooled = metadata.get("pooled", True) if isinstance(metadata, Mapping) else True
    if not isinstance(pooled, bool):
        raise ConfigError(f"{leaf.file.at('metadata')}: pooled is {pooled!r}, expected true or false; correct it.")
    return pooled


def _generation(leaf: Leaf) -> tuple[tuple[str, ...], int]:
    """The stop strings and the most new tokens. Raises ConfigError for what is not greedy generation."""
    options = leaf.config.get("generation_kwargs") or {}
    sampled = options.get("do_sample", _number(leaf, "temperature", options.get("temperature", 0)) > 0)
    unknown = sorted(set(options) - {"until", *_SAMPLING, *_LENGTHS})
    if sampled or unknown:
        what = "samples its answers" if sampled else f"asks for {', '.join(unknown)}"
        raise ConfigError(
            f"{leaf.file.at('generation_kwargs')}: the task {leaf.name!r} {what}, and only plain greedy generation is done, "
            "because it repeats from run to run; change generation_kwargs in a task file of your own."
        )
    until = options.get("until", leaf.config.get("fewshot_delimiter", "\n\n"))
    stop = [until] if isinstance(until, str) else [] if until is None else until
    if not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        raise _wrong_option(leaf, "until", until, "a text or a list of texts")
    lengths = [(key, options[key]) for key in _LENGTHS if options.get(key) is not None]
    key, longest = (lengths or [("max_gen_toks", MAX_NEW_TOKENS)])[0]
    if (n_tokens := _number(leaf, key, longest)) < 1:
        raise _wrong_option(leaf, key, longest, "a whole number above 0")
    return tuple(stop), int(n_tokens)


def _number(leaf: Leaf, key: str, value: Any) -> float:
    """A number of generation_kwargs, which may stand in quotes. Raises ConfigError."""
    try:
        return int(value) if key in _LENGTHS else float(value)
    except (TypeError, ValueError) as error:
        raise _wrong_option(leaf, key, value, "a whole number above 0" if key in _LENGTHS else "a number") from error


def _wrong_option(leaf: Leaf, key: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{leaf.file.at('generation_kwargs')}: {key} is {value!r}, expected {expected}; correct it.")
