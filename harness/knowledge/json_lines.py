"""Files of JSON lines that people write: read strictly, so that a mistake is told with its file and line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.core.errors import FileFormatError
from harness.core.serial import read_text


def read_json_lines(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with its place, ``<file>:<line>``; blank lines are passed over. Raises FileFormatError."""
    lines = [(f"{file}:{number}", line) for number, line in enumerate(read_text(file).split("\n"), start=1)]
    return [(place, read_json_object(line, place)) for place, line in lines if line.strip()]


def read_json_object(text: str, what: str) -> dict[str, Any]:
    """The object that a text is. Raises FileFormatError for anything else, for a key that stands twice, and for NaN."""
    try:
        made = json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_refuse, parse_float=_finite)
        if "\\" in text:
            json.dumps(made, ensure_ascii=False).encode()  # half of a character, as an escape
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        raise FileFormatError(f"{what} is not JSON ({error.msg}, {line}column {error.colno}): correct it.") from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{what} can't be read as JSON ({error}): correct it.") from error
    if not isinstance(made, dict):
        raise FileFormatError(f'{what} is JSON, but {type(made).__name__}: expected an object, {{"key": …}}; correct it.')
    return made


def _each_key_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return made


def _finite(digits: str) -> float:
    return float(digits) if math.isfinite(float(digits)) else _refuse(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number that can be kept")
