"""Finding lm-eval's tasks, groups and tags by name without parsing fourteen thousand files: only those that have the name
in their text, or in the text of what they include, are read.

What a name means is lm-eval's (``lm_eval.tasks.TaskManager``, 0.4.13): of two definitions the first in path order counts,
a group's own keys override its members', a tag stands for every task that carries it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from harness.core.errors import ConfigError, UnknownNameError
from harness.knowledge.task_yaml import TaskFile, read_task_file

GROUP_KEYS = ("group", "group_alias", "task", "aggregate_metric_list", "metadata")
"""What a group says of itself; its other keys override those of its members."""

_IGNORED = {"__pycache__", ".ipynb_checkpoints"}
_INCLUDE = re.compile(r"^[\"']?include[\"']?[ \t]*:([^\n]*(?:\n[ \t]*-[^\n]*)*)", re.MULTILINE)
_NAMED = re.compile(r"^[\"']?(?:task|group|tag)[\"']?[ \t]*:[ \t]*[\"']?([\w.:+\-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A single task: its name, the file where it is written, and its config with what its groups override."""

    name: str
    file: TaskFile
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskFolder:
    """The task files under one folder. ``texts`` holds each one's text and, behind it, that of what it includes.

    ``strict``: a file that mentions a looked-up name and can't be read is an error; lm-eval skips such files of its own.
    """

    root: Path
    texts: Mapping[Path, str]
    strict: bool

    @classmethod
    def scan(cls, root: Path, *, strict: bool) -> TaskFolder:
        """Read the texts of a folder's task files, in path order. Raises ConfigError when there is no such folder."""
        if not root.is_dir():
            raise ConfigError(f"{root} is no folder: expected one with task files (*.yaml) for `include`; correct the path.")
        paths: list[Path] = []
        for folder, below, files in os.walk(root):
            below[:] = [name for name in below if name not in _IGNORED]
            paths += [Path(folder, name) for name in files if name.endswith(".yaml")]
        texts: dict[str, str] = {}
        paths.sort(key=lambda path: path.as_posix())
        return cls(root, {path: _whole_text(str(path), texts, ()) for path in paths}, strict)

    def files(self, name: str) -> Iterable[TaskFile]:
        """The files that mention a name, in path order."""
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        for path, text in self.texts.items():
            if name in text and word.search(text):
                try:
                    yield read_task_file(path)
                except ConfigError:
                    if self.strict:
                        raise

    def names(self) -> set[str]:
        """The names in the files' texts, for "did you mean"."""
        return {name for text in self.texts.values() for name in _NAMED.findall(text)}


@dataclass
class TaskFolders:
    """Where names are looked up: the user's folder, then the others in order. The last is lm-eval's, whose fourteen thousand
    files are read only when a name is in none of the folders before, and once a process."""

    include: Path | None
    others: tuple[Path, ...]

    def __iter__(self) -> Iterator[TaskFolder]:
        if self.include is not None:
            yield self._included
        yield from map(_scanned, self.others)

    @cached_property
    def _included(self) -> TaskFolder:
        return TaskFolder.scan(self.include or Path(), strict=True)


@cache
def _scanned(root: Path) -> TaskFolder:
    return TaskFolder.scan(root, strict=False)


def find_leaves(name: str, folders: Iterable[TaskFolder]) -> tuple[Leaf, ...]:
    """The tasks that a name stands for: itself, a group's members, or a tag's tasks. Of several folders the first that has it
    counts. Raises UnknownNameError with the nearest names, ConfigError for a task that is there in two ways."""
    return _each_once(_Names(folders).named(name, {}, ()))


def leaves_of(file: TaskFile, folders: Iterable[TaskFolder]) -> tuple[Leaf, ...]:
    """The tasks of one file: a task, or a group whose members are written in it or found in ``folders``."""
    name = file.config.get("group") or file.config.get("task")
    if not isinstance(name, str):
        raise ConfigError(f"{file.path}: names no task: expected the key `task` with a name; add it.")
    return _each_once(_Names(folders).expand(name, file, {}, ()))


def _each_once(leaves: Iterable[Leaf]) -> tuple[Leaf, ...]:
    """Each task once, as lm-eval has it, however many groups and tags it is in: twice the same items are no more evidence."""
    found: dict[str, Leaf] = {}
    for leaf in leaves:
        if (known := found.setdefault(leaf.name, leaf)) != leaf:
            raise ConfigError(
                f"the task {leaf.name!r} is asked for twice and differently ({known.file.path}, {leaf.file.path}): one of the "
                "groups or tags overrides what it says; give each way its own entry."
            )
    return tuple(found.values())


# ------------------------------------------------------------------------------------------------ what a name means

_Meaning = TaskFile | tuple[str, ...]
"""The file of a task or a group, or the names of a tag's tasks."""

Overrides = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Names:
    """What names mean in some folders. ``within`` are the groups around a name, the innermost last."""

    folders: Iterable[TaskFolder]

    def named(self, name: str, overrides: Overrides, within: tuple[str, ...]) -> tuple[Leaf, ...]:
        """The tasks behind a name. Raises UnknownNameError."""
        found = self._look_up(name)
        if found is None:
            prefix = f"the group {within[-1]!r} has an unknown member: " if within else ""
            raise UnknownNameError(prefix + self._unknown(name))
        return self.expand(name, found, overrides, within)

    def expand(self, name: str, found: _Meaning, overrides: Overrides, within: tuple[str, ...]) -> tuple[Leaf, ...]:
        """The tasks of what a name was found to mean."""
        if name in within:
            path = " > ".join((*within, name))
            raise ConfigError(f"the task group {name!r} is a member of itself ({path}); correct its file.")
        if isinstance(found, tuple):
            return tuple(leaf for member in found for leaf in self.named(member, overrides, (*within, name)))
        if _is_group(found.config):
            return self._members(found, found.config, overrides, (*within, name))
        return (_leaf(name, found, {**found.config, **overrides}),)

    def _members(self, file: TaskFile, group: Overrides, overrides: Overrides, within: tuple[str, ...]) -> tuple[Leaf, ...]:
        members, merged = group.get("task"), {**_overriding(group), **overrides}
        if not isinstance(members, list) or not members:
            raise ConfigError(f"{file.at('task')}: the group {within[-1]!r} has {members!r} as its task, expected a list.")
        return tuple(leaf for member in members for leaf in self._member(file, member, merged, within))

    def _member(self, file: TaskFile, member: Any, overrides: Overrides, within: tuple[str, ...]) -> tuple[Leaf, ...]:
        """A member by name, or written out in the group's file, or by name with overrides of its own."""
        if isinstance(member, str):
            return self.named(member, overrides, within)
        key = "group" if isinstance(member, Mapping) and "group" in member else "task"
        if not isinstance(member, Mapping) or not isinstance(member.get(key), str):
            raise ConfigError(f"{file.at('task')}: the group {within[-1]!r} has the member {member!r}, expected a name.")
        name, known = member[key], self._look_up(member[key])
        inline = f"{within[-1]}::{name}"
        if key == "group":
            if known is None:
                return self._members(file, member, overrides, (*within, inline))
            return self.expand(name, known, {**overrides, **_overriding(member)}, within)
        merged = {**overrides, **{own: value for own, value in member.items() if own != "task"}}
        return (_leaf(inline, file, merged),) if known is None else self.expand(name, known, merged, within)

    def _look_up(self, name: str) -> _Meaning | None:
        for folder in self.folders:
            tagged: list[str] = []
            for file in folder.files(name):
                kind = "group" if _is_group(file.config) else "task"
                if file.config.get(kind) == name and not tagged:
                    return file
                tags = file.config.get("tag") or []
                if kind == "task" and name in ([tags] if isinstance(tags, str) else tags):
                    tagged.append(str(file.config.get("task")))
            if tagged:
                return tuple(sorted(set(tagged)))
        return None

    def _unknown(self, name: str) -> str:
        names = {known for folder in self.folders for known in folder.names()}
        near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.6)
        hint = f" did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        places = ", ".join(str(folder.root) for folder in self.folders)
        return f"unknown lm-eval task {name!r}:{hint} {len(names):,} names were looked through, in {places}; correct the name."


def _is_group(config: Overrides) -> bool:
    return "group" in config and "class" not in config


def _overriding(group: Overrides) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in GROUP_KEYS}


def _leaf(name: str, file: TaskFile, config: Overrides) -> Leaf:
    kept = {key: value for key, value in config.items() if key not in ("tag", "group", "task_list")}
    return Leaf(name, file, {**kept, "task": name})


# ------------------------------------------------------------------------------------------------ texts


def _whole_text(path: str, texts: dict[str, str], within: tuple[str, ...]) -> str:
    """A file's text and that of what it includes; a missing include and a cycle show when the file is read in earnest."""
    if path in within:
        return ""
    if path not in texts:
        try:
            own = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            own = ""
        here = os.path.dirname(path)  # noqa: PTH120 - a hundred thousand Path objects take seconds
        below = [os.path.join(here, name) for found in _INCLUDE.findall(own) for name in _included(found)]  # noqa: PTH118
        texts[path] = "\n".join([own, *(_whole_text(os.path.normpath(p), texts, (*within, path)) for p in below)])
    return texts[path]


def _included(value: str) -> list[str]:
    """The names behind ``include:``.

    >>> _included(" a.yaml  # why"), _included("\\n  - a\\n  - 'b'")
    (['a.yaml'], ['a', 'b'])
    """
    if re.fullmatch(r"[ \t]*[\w./\-]+[ \t]*", value):
        return [value.strip()]
    try:
        names = yaml.safe_load(value)
    except yaml.YAMLError:
        return []
    return [str(name) for name in (names if isinstance(names, list) else [names]) if name is not None]
