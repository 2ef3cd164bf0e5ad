"""What lies in the store: list it, check it, and throw away what nobody used for long."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import Timeout

from harness.core.errors import FileFormatError, HarnessError
from harness.core.serial import read_json, storage_errors
from harness.execution.store import MANIFEST, ResultManifest, Store, WeightsManifest, check_entry

log = logging.getLogger(__name__)

Kind = Literal["model", "weights", "result", "unfinished"]

_PLACES = ("models", "weights", "results", "training")
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of the store. ``about`` is for people; ``used_at``, in seconds since the epoch, is when it was made or last
    asked for (models: made). ``unfinished``: what a run or a training that was stopped left, or files without a manifest
    that can be read.
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
    """All that lies there: models, weights, results, what is unfinished; of each the last used first."""
    found = [_entry(kind, folder) for kind in _PLACES for folder in _folders(store.root / kind)]
    order: tuple[Kind, ...] = ("model", "weights", "result", "unfinished")
    return sorted(found, key=lambda entry: (order.index(entry.kind), -entry.used_at, entry.key))


def verify(store: Store) -> Iterator[tuple[Entry, str | None]]:
    """Each finished entry with what is wrong with it; None: it is what was stored.

    A broken one loses its manifest, so that it is made again and never served.
    """
    from harness.models.cache import converted_fault

    for entry in entries(store):
        if entry.kind == "unfinished":
            continue
        if entry.kind == "model":
            yield entry, converted_fault(entry.folder)
            continue
        try:
            if entry.kind == "weights":
                check_entry(entry.folder, WeightsManifest)
            else:
                check_entry(entry.folder, ResultManifest)
        except FileFormatError as error:
            (entry.folder / MANIFEST).unlink(missing_ok=True)
            yield entry, str(error)
        else:
            yield entry, None


def prune(store: Store, *, unused_days: float, dry_run: bool = False) -> list[Entry]:
    """Remove what was not used for so many days, models left out; the entries that were (or would be) removed.

    What another process is working on is left alone, and said in the log.
    """
    now = time.time()
    chosen = [entry for entry in entries(store) if entry.kind != "model" and entry.days_unused(now) >= unused_days]
    return [entry for entry in chosen if dry_run or _remove(store, entry)]


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
    used_at = manifest.stat().st_mtime if manifest.exists() else max((file.st_mtime for file in files), default=0.0)
    kind, about = _about(place, folder)
    return Entry(kind, folder, about, sum(file.st_size for file in files), used_at)


def _about(place: str, folder: Path) -> tuple[Kind, str]:
    manifest = folder / MANIFEST
    if place == "training":
        return "unfinished", "training of a recovery"
    try:
        if place == "models":
            return ("model", "converted from GGUF") if manifest.exists() else ("unfinished", "model")
        if place == "weights":
            made = read_json(manifest, WeightsManifest).compression
            return "weights", f"{made.method}, {made.effective_bits:.4g} bits a weight"
        result = read_json(manifest, ResultManifest)
    except HarnessError:
        n_blocks = len(list(folder.glob("block-*.parquet")))
        return "unfinished", f"{n_blocks} blocks of a result" if place == "results" else place
    return "result", f"{result.info.name}, measured {result.circumstances.measured_at[:10]}"
