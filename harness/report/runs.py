"""Other runs, from the report.json that each left behind: only what an index of them shows, and nothing taken on trust.

A file may be of another program, another version, cut off, huge or made to do harm: what can't be read is told with its
reason, beside the runs that can.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.core.errors import FileFormatError
from harness.core.serial import read_bytes
from harness.core.verdicts import POOLED, Estimate
from harness.report import format as fmt

T = TypeVar("T")

REPORT_FILE = "report.json"
LARGEST_BYTES = 500_000_000
"""A report.json above this is not read."""

MOST_CELLS = 5000

KNOWN_VERSIONS = (1,)


@dataclass(frozen=True, slots=True)
class CellOfRun:
    """One cell of a past run. ``accuracy`` and ``retention`` are of its pool or only pooled task, None where unknown.

    ``items_digest`` names what was asked: values of different items are not joined. ``is_part``: of a part of the items only
    (limited, or decided early), so that its value is no estimate to follow.
    """

    id: str
    status: str
    is_dense: bool
    accuracy: Estimate | None
    retention: Estimate | None
    items_digest: str
    is_part: bool
    commit: str


@dataclass(frozen=True, slots=True)
class PastRun:
    """One past run, in the folder ``home``."""

    home: Path
    profile: str
    policy: str
    status: str
    exit_code: int
    started_at: str
    ended_at: str
    cells: tuple[CellOfRun, ...]

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits that its cells were measured at."""
        return tuple(dict.fromkeys(cell.commit for cell in self.cells if cell.commit))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder with a report.json that is none, and why."""

    home: Path
    reason: str


def find_runs(folder: Path) -> Iterator[PastRun | Unreadable]:
    """Every run in or below a folder, by path. Links are not followed; hidden folders and a run's own are not searched."""
    closed: list[OSError] = []
    for root, names, files in os.walk(folder, onerror=closed.append, followlinks=False):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if REPORT_FILE in files:
            names.clear()
            yield read_past_run(Path(root))
    for error in closed:
        yield Unreadable(Path(str(error.filename or folder)), f"the folder can’t be read ({error.strerror}).")


def read_past_run(home: Path) -> PastRun | Unreadable:
    """A run from its folder's report.json, or why it can't be read."""
    path = home / REPORT_FILE
    try:
        if path.is_symlink() or not path.is_file():
            raise FileFormatError(f"{REPORT_FILE} is no ordinary file.")
        if path.stat().st_size > LARGEST_BYTES:
            raise FileFormatError(f"{REPORT_FILE} is too large to be read here ({fmt.size(path.stat().st_size)}).")
        return _run(home, json.loads(read_bytes(path), parse_constant=_refuse))
    except (FileFormatError, OSError, ValueError, RecursionError) as error:
        return Unreadable(home, _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, FileFormatError):
        return str(error)
    if isinstance(error, RecursionError):
        return f"{REPORT_FILE} is nested too deeply."
    if isinstance(error, OSError):
        return f"{REPORT_FILE} can’t be read ({error.strerror})."
    return f"{REPORT_FILE} is not valid JSON ({error})."


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _run(home: Path, plain: Any) -> PastRun:
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if version not in KNOWN_VERSIONS or isinstance(version, bool):
        shown = "no schema version" if version is None else f"schema version {str(version)[:20]}"
        raise FileFormatError(
            f"{REPORT_FILE} has {shown}, this harness reads {KNOWN_VERSIONS[-1]}: it is of another program or version."
        )
    run = _get(plain, "run", dict)
    cells = _get(run, "cells", list)
    if len(cells) > MOST_CELLS:
        raise FileFormatError(f"{REPORT_FILE} holds {fmt.count(len(cells))} cells: more than any matrix has.")
    started, ended = _get(run, "started_at", str), _get(run, "ended_at", str)
    try:
        fmt.moment(started)
        fmt.moment(ended)
    except (ValueError, OverflowError) as error:
        raise FileFormatError(f"{REPORT_FILE} has a start or an end that is no instant ({started!r:.40}).") from error
    return PastRun(
        home=home,
        profile=_get(run, "profile", str),
        policy=_get(run, "policy", str),
        status=_get(run, "status", str),
        exit_code=_get(run, "exit_code", int),
        started_at=started,
        ended_at=ended,
        cells=tuple(_cell(cell) for cell in cells),
    )


def _cell(plain: Any) -> CellOfRun:
    cell = _get(plain, "cell", dict)
    parts = [_get(cell, part, str) for part in ("model", "compression", "recovery")]
    name, status = _get(plain, "id", str), _get(plain, "status", str)
    is_dense = parts[1:] == ["none", "none"]
    if plain.get("record") is None:
        return CellOfRun(name, status, is_dense, None, None, "", is_part=False, commit="")
    record = _get(plain, "record", dict)
    tasks = {task: info for task, info in _get(record, "tasks", dict).items() if _get(info, "pooled", bool)}
    asked = next(iter(tasks)) if len(tasks) == 1 else None
    against = _case(_get(plain, "against_dense", dict), asked)
    verdict = _optional(plain, "verdict")
    pool = _optional(_optional(verdict, POOLED), "evidence")
    judged = [
        pool,
        *(_optional(case, "evidence") for case in _optional(verdict, "tasks") or () if _get(case, "task", str) in tasks),
    ]
    accuracy = _optional(pool, "accuracy_candidate") or _case(_get(plain, "accuracy", dict), asked)
    return CellOfRun(
        id=name,
        status=status,
        is_dense=is_dense,
        accuracy=_estimate(accuracy),
        retention=_estimate(_optional(against, "retention")),
        items_digest=" ".join(f"{task} {_get(tasks[task], 'items_digest', str)}" for task in sorted(tasks)),
        is_part=any(info.get("limit") is not None for info in tasks.values()) or any(map(_is_early, judged)),
        commit=_get(_get(record, "provenance", dict), "commit", str),
    )


def _is_early(evidence: Any) -> bool:
    """Whether a verdict fell before all items were asked; reports from before there were early verdicts do not say."""
    if evidence is None or evidence.get("n_planned") is None:
        return False
    counts = _get(evidence, "counts", dict)
    return sum(_get(counts, part, int) for part in ("n_lost", "n_gained", "n_unchanged")) < _get(evidence, "n_planned", int)


def _case(cases: Mapping[str, Any], only: str | None) -> Any:
    """A case's entry for the pool, else for the only pooled task, else None."""
    return cases.get(POOLED, cases.get(only) if only is not None else None)


def _optional(plain: Any, key: str) -> Any:
    return None if plain is None else plain.get(key) if isinstance(plain, dict) else _wrong(key)


def _wrong(key: str) -> Any:
    raise FileFormatError(f"{REPORT_FILE} has something else than a record around key {key!r}.")


def _estimate(plain: Any) -> Estimate | None:
    """An estimate; None for what is undefined or was not compared."""
    if plain is None or (isinstance(plain, dict) and "reason" in plain):
        return None
    value, low, high, level = (_number(plain, key) for key in ("value", "low", "high", "level"))
    return Estimate(value, low, high, level, _get(plain, "method", str))


def _number(plain: Any, key: str) -> float:
    found = plain.get(key) if isinstance(plain, dict) else None
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found) or abs(found) > 1e6:
        raise FileFormatError(f"{REPORT_FILE}: key {key!r} is no usable number.")
    return float(found)


def _get(plain: Any, key: str, kind: type[T]) -> T:
    if not isinstance(plain, dict):
        raise FileFormatError(f"{REPORT_FILE} has something else than a record around key {key!r}.")
    if key not in plain:
        raise FileFormatError(f"{REPORT_FILE}: key {key!r} is missing.")
    found = plain[key]
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise FileFormatError(f"{REPORT_FILE}: key {key!r} is not {_KINDS[kind]}.")
    return found


_KINDS: Mapping[type, str] = {dict: "a record", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}
