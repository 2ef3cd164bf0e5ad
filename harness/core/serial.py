"""The only reader and writer of files: records as JSON, settings as TOML (columns over items: ``core.columns``).

Everything read is validated here, once: schema version, unknown keys, wrong types, NaN and infinities are refused with
one sentence that names the file and the key. Everything written is written whole or not at all.
"""

from __future__ import annotations

import codecs
import difflib
import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from harness.core.errors import ConfigError, FileFormatError, StorageError
from harness.core.records import SCHEMA_VERSION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_CANT_WRITE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EIO, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTEMPTY),  # somebody else removed the folder, or writes into it
)

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")

# ------------------------------------------------------------------------------------------------ bytes


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: to a neighbour, flushed to disk, then renamed over ``path``.

    Raises StorageError (no space, no permission); an older file at ``path`` is then still there.
    """
    with atomic_path(path) as neighbour:
        neighbour.write_bytes(data)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes ``path``'s place when the block ends well, and is deleted otherwise."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        neighbour = Path(name)
        try:
            yield neighbour
            _flush(neighbour)
            neighbour.chmod(0o666 & ~_umask())
            neighbour.replace(path)
        finally:
            neighbour.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's write errors into one StorageError sentence about ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageError(
                f"the disk is full: {path} was not written (nothing already stored is lost); free some space, or point "
                "HARNESS_CACHE at another disk, and run again: finished work is kept."
            ) from error
        if error.errno in _CANT_WRITE:
            raise StorageError(
                f"{path} can't be written ({error.strerror}): check where it leads and its permissions."
            ) from error
        raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ------------------------------------------------------------------------------------------------ JSON records


def to_json(value: Any) -> bytes:
    """A record as reviewable JSON: sorted keys, two spaces, final newline, NaN refused."""
    plain = _adapter(type(value)).dump_python(value, mode="json")
    return (json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write a record as JSON, atomically."""
    write_atomic(path, to_json(value))


def read_json(path: Path, kind: type[T]) -> T:
    """The record of type ``kind`` in a file. Raises FileFormatError (missing, broken, wrong schema version, keys, NaN)."""
    return from_json(read_bytes(path), kind, what=str(path))


def from_json(data: bytes, kind: type[T], what: str) -> T:
    """The record of type ``kind`` in JSON bytes; ``what`` names their source in errors."""
    try:
        plain = json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{what} is not valid JSON ({error}): restore it from version control or make it again."
        ) from error
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if version is not None and version != SCHEMA_VERSION:
        raise FileFormatError(
            f"{what} has schema version {version}, this harness reads {SCHEMA_VERSION}: use the harness that wrote it, or "
            "make it again."
        )
    try:
        made: T = _adapter(kind).validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        raise FileFormatError(f"{what}: {_first_error(error)}") from error
    return made


def read_bytes(path: Path) -> bytes:
    """A file's bytes. Raises FileFormatError when there is none or it can't be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no file's name, as one with a NUL in it
        why = error.strerror if isinstance(error, OSError) else error
        raise FileFormatError(f"{path} can't be read ({why}): restore it, or correct what names it.") from error


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark. Raises FileFormatError as ``read_bytes`` does, and for what is not UTF-8."""
    data = read_bytes(path).removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileFormatError(
            f"{path}:{line} is not UTF-8 text (byte 0x{data[error.start]:02x}): save the file as UTF-8."
        ) from error


def as_mapping(value: Any) -> Mapping[str, Any]:
    """A record as plain JSON-ready data (for digests and views)."""
    plain: Mapping[str, Any] = _adapter(type(value)).dump_python(value, mode="json")
    return plain


def _adapter(kind: Any) -> TypeAdapter[Any]:
    return _made_adapter(cast(Hashable, kind))


@cache
def _made_adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)!r} appears twice")
    return made


def _foremost(error: ValidationError) -> ErrorDetails:
    """The error to tell: an unknown key first, since a mistyped key is also a missing one."""
    errors = error.errors()
    return next((e for e in errors if e["type"] in _UNKNOWN_KEY), errors[0])


def _first_error(error: ValidationError) -> str:
    first = _foremost(error)
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] in _UNKNOWN_KEY:
        return f"unknown key {key!r}."
    if first["type"] in ("missing", "missing_argument"):
        return f"key {key!r} is missing."
    return f"key {key!r}: {first['msg']} (got {first['input']!r})."


# ------------------------------------------------------------------------------------------------ TOML settings


def read_toml(path: Path, kind: type[T], problems: Callable[[T], Iterable[tuple[str, str]]] | None = None) -> T:
    """Settings of type ``kind`` from a TOML file. Raises ConfigError with file, line and key.

    ``problems`` says what is wrong with settings of the right types: (dotted key, sentence); the first is raised.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}): expected a TOML file; correct the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason}): expected a TOML file.") from error
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error
    try:
        settings = _adapter(kind).validate_json(json.dumps(plain), strict=True)
    except (ValidationError, ValueError, TypeError) as error:
        if isinstance(error, ValidationError):
            loc = [str(part) for part in _foremost(error)["loc"]]
            raise ConfigError(f"{path}:{toml_line(text, loc)}: {_first_error(error)}{_near_key(kind, loc)}") from error
        raise ConfigError(f"{path}: {error}") from error
    for key, sentence in problems(settings) if problems else ():
        raise ConfigError(f"{path}:{toml_line(text, key.split('.'))}: key {key!r}: {sentence}")
    made: T = settings
    return made


def _near_key(kind: Any, loc: list[str]) -> str:
    """A "did you mean" for the last part of ``loc`` where it is no field of its record; otherwise nothing."""
    for part in loc[:-1]:
        if not is_dataclass(kind):
            return ""
        kind = get_type_hints(kind).get(part)
    known = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    near = [] if loc[-1:] and loc[-1] in known else difflib.get_close_matches(loc[-1] if loc else "", known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def toml_line(text: str, keys: list[str]) -> int:
    """The 1-based line of a dotted key in TOML text: of the deepest part that stands literally in it.

    >>> toml_line("[a]\\nx = 1\\n\\n[a.b]\\ny = 2\\n", ["a", "b", "y"])
    5
    """
    table: list[str] = []
    counts: dict[tuple[str, ...], int] = {}
    best = (0, 1)
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[(\[?)([^\]]+)\]", line)
        if header:
            table = _split_key(header.group(2))
            if header.group(1):
                index = counts.get(tuple(table), 0)
                counts[tuple(table)] = index + 1
                table = [*table, str(index)]
            here = table
        else:
            assignment = re.match(r"\s*((?:[\w\-]+|\"[^\"]*\")(?:\s*\.\s*(?:[\w\-]+|\"[^\"]*\"))*)\s*=", line)
            if not assignment:
                continue
            here = [*table, *_split_key(assignment.group(1))]
        depth = next((i for i, (a, b) in enumerate(zip(here, keys, strict=False)) if a != b), min(len(here), len(keys)))
        if depth == min(len(here), len(keys)) and depth > best[0]:
            best = (depth, number)
    return best[1]


def _split_key(dotted: str) -> list[str]:
    return [part.strip().strip('"') for part in re.findall(r"\"[^\"]*\"|[^.\s]+", dotted)]
