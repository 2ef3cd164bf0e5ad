"""Plain data as reviewable JSON, written piece by piece: a large run's report.json is never whole in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, cast

_DEPTH = 7
"""Levels that are broken into lines; what lies deeper, such as one flip, stands on one line."""


def _fields(view: Any) -> dict[str, Any]:
    """A view's fields by name, one level deep."""
    return {name: getattr(view, name) for name in _names(cast(Hashable, type(view)))}


@lru_cache(maxsize=256)
def _names(kind: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cast(type, kind)))


encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, default=_fields).encode
"""A value as JSON on one line, keys sorted, views as their fields, NaN refused."""

quote: Callable[[str], str] = encode_basestring
"""What ``encode`` makes of a text."""


def _short(value: Any) -> str | None:
    """What ``encode`` makes of a number or of nothing, without setting up an encoder for it; None for all else."""
    kind = type(value)
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    return "null" if value is None else "true" if value is True else "false" if value is False else None


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of objects of the same keys, each on one line, from columns of JSON text that are made when it is written.

    >>> list(Rows(lambda: {"b": ["1", "2"], "a": ['"x"', '"y"']}).lines())
    ['{"a": "x", "b": 1}', '{"a": "y", "b": 2}']
    """

    columns: Callable[[], Mapping[str, Iterable[str]]]

    def lines(self) -> Iterator[str]:
        """Each object."""
        columns = self.columns()
        keys = sorted(columns)
        form = "{" + ", ".join(f"{quote(key)}: %s" for key in keys) + "}"
        return (form % row for row in zip(*(columns[key] for key in keys), strict=True))


def write_json(value: Any, write: Callable[[str], object], depth: int = 0) -> None:
    """Write a value as JSON text, piece by piece."""
    if isinstance(value, str):
        write(quote(value))
        return
    if (short := _short(value)) is not None:
        write(short)
        return
    if is_dataclass(value) and not isinstance(value, Rows):
        value = _fields(value)
    if depth >= _DEPTH or not value or not isinstance(value, (dict, list, tuple, Rows)):
        write(encode(value))
        return
    start, end = "{}" if isinstance(value, dict) else "[]"
    indent = "\n" + " " * (depth + 1)
    if isinstance(value, Rows):
        write(f"{start}{indent}{f',{indent}'.join(value.lines())}")
    elif isinstance(value, dict):
        for i, key in enumerate(sorted(value)):
            write(f"{',' if i else start}{indent}{quote(key)}: ")
            write_json(value[key], write, depth + 1)
    else:
        for i, entry in enumerate(value):
            write(f"{',' if i else start}{indent}")
            write_json(entry, write, depth + 1)
    write(indent[:-1] + end)
