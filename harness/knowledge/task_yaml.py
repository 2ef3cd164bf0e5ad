"""lm-eval's task files, read without running anything: includes merged as lm-eval merges them, functions left as names."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.core.digest import digest_file
from harness.core.errors import ConfigError, UnknownNameError
from harness.core.shelf import unknown_name

OUTPUT_TYPES = ("loglikelihood", "multiple_choice", "loglikelihood_rolling", "generate_until")

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Code:
    """A function that a task file names: ``spec`` as written ("utils.process_docs") in the file ``yaml``."""

    spec: str
    yaml: Path

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.spec.rpartition(".")[2]

    def file(self) -> Path:
        """The Python file that has it: beside the task file, else an importable module's. Raises ConfigError."""
        module = self.spec.rpartition(".")[0]
        beside = self.yaml.parent / f"{module.replace('.', '/')}.py"
        if module and beside.exists():
            return beside
        try:
            found = importlib.util.find_spec(module) if module else None
        except ModuleNotFoundError:
            found = None
        if found is None or found.origin is None:
            raise ConfigError(
                f"{self.yaml}: `!function {self.spec}` names no function: expected {beside.name or 'a file'} beside the task "
                "file or an importable module before the last dot; correct the name."
            )
        return Path(found.origin)


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task file with what it includes. ``origin`` says which file each key comes from."""

    path: Path
    config: Mapping[str, Any]
    origin: Mapping[str, Path]

    def at(self, key: str) -> str:
        """``<file>:<line>`` of a key, ``<file>`` where it has none."""
        path = self.origin.get(key, self.path)
        try:
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_BASE)
        except (OSError, yaml.YAMLError):
            return str(path)
        lines = [name.start_mark.line + 1 for name, _ in getattr(node, "value", []) if name.value == key]
        return f"{path}:{lines[0]}" if lines else str(path)


def check_keys_once(path: Path) -> None:
    """Raise ConfigError where a key stands twice at the top of a file: YAML readers take the last one without a word."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_BASE)
    seen: dict[str, int] = {}
    for name, _ in node.value:
        line = name.start_mark.line + 1
        if (first := seen.setdefault(name.value, line)) != line:
            raise ConfigError(
                f"{path}:{line}: the key {name.value!r} stands there twice (first in line {first}); take one out."
            )


def read_task_file(path: Path, _within: tuple[Path, ...] = ()) -> TaskFile:
    """A task file and its includes; later includes win over earlier ones, the file's own keys over all. Raises ConfigError."""
    path = path.expanduser().resolve()
    own = _read(path)
    included = own.pop("include", [])
    config: dict[str, Any] = {}
    origin: dict[str, Path] = {}
    for name in included if isinstance(included, list) else [included]:
        below = (path.parent / str(name)).resolve()
        if below in (*_within, path):
            raise ConfigError(f"{path}: it includes itself by way of {name!r}; take that include out.")
        if not below.is_file():
            raise ConfigError(f"{path}: includes {name!r}, and there is no file {below}; correct the name.")
        part = read_task_file(below, (*_within, path))
        config |= {key: value for key, value in part.config.items() if key != "task_list"}
        origin |= part.origin
    return TaskFile(path, {**config, **own}, {**origin, **dict.fromkeys(own, path)})


def codes_in(value: Any) -> Iterable[Code]:
    """Every function that a config names, at any depth."""
    if isinstance(value, Code):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from codes_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from codes_in(part)


def as_json(value: Any) -> Any:
    """A config as JSON; a function as its name and the digest of the file that has it, wherever that lies."""
    if isinstance(value, Code):
        return {"function": value.spec, "source": digest_file(value.file())}
    if isinstance(value, Mapping):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


# ------------------------------------------------------------------------------------------------ is it a task?


def check_config(file: TaskFile, config: Mapping[str, Any], known_keys: Iterable[str]) -> None:
    """Raise ConfigError, naming file and key, where a config can't be a task: unknown keys, missing ones, wrong types."""
    known = sorted({*known_keys, "group", "tag", "task_list", "class"})
    for key, value in config.items():
        if key not in known:
            raise UnknownNameError(f"{file.at(str(key))}: {unknown_name('key', str(key), known)}")
        expected = _TYPES.get(key)
        if expected is not None and value is not None and not isinstance(value, expected):
            words = " or ".join(_WORDS[kind] for kind in expected)
            raise ConfigError(f"{file.at(key)}: {key} is {value!r}, expected {words}; correct it.")
    if (output := config.get("output_type", "generate_until")) not in OUTPUT_TYPES:
        raise UnknownNameError(f"{file.at('output_type')}: {unknown_name('output_type', str(output), OUTPUT_TYPES)}")
    for missing, alternatives in _required(output):
        if all(config.get(key) is None for key in alternatives):
            raise ConfigError(f"{file.path}: a task of output_type {output} needs {missing}, which it has not; add it.")
    for key, inner in (("metric_list", "metric"), ("filter_list", "name"), ("filter_list", "filter")):
        for entry in config.get(key) or []:
            if not isinstance(entry, Mapping) or inner not in entry:
                raise ConfigError(
                    f"{file.at(key)}: an entry of {key} is {entry!r}, expected a mapping with the key {inner!r}."
                )


def _required(output: str) -> Iterable[tuple[str, tuple[str, ...]]]:
    yield "doc_to_text", ("doc_to_text", "use_prompt")
    yield "doc_to_target", ("doc_to_target", "use_prompt")
    if output == "multiple_choice":
        yield "doc_to_choice", ("doc_to_choice", "use_prompt")
    yield "dataset_path (or custom_dataset)", ("dataset_path", "custom_dataset")
    yield "test_split or validation_split", ("test_split", "validation_split")


_WORDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    Code: "a `!function`",
}
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("task", "dataset_path", "output_type", "use_prompt", "gen_prefix", "description"), (str,)),
    **dict.fromkeys(("training_split", "validation_split", "test_split", "fewshot_split"), (str,)),
    **dict.fromkeys(("target_delimiter", "fewshot_delimiter"), (str,)),
    **dict.fromkeys(("generation_kwargs", "dataset_kwargs", "fewshot_config"), (dict,)),
    **dict.fromkeys(("metric_list", "filter_list"), (list,)),
    **dict.fromkeys(("num_fewshot", "repeats"), (int,)),
    **dict.fromkeys(("process_docs", "custom_dataset"), (Code,)),
    "process_results": (Code, str),
    "doc_to_text": (str, int, Code),
    "doc_to_target": (str, int, list, Code),
    "doc_to_choice": (str, list, dict, Code),
    "unsafe_code": (bool,),
}


# ------------------------------------------------------------------------------------------------ reading


def _read(path: Path) -> dict[str, Any]:
    class Loader(_BASE):  # type: ignore[misc] # one a file: a function's name is relative to it
        pass

    def function(loader: Any, node: Any) -> Code:
        return Code(str(loader.construct_scalar(node)), path)

    Loader.add_constructor("!function", function)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - a safe loader with one more tag
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}): expected a task file; correct the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason}): expected a task file in YAML.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not YAML ({getattr(error, 'problem', None) or error}); correct that line.") from error
    if not isinstance(config, dict):
        raise ConfigError(
            f"{path}: expected a mapping of keys, found {type(config).__name__}; a task starts with `task: <name>`."
        )
    return config
