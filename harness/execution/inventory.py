"""What lies in the store: list it, check it, and throw away what nobody used for long."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import Timeout

from harness.core.errors import FileFormatError, HarnessError
from harness.core.serial import read_json, storage_errors
from harness.execution.answers import read_blocks
from harness.execution.store import MANIFEST, ResultManifest, Store, WeightsManifest, check_entry
from harness.models.cache import NOTES, converted_fault, note_faults

log = logging.getLogger(__name__)

Kind = Literal["model", "digests", "weights", "answers", "result", "unfinished"]

_PLACES = ("models", "weights", "answers", "results", "training")
_NAMED: dict[str, tuple[Kind, str]] = {
    "digests": ("digests", "of model folders"),
    "training": ("unfinished", "training of a recovery"),
}
"""What needs no look into it."""

_DAY_S = 86_400.0
_KEPT = ("model", "digests")
"""What is never pruned: downloads, and what is read off them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of the store. ``about`` is for people; ``used_at``, in seconds since the epoch, is when it was made or last
    asked for (models: made). ``digests``: those of model folders, noted because they take long. ``answers``: what one model
    was asked, whether its tasks came to an end or not. ``unfinished``: what a training that was stopped left, or files
    without a manifest that can be read.
    """

    kind: Kind
    folder: Path
    about: str
    size_bytes: int
    used_at: float

    @property
    def key(self) -> str:
        """The digest that names it."""
        return self.folder.name

    def days_unused(self, now: float) -> float:
        """Days since it was last used, at a time in seconds since the epoch."""
        return max(0.0, now - self.used_at) / _DAY_S


def entries(store: Store) -> list[Entry]:
    """All that lies there: models, weights, answers, results, what is unfinished; of each the last used first."""
    found = [_entry(place, folder) for place in _PLACES for folder in _folders(store.root / place)]
    if (notes := store.root / NOTES).is_dir():
        found.append(_entry("digests", notes))
    order: tuple[Kind, ...] = ("model", "digests", "weights", "answers", "result", "unfinished")
    return sorted(found, key=lambda entry: (order.index(entry.kind), -entry.used_at, entry.key))


def verify(store: Store) -> Iterator[tuple[Entry, str | None]]:
    """Each finished entry with what is wrong with it; None: it is what was stored.

    A broken one loses its manifest, and answers their broken blocks, so that it is made again and never served.
    """
    for entry in entries(store):
        if entry.kind == "model":
            yield entry, converted_fault(entry.folder)
        elif entry.kind == "digests":
            yield entry, "; ".join(note_faults(store.root)) or None
        elif entry.kind == "answers":
            yield entry, _check_answers(entry.folder)
        elif entry.kind != "unfinished":
            yield entry, _check_manifest(entry)


def _check_manifest(entry: Entry) -> str | None:
    try:
        if entry.kind == "weights":
            check_entry(entry.folder, WeightsManifest)
        else:
            check_entry(entry.folder, ResultManifest)
    except FileFormatError as error:
        (entry.folder / MANIFEST).unlink(missing_ok=True)
        return str(error)
    return None


def _check_answers(folder: Path) -> str | None:
    broken = [(path, found) for path, found in read_blocks(folder) if isinstance(found, str)]
    for path, _ in broken:
        path.unlink(missing_ok=True)
    if not broken:
        return None
    others = f" ({len(broken)} blocks are broken, this is the first)" if len(broken) > 1 else ""
    return f"{broken[0][1]}{others}"


def prune(store: Store, *, unused_days: float, most_bytes: float = math.inf, dry_run: bool = False) -> list[Entry]:
    """Remove what was not used for so many days, and then what was not used for longest until the rest takes at most
    ``most_bytes``; models are left out of both. The entries that were (or would be) removed.

    What another process is working on is left alone, and said in the log.
    """
    now = time.time()
    found = sorted((entry for entry in entries(store) if entry.kind not in _KEPT), key=lambda entry: entry.used_at)
    left_bytes = sum(entry.size_bytes for entry in found)
    removed = []
    for entry in found:
        if entry.days_unused(now) < unused_days and left_bytes <= most_bytes:
            break
        if dry_run or _remove(store, entry):
            removed.append(entry)
            left_bytes -= entry.size_bytes
    return removed


def _remove(store: Store, entry: Entry) -> bool:
    try:
        with store.lock(entry.key, wait=False), storage_errors(entry.folder):
            (entry.folder / MANIFEST).unlink(missing_ok=True)  # first: what is half removed is never served
            shutil.rmtree(entry.folder)
    except Timeout:
        log.warning("%s %s is in use by another process and stays", entry.kind, entry.key[:12])
        return False
    return True


def _folders(place: Path) -> list[Path]:
    """The entries' folders: those named by a digest."""
    if not place.is_dir():
        return []
    return [folder for folder in place.iterdir() if folder.is_dir() and _is_digest(folder.name)]


def _is_digest(name: str) -> bool:
    return len(name) == 64 and all(letter in "0123456789abcdef" for letter in name)


def _entry(place: str, folder: Path) -> Entry:
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    manifest = folder / MANIFEST
    if place == "answers":
        used_at = folder.stat().st_mtime
    else:
        used_at = manifest.stat().st_mtime if manifest.exists() else max((file.st_mtime for file in files), default=0.0)
    kind, about = _about(place, folder)
    return Entry(kind, folder, about, sum(file.st_size for file in files), used_at)


def _about(place: str, folder: Path) -> tuple[Kind, str]:
    manifest = folder / MANIFEST
    if place == "answers":
        return "answers", _about_answers(folder)
    if (named := _NAMED.get(place)) is not None:
        return named
    try:
        if place == "models":
            return ("model", "converted from GGUF") if manifest.exists() else ("unfinished", "model")
        if place == "weights":
            made = read_json(manifest, WeightsManifest).compression
            return "weights", f"{made.method}, {made.effective_bits:.4g} bits a weight"
        result = read_json(manifest, ResultManifest)
    except HarnessError:
        return "unfinished", place
    return "result", f"{result.info.name}, measured {result.circumstances.measured_at[:10]}"


def _about_answers(folder: Path) -> str:
    blocks = [found for _, found in read_blocks(folder) if not isinstance(found, str)]
    if not blocks:
        return "no answers that can be read"
    newest = max((block.about for block in blocks), key=lambda about: about.circumstances.measured_at)
    day = newest.circumstances.measured_at[:10]
    return f"{sum(map(len, blocks)):,} answers of {newest.cell}, {newest.scorer}, last measured {day}"
