"""What `pytest suites/ -m latency` leaves: how long a model takes behind each kind of recovery, all sides in one process.

<run folder>/latency/<model>.json
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from harness.core.errors import FileFormatError
from harness.core.records import record
from harness.core.serial import read_json, write_json

LATENCY = "latency"

Phase = Literal["prefill", "decode"]
"""Reading a context up to its first answer token, or making one more token behind it."""


@record
class Side:
    """One kind of recovery. ``n_extra``: numbers that inference needs beside the model's own weights. ``n_prompts`` is 0
    where there is no prompt."""

    name: str
    method: str
    n_extra: int
    n_prompts: int


@record
class Timing:
    """One phase at one batch size: for each side by name its seconds, round by round (decode: a token). In every round each
    side was timed once, in an order of the round's own, so that the rounds are pairs."""

    phase: Phase
    batch: int
    seconds: dict[str, tuple[float, ...]]


@record
class Latency:
    """All timings of one model of the matrix. Prompts have ``prompt_tokens`` positions each and are not trained: the cost does
    not depend on their values. ``context_tokens`` are read, then ``new_tokens`` made."""

    schema_version: int
    model: str
    profile: str
    context_tokens: int
    new_tokens: int
    prompt_tokens: int
    sides: tuple[Side, ...]
    timings: tuple[Timing, ...]
    engine: dict[str, str]
    measured_at: str


def write_latency(folder: Path, made: Latency) -> Path:
    """Write a model's timings into a run folder, in older ones' place. Raises StorageError."""
    path = folder / LATENCY / f"{made.model}.json"
    write_json(path, made)
    return path


def read_latencies(folder: Path) -> tuple[tuple[Latency, ...], tuple[str, ...]]:
    """The timings of a run folder by model; and a sentence for each file that can't be read."""
    made = list(_read_all(folder / LATENCY))
    return tuple(one for one in made if isinstance(one, Latency)), tuple(one for one in made if isinstance(one, str))


def _read_all(home: Path) -> Iterator[Latency | str]:
    for path in sorted(home.glob("*.json")):
        try:
            yield read_json(path, Latency)
        except FileFormatError as error:
            yield f"{error} Run `pytest suites/ -m latency` again, or remove it."
