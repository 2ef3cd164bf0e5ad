"""Writing a baseline: only from evidence, whole or not at all, one writer at a time."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from harness.baseline.command import propose_command
from harness.baseline.load import RECORD_FILE
from harness.baseline.record import MIN_NOISE_RUNS, Baseline, NoiseRun, make_baseline
from harness.core.columns import write_outcomes
from harness.core.errors import ConfigError, EvidenceError, StorageError
from harness.core.records import CellFailure, CellRun
from harness.core.serial import storage_errors, write_atomic, write_json

WriteMode = Literal["check", "add-new", "update"]
"""check: never write. add-new: write where there is none, never overwrite. update: write, replacing what is there."""

Written = Literal["not written", "kept", "added", "updated"]
"""What became of a baseline: not written (check), kept (add-new found one), added, or updated."""

HISTORY_FILE = "history.jsonl"
LOCK_WAIT_S = 60.0

_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")


def store_baseline(
    root: Path,
    run: CellRun | CellFailure,
    *,
    mode: WriteMode,
    reason: str,
    declared_tasks: Sequence[str],
    noise: Sequence[NoiseRun] = (),
) -> Written:
    """Make a measured cell its own baseline under ``root``.

    Raises EvidenceError when the run is no evidence (failed, partial, limited, itself taken from a baseline; too few
    re-compressions; no reason), ConfigError for names that can't be files, StorageError when the disk or another
    writer is in the way. The cell's folder is swapped whole: a reader sees the old baseline or the new one.
    """
    if mode == "check":
        return "not written"
    if isinstance(run, CellFailure):
        raise EvidenceError(f"{run.cell.id} was not measured ({run.reason}), so it can't become a baseline: fix that first.")
    _require_evidence(run, reason, declared_tasks, noise)
    baseline = make_baseline(run, reason.strip(), noise)
    home = root / run.record.profile / run.record.cell.id
    with _one_writer(root):
        _finish_broken_swap(home)
        if home.exists() and mode == "add-new":
            return "kept"
        written: Written = "updated" if home.exists() else "added"
        _swap_in(baseline, home)
        _append_history(home.parent / HISTORY_FILE, baseline, written)
    return written


def _require_evidence(run: CellRun, reason: str, declared_tasks: Sequence[str], noise: Sequence[NoiseRun]) -> None:
    cell = run.record.cell.id
    for name in (run.record.profile, *run.runs):
        if not _FILE_NAME.fullmatch(name):
            raise ConfigError(f"{name!r} can't name a baseline's folder or file: use letters, digits, '_', '-' and '.'.")
    if not reason.strip():
        raise EvidenceError(f"a baseline of {cell} needs a reason: say in a sentence why it is what later runs must keep.")
    left_out = [name for name in declared_tasks if name not in run.runs]
    if left_out or not run.runs:
        raise EvidenceError(
            f"the run of {cell} left out {', '.join(left_out) or 'every task'}: a baseline holds all tasks of its cell; "
            "run it without -k on tasks."
        )
    for name, task in run.runs.items():
        if task.origin == "baseline":
            raise EvidenceError(
                f"{cell}-{name} was not measured, its outcomes are those of the present baseline: a baseline is no evidence "
                "for itself; measure it afresh (--harness-fresh)."
            )
        if task.info.limit is not None or len(task.outcomes) != task.info.n_items:
            raise EvidenceError(
                f"{cell}-{name} was measured on a part of its items ({len(task.outcomes)}): run it without --harness-limit."
            )
        if len(task.outcomes) == 0 or len(set(task.outcomes.digests)) != len(task.outcomes):
            raise EvidenceError(f"{cell}-{name} holds no item, or one twice: its items were mixed; measure it again.")
    _require_noise(run, noise)


def _require_noise(run: CellRun, noise: Sequence[NoiseRun]) -> None:
    cell = run.record.cell.id
    if run.record.compression.stability == "re-compressed" and len(noise) < MIN_NOISE_RUNS:
        raise EvidenceError(
            f"{cell} changes whenever it is compressed again: its baseline needs at least {MIN_NOISE_RUNS} re-compressions to "
            f"know by how much, {len(noise)} came; {propose_command(cell)} makes them."
        )
    if len({made.label for made in noise}) != len(noise):
        raise EvidenceError(f"two re-compressions of {cell} have the same label: the same run twice is no spread.")
    for made in noise:
        if missing := [name for name in run.runs if name not in made.accuracy]:
            raise EvidenceError(f"re-compression {made.label!r} of {cell} has no accuracy on {', '.join(missing)}.")
        if not all(0 <= accuracy <= 1 for accuracy in made.accuracy.values()):
            raise EvidenceError(f"re-compression {made.label!r} of {cell} has an accuracy outside 0 to 1: {made.accuracy}.")


@contextmanager
def _one_writer(root: Path) -> Iterator[None]:
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


def _swap_in(baseline: Baseline, home: Path) -> None:
    part, old = _neighbours(home)
    with storage_errors(home):
        try:
            part.mkdir(parents=True)
            for name, outcomes in baseline.outcomes.items():
                write_outcomes(part / f"{name}.parquet", outcomes)
            write_json(part / RECORD_FILE, baseline.record)
            if home.exists():
                home.replace(old)
            part.replace(home)
        finally:
            _finish_broken_swap(home)


def _finish_broken_swap(home: Path) -> None:
    """Leave one baseline where a swap was cut off: the new one if it arrived, else the old one."""
    part, old = _neighbours(home)
    with storage_errors(home):
        if old.exists() and not home.exists():
            old.replace(home)
        for rest in (part, old):
            if rest.exists():
                shutil.rmtree(rest)


def _neighbours(home: Path) -> tuple[Path, Path]:
    return home.with_name(f".{home.name}.part"), home.with_name(f".{home.name}.old")


def _append_history(path: Path, baseline: Baseline, written: Written) -> None:
    made = baseline.record
    line = {
        "cell": made.cell.id,
        "written": written,
        "reason": made.reason,
        "commit": made.provenance.commit,
        "measured_at": made.provenance.measured_at,
        "weights_digest": made.provenance.weights_digest,
        "record_digest": made.digest,
        "accuracy": {name: task.n_correct / task.info.n_items for name, task in made.tasks.items()},
        "n_items": {name: task.info.n_items for name, task in made.tasks.items()},
    }
    with storage_errors(path):
        before = path.read_bytes() if path.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    write_atomic(path, before + json.dumps(line, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n")
