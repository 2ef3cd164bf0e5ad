"""Plain data as reviewable JSON, in pieces as they are written: a large run's report.json is never whole in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from json.encoder import encode_basestring
from typing import Any

_DEPTH = 7
"""Levels that are broken into lines; what lies deeper, such as one flip, stands on one line."""


def _fields(view: Any) -> dict[str, Any]:
    """A view's fields by name, one level deep."""
    return {field.name: getattr(view, field.name) for field in fields(view)}


encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, default=_fields).encode
"""A value as JSON on one line, keys sorted, views as their fields, NaN refused."""

quote: Callable[[str], str] = encode_basestring
"""What ``encode`` makes of a text."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of objects of the same keys, each on one line, from columns of JSON text that are made when it is written.

    >>> print("".join(json_pieces(Rows(lambda: {"b": ["1", "2"], "a": ['"x"', '"y"']}))))
    [
     {"a": "x", "b": 1},
     {"a": "y", "b": 2}
    ]
    """

    columns: Callable[[], Mapping[str, Iterable[str]]]

    def lines(self) -> Iterator[str]:
        """Each object."""
        columns = self.columns()
        keys = sorted(columns)
        form = "{" + ", ".join(f"{quote(key)}: %s" for key in keys) + "}"
        return (form % row for row in zip(*(columns[key] for key in keys), strict=True))


def json_pieces(value: Any, depth: int = 0) -> Iterator[str]:
    """A value as JSON text in pieces."""
    if is_dataclass(value) and not isinstance(value, Rows):
        value = _fields(value)
    if depth >= _DEPTH or not value or not isinstance(value, (dict, list, tuple, Rows)):
        yield encode(value)
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    before, indent = opening, "\n" + " " * (depth + 1)
    for name, pieces in _entries(value, depth + 1):
        yield f"{before}{indent}{name}"
        yield from pieces
        before = ","
    yield "\n" + " " * depth + closing


def _entries(value: Any, depth: int) -> Iterator[tuple[str, Iterable[str]]]:
    if isinstance(value, Rows):
        return (("", (line,)) for line in value.lines())
    if isinstance(value, dict):
        return ((f"{quote(key)}: ", json_pieces(value[key], depth)) for key in sorted(value))
    return (("", json_pieces(entry, depth)) for entry in value)
