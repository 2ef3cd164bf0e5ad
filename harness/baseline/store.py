"""Folders of baselines on disk: written whole or not at all, by one writer at a time; and the history of acceptances."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from harness.baseline.load import RECORD_FILE
from harness.baseline.record import Baseline
from harness.core.columns import write_outcomes
from harness.core.command import restore_command
from harness.core.errors import FileFormatError, StorageError
from harness.core.serial import read_bytes, storage_errors, write_atomic, write_json

WriteMode = Literal["check", "add-new", "update"]
"""What pytest may do to baselines. check: nothing. add-new: add where there is none, never overwrite. update: propose and
accept, refusing what loosens the gate."""

Written = Literal["not written", "kept", "added", "updated", "noise updated", "tasks removed"]
"""What became of a baseline: not written, kept (it was there already), added, or updated: in whole, its noise only, or by
leaving out tasks that the matrix no longer has."""

HISTORY_FILE = "history.jsonl"
LOCK_WAIT_S = 60.0


@contextmanager
def one_writer(root: Path) -> Iterator[None]:
    """Hold the one lock of all baselines under ``root``. Raises StorageError when another process does not let go of it."""
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".lock", timeout=LOCK_WAIT_S)
    try:
        with storage_errors(root):
            lock.acquire()
    except Timeout as error:
        raise StorageError(
            f"another process is writing baselines under {root} since {LOCK_WAIT_S:.0f} s: wait for it and try again."
        ) from error
    try:
        yield
    finally:
        lock.release()


def swap_in(home: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder in the place of ``home``: ``fill`` writes it beside, two renames swap it in; needs the lock.

    Whatever goes wrong, the old folder or the new one is there afterwards, at the latest when the next writer comes.
    """
    part, old = _neighbours(home)
    with storage_errors(home):
        try:
            part.mkdir(parents=True)
            fill(part)
            if home.exists():
                home.replace(old)
            part.replace(home)
        finally:
            finish_broken_swap(home)


def finish_broken_swap(home: Path) -> None:
    """Leave one folder where a swap was cut off: the new one if it arrived, else the old one."""
    part, old = _neighbours(home)
    with storage_errors(home):
        if old.exists() and not home.exists():
            old.replace(home)
        for rest in (part, old):
            if rest.exists():
                shutil.rmtree(rest)


def remove_folder(home: Path) -> None:
    """Delete a folder so that no half of it is ever seen; needs the lock. A parent that is left empty goes too."""
    part, _ = _neighbours(home)
    with storage_errors(home):
        finish_broken_swap(home)
        if home.exists():
            home.replace(part)
            shutil.rmtree(part)
        if home.parent.is_dir() and not any(home.parent.iterdir()):
            home.parent.rmdir()


def write_baseline(folder: Path, baseline: Baseline) -> None:
    """The files of a baseline; the record comes last."""
    for name, outcomes in baseline.outcomes.items():
        write_outcomes(folder / f"{name}.parquet", outcomes)
    write_json(folder / RECORD_FILE, baseline.record)


def append_history(path: Path, baseline: Baseline, written: Written, loosened: str | None) -> None:
    """Add the one line of an acceptance; needs the lock. ``loosened``: why later runs may keep less, None where nothing was
    loosened."""
    made, noise = baseline.record, baseline.record.noise
    line = {
        "cell": made.cell.id,
        "written": written,
        "reason": made.reason,
        "loosened": loosened,
        "commit": made.provenance.commit,
        "measured_at": made.provenance.measured_at,
        "weights_digest": made.provenance.weights_digest,
        "record_digest": made.digest,
        "accuracy": {name: task.n_correct / task.info.n_items for name, task in made.tasks.items()},
        "n_items": {name: task.info.n_items for name, task in made.tasks.items()},
        "runs": len(noise.runs) if noise else 0,
        "sigma": noise.sigma if noise else {},
        "flip_rate": noise.flip_rate if noise else {},
    }
    with storage_errors(path):
        for dead in path.parent.glob(f".{path.name}.*.part"):  # whoever held the lock before us was killed
            dead.unlink()
    before = read_bytes(path) if path.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    write_atomic(path, before + json.dumps(line, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def last_accepted(path: Path, cell: str) -> str | None:
    """The digest of the record that the history says was accepted last for a cell; None where it says nothing.

    Raises FileFormatError for a history that can't be read.
    """
    found = None
    for number, line in enumerate(read_bytes(path).splitlines() if path.exists() else (), start=1):
        try:
            told = json.loads(line)
            found = told["record_digest"] if told["cell"] == cell else found
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path}:{number} is no line of a history: restore it, {restore_command(path)}.") from error
    return found


def _neighbours(home: Path) -> tuple[Path, Path]:
    return home.with_name(f".{home.name}.part"), home.with_name(f".{home.name}.old")
