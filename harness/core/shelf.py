"""Shelves: a literal name -> "module:attribute" table, looked up late, with "did you mean" and plug-ins by entry point.

Nothing registers itself on import and nothing scans folders: an entry is imported when it is first asked for. Other
distributions add entries through the entry point group ``harness.<shelf>``; a name of the table can't be replaced.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from harness.core.errors import ConfigError, MissingDependencyError, UnknownNameError


@dataclass(frozen=True)
class Shelf(Mapping[str, str]):
    """A named table of things that can be asked for by name: ``shelf.load("rtn")`` imports and returns the entry."""

    name: str
    table: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        found = self._all().get(key)
        if found is None:
            raise UnknownNameError(unknown_name(self.name, key, self._all()))
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def load(self, key: str) -> Any:
        """The object behind a name. Raises UnknownNameError, or MissingDependencyError when its package is not installed."""
        module_name, _, attribute = self[key].partition(":")
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "harness":
                raise
            raise MissingDependencyError(
                f"{self.name} {key!r} needs the package {error.name!r}, which is not installed: "
                "pip install 'retention-harness[measure]'."
            ) from error
        return getattr(module, attribute)

    def _all(self) -> dict[str, str]:
        plugged = {entry.name: entry.value for entry in entry_points(group=f"harness.{self.name}")}
        return {**plugged, **self.table}


def construct(kind: str, name: str, entry: Any, written: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    """An entry, a dataclass, made from the fields that are ``written`` in the matrix and those that the run has ``given``.

    Raises ConfigError naming the entry for unknown or missing fields.
    """
    own = [field for field in dataclasses.fields(entry) if field.init and field.name not in (given or {})]
    known = [field.name for field in own]
    if unknown := next((key for key in written if key not in known), None):
        raise UnknownNameError(f"{kind} {name!r} of the matrix: {unknown_name('field', unknown, known)}")
    needed = [field.name for field in own if field.default is field.default_factory is dataclasses.MISSING]
    if missing := [key for key in needed if key not in written]:
        raise ConfigError(
            f"{kind} {name!r} of the matrix has no {' and no '.join(missing)}: add it; its fields are: {', '.join(known)}."
        )
    return entry(**written, **(given or {}))


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that nobody knows, with the nearest known ones.

    >>> unknown_name("compression", "4bit-rtm", ["4bit-rtn", "none"])
    "unknown compression '4bit-rtm': did you mean '4bit-rtn'? Known: 4bit-rtn, none."
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    hint = f" did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    listed = ", ".join(names) if names else "nothing"
    return f"unknown {kind} {name!r}:{hint} Known: {listed}."
