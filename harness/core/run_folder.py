"""A run on disk: what ``measure`` leaves and ``judge`` and ``report`` read, with no model and no GPU.

<folder>/records/<cell id>/cell.json              CellRecord
                           <task>.items.parquet    what was asked
                           <task>.outcomes.parquet what came
                           digests.json            the SHA-256 of the files above, written last
<folder>/records/<cell id>/failure.json           instead, when the cell could not be measured
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from harness.core.columns import SharedItems, StoredItems, read_outcomes, write_items, write_outcomes
from harness.core.digest import digest_file
from harness.core.errors import CellIdError, FileFormatError
from harness.core.records import SCHEMA_VERSION, Cell, CellFailure, CellRecord, CellRun, TaskRun, record
from harness.core.serial import read_json, storage_errors, write_json

RECORDS = "records"
CELL = "cell.json"
FAILURE = "failure.json"
DIGESTS = "digests.json"
_ITEMS = ".items.parquet"

_CELL_ID = re.compile(r"[a-z0-9.\-]+_[a-z0-9.\-]+_[a-z0-9.\-]+")

UNFINISHED = "measuring did not finish: run it again, what was finished is stored"
"""The reason of the failure that stands for a cell while it is measured, so that a crash never leaves an older result."""


@record
class Digests:
    """The SHA-256 of a cell's files by their names."""

    schema_version: int
    files: dict[str, str]


def keep_only(folder: Path, cell_ids: Collection[str]) -> None:
    """Remove the records of cells that an earlier run left, so that what is read was measured by this one.

    Only what is a cell's record by its name and content goes: the folder may be one that others use too.
    """
    with storage_errors(folder):
        for home in (folder / RECORDS).glob("*"):
            if home.name not in cell_ids and _is_ours(home):
                shutil.rmtree(home)


def write_cell(folder: Path, run: CellRun | CellFailure) -> None:
    """Write one cell's run; ``digests.json`` comes last, so that a cell is there whole or not at all."""
    home = folder / RECORDS / (run.cell.id if isinstance(run, CellFailure) else run.record.cell.id)
    with storage_errors(home):
        if home.exists():
            shutil.rmtree(home)
    if isinstance(run, CellFailure):
        write_json(home / FAILURE, run)
        return
    for name, task in run.runs.items():
        write_items(home / _items_file(name), task.items)
        write_outcomes(home / _outcomes_file(name), task.outcomes)
    write_json(home / CELL, run.record)
    names = [CELL, *(file(name) for name in run.runs for file in (_outcomes_file, _items_file))]
    write_json(home / DIGESTS, Digests(SCHEMA_VERSION, {name: digest_file(home / name) for name in names}))


def read_run(folder: Path) -> list[CellRun | CellFailure]:
    """Every cell of a run, by cell id. Raises FileFormatError when there is no run, or a file of it is broken."""
    homes = sorted(path for path in (folder / RECORDS).glob("*") if path.is_dir())
    if not homes:
        raise FileFormatError(
            f"{folder} holds no run (no {RECORDS}/<cell>/ in it): measure a cell first (`pytest suites/` or "
            "`harness measure CELL`)."
        )
    shared = SharedItems()
    return [read_cell(home, shared) for home in homes]


def _is_ours(home: Path) -> bool:
    """Whether a folder holds nothing but a cell's record, or a part of one."""
    if not (home.is_dir() and _CELL_ID.fullmatch(home.name)):
        return False
    return all(path.suffix in (".parquet", ".part") or path.name in (CELL, FAILURE, DIGESTS) for path in home.iterdir())


def read_cell(home: Path, shared: SharedItems | None = None) -> CellRun | CellFailure:
    """One cell's run from its folder. ``shared``: what is known of the items of other cells.

    Raises FileFormatError, also where a file is not the one that was written.
    """
    shared = SharedItems() if shared is None else shared
    try:
        Cell.parse(home.name)
    except CellIdError as error:
        raise FileFormatError(f"{home} is no cell's record ({error}) Take it out of the run's folder.") from error
    if (home / FAILURE).exists():
        return read_json(home / FAILURE, CellFailure)
    sealed = _check_files(home)
    record = read_json(home / CELL, CellRecord)
    if record.cell.id != home.name:
        raise FileFormatError(f"{home} holds the record of cell {record.cell.id}: it was moved or edited; measure it again.")
    items = {_items_file(name) for name in record.tasks}
    if sealed.keys() - items != {CELL, *(_outcomes_file(name) for name in record.tasks)}:
        raise FileFormatError(f"{home / DIGESTS} does not name the files of this record: it was edited; measure it again.")
    return CellRun(record=record, runs={name: _read_task(home, record, name, sealed, shared) for name in record.tasks})


def _check_files(home: Path) -> dict[str, str]:
    """The digests of a record's files. Refuses one that was cut off, or a file of which was truncated, scored or labelled anew
    since it was measured: also its items', which a verdict may not need.
    """
    if not (home / DIGESTS).is_file():
        raise FileFormatError(
            f"{home} holds no whole record: writing it was cut off, or an older harness did; measure it again."
        )
    files = read_json(home / DIGESTS, Digests).files
    for name, digest in files.items():
        if not (home / name).is_file() or digest_file(home / name) != digest:
            raise FileFormatError(
                f"{home / name} is not what was measured: it was edited, damaged or removed; measure it again."
            )
    return files


def _items_file(task: str) -> str:
    return task + _ITEMS


def _outcomes_file(task: str) -> str:
    return f"{task}.outcomes.parquet"


def _read_task(home: Path, record: CellRecord, name: str, sealed: Mapping[str, str], shared: SharedItems) -> TaskRun:
    try:
        outcomes = read_outcomes(home / _outcomes_file(name))
        items = home / _items_file(name)
        if not items.is_file():
            raise FileFormatError(f"{items} can't be read: it is not there; measure the cell again.")
        return TaskRun(
            cell=record.cell.id,
            info=record.tasks[name],
            items=StoredItems(items, outcomes.digests, shared, items.name in sealed),
            outcomes=outcomes,
            scorer=record.scorers[name],
            origin=record.origins[name],
        )
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"{home}: task {name!r} is inconsistent ({error}): measure it again.") from error
