"""The history of a profile's baselines, as the store writes it: one line of JSON for each that was ever accepted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import FileFormatError
from harness.core.serial import from_json, read_bytes
from harness.report.format import parse_moment


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted baseline: of which cell, what became of it, why, and how much it knew (``accuracy`` in fractions).

    ``loosened``: why later runs may keep less than before, None where they may not. What only the store needs is not read.
    """

    cell: str
    written: str
    reason: str
    commit: str
    measured_at: str
    accuracy: dict[str, float]
    n_items: dict[str, int]
    loosened: str | None = None

    def __post_init__(self) -> None:
        parse_moment(self.measured_at)
        if self.accuracy.keys() != self.n_items.keys():
            raise ValueError("accuracy and n_items name different tasks")
        if not all(0 <= share <= 1 for share in self.accuracy.values()) or not all(n > 0 for n in self.n_items.values()):
            raise ValueError("an accuracy outside 0 to 1, or of no items")


@dataclass(frozen=True, slots=True)
class History:
    """Accepted baselines in the order of acceptance. ``unreadable`` says, a sentence each, which lines could not be read."""

    entries: tuple[Accepted, ...] = ()
    unreadable: tuple[str, ...] = ()


def read_history(path: Path) -> History:
    """The history in a file; empty where there is no file. A damaged line is told and left out: the others still hold."""
    if not path.exists():
        return History()
    try:
        return parse_history(read_bytes(path), path.name)
    except FileFormatError as error:
        return History(unreadable=(str(error),))


def parse_history(data: bytes, name: str) -> History:
    """The history in bytes; ``name`` names them where a line can't be read."""
    entries, unreadable = [], []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entries.append(from_json(line, Accepted, f"{name}, line {number}"))
        except (FileFormatError, RecursionError) as error:
            unreadable.append(_reason(error, f"{name}, line {number}"))
    return History(tuple(entries), tuple(unreadable))


def _reason(error: Exception, where: str) -> str:
    """Why a line can't be read, without the line itself."""
    if isinstance(error, RecursionError):
        return f"{where} is nested too deeply."
    return f"{str(error).partition(' (got ')[0].rstrip('.')}."
