"""A run on disk: what ``measure`` leaves and ``judge`` and ``report`` read, with no model and no GPU.

<folder>/records/<cell id>/cell.json              CellRecord
                           <task>.items.parquet    what was asked
                           <task>.outcomes.parquet what came
<folder>/records/<cell id>/failure.json           instead, when the cell could not be measured
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from harness.core.columns import StoredItems, read_outcomes, write_items, write_outcomes
from harness.core.errors import FileFormatError
from harness.core.records import Cell, CellFailure, CellRecord, CellRun, Item, TaskRun
from harness.core.serial import read_json, storage_errors, write_json

RECORDS = "records"

UNFINISHED = "measuring did not finish: run it again, what was finished is stored"
"""The reason of the failure that stands for a cell while it is measured, so that a crash never leaves an older result."""


def keep_only(folder: Path, cell_ids: Collection[str]) -> None:
    """Remove the records of cells that an earlier run left, so that what is read was measured by this one."""
    with storage_errors(folder):
        for home in (folder / RECORDS).glob("*"):
            if home.name not in cell_ids:
                shutil.rmtree(home)


def write_cell(folder: Path, run: CellRun | CellFailure) -> None:
    """Write one cell's run; ``cell.json`` comes last, so that a cell is there whole or not at all."""
    home = folder / RECORDS / (run.cell.id if isinstance(run, CellFailure) else run.record.cell.id)
    with storage_errors(home):
        if home.exists():
            shutil.rmtree(home)
    if isinstance(run, CellFailure):
        write_json(home / "failure.json", run)
        return
    for name, task in run.runs.items():
        write_items(home / f"{name}.items.parquet", task.items)
        write_outcomes(home / f"{name}.outcomes.parquet", task.outcomes)
    write_json(home / "cell.json", run.record)


def read_run(folder: Path) -> list[CellRun | CellFailure]:
    """Every cell of a run, by cell id. Raises FileFormatError when there is no run, or a file of it is broken."""
    homes = sorted(path for path in (folder / RECORDS).glob("*") if path.is_dir())
    if not homes:
        raise FileFormatError(f"{folder} holds no run (no {RECORDS}/<cell>/ in it): run `harness measure` or pytest first.")
    items: dict[str, Item] = {}
    return [_read_cell(home, items) for home in homes]


def _read_cell(home: Path, items: dict[str, Item]) -> CellRun | CellFailure:
    """One cell's run from its folder; ``items``: those that were made already, by digest."""
    Cell.parse(home.name)
    if (home / "failure.json").exists():
        return read_json(home / "failure.json", CellFailure)
    record = read_json(home / "cell.json", CellRecord)
    if record.cell.id != home.name:
        raise FileFormatError(f"{home} holds the record of cell {record.cell.id}: it was moved or edited; measure it again.")
    return CellRun(record=record, runs={name: _read_task(home, record, name, items) for name in record.tasks})


def _read_task(home: Path, record: CellRecord, name: str, made: dict[str, Item]) -> TaskRun:
    try:
        outcomes = read_outcomes(home / f"{name}.outcomes.parquet")
        items = home / f"{name}.items.parquet"
        if not items.is_file():
            raise FileFormatError(f"{items} can't be read: it is not there; measure the cell again.")
        return TaskRun(
            cell=record.cell.id,
            info=record.tasks[name],
            items=StoredItems(items, outcomes.digests, made),
            outcomes=outcomes,
            scorer=record.scorers[name],
            origin=record.origins[name],
        )
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"{home}: task {name!r} is inconsistent ({error}): measure it again.") from error
