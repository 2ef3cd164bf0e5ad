"""What lies under baselines/ for cells and tasks that the matrix no longer has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.baseline.load import RELEASE, content_digests, load_baseline, read_release
from harness.baseline.proposal import PROPOSALS
from harness.baseline.release import write_anchor
from harness.baseline.store import HISTORY_FILE, append_history, one_writer, remove_folder, swap_in, write_baseline
from harness.core.command import restore_command
from harness.core.errors import BaselineError, CellIdError, FileFormatError
from harness.core.records import Cell

What = Literal["baseline", "proposal", "release anchor"]


@dataclass(frozen=True, slots=True)
class Unused:
    """A folder of a cell that is no longer declared; or, where ``tasks`` are named, only these are not."""

    what: What
    cell: Cell
    folder: Path
    tasks: tuple[str, ...]

    def __str__(self) -> str:
        of = f"{', '.join(self.tasks)} in the" if self.tasks else "the"
        return f"{of} {self.what} of {self.cell.id} ({self.folder})"


def find_unused(root: Path, profile: str, declared: Mapping[str, Sequence[str]]) -> list[Unused]:
    """Everything for cells, and tasks of cells, that are not in ``declared`` (cell id -> its tasks)."""
    home = root / profile
    kinds: tuple[tuple[What, Path], ...] = (
        ("baseline", home),
        ("proposal", home / PROPOSALS),
        ("release anchor", home / RELEASE),
    )
    return [found for what, parent in kinds for found in _unused_in(parent, what, declared)]


def remove_unused(root: Path, profile: str, declared: Mapping[str, Sequence[str]]) -> list[Unused]:
    """Delete what ``find_unused`` finds, and return it.

    A baseline or anchor of which only tasks are unused is written again without them, the former with a line in the
    history; a proposal with such tasks goes in whole. Raises BaselineError for one that is damaged, StorageError.
    """
    with one_writer(root):
        found = find_unused(root, profile, declared)
        for unused in found:
            if not unused.tasks or unused.what == "proposal":
                remove_folder(unused.folder)
            elif unused.what == "baseline":
                _trim_baseline(root, profile, unused)
            else:
                _trim_anchor(profile, unused)
    return found


def _unused_in(parent: Path, what: What, declared: Mapping[str, Sequence[str]]) -> Iterator[Unused]:
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        cell = _cell(folder)
        if cell is None:
            continue
        if cell.id not in declared:
            yield Unused(what, cell, folder, ())
            continue
        tasks = tuple(path.stem for path in sorted(folder.glob("*.parquet")) if path.stem not in declared[cell.id])
        if tasks:
            yield Unused(what, cell, folder, tasks)


def _cell(folder: Path) -> Cell | None:
    try:
        return Cell.parse(folder.name) if folder.is_dir() else None
    except CellIdError:
        return None


def _trim_baseline(root: Path, profile: str, unused: Unused) -> None:
    baseline = load_baseline(root, profile, unused.cell)
    if baseline is None:
        return
    left = baseline.without_tasks(unused.tasks)
    swap_in(unused.folder, lambda folder: write_baseline(folder, left))
    append_history(unused.folder.parent / HISTORY_FILE, left, "tasks removed", None)


def _trim_anchor(profile: str, unused: Unused) -> None:
    try:
        baseline, told = read_release(unused.folder, profile, unused.cell)
    except FileFormatError as error:
        raise BaselineError(
            f"the release anchor of {unused.cell.id} can't be used, so nothing was taken out of it: {error} Restore it: "
            f"{restore_command(unused.folder)}."
        ) from error
    left = baseline.without_tasks(unused.tasks)
    write_anchor(unused.folder, left, replace(told, digests=content_digests(left)))
