"""Reading a baseline, and refusing one that is not what was accepted."""

from __future__ import annotations

from pathlib import Path

from harness.baseline.command import propose_command
from harness.baseline.record import Baseline, BaselineRecord, BaselineTask, digest_outcomes, digest_record
from harness.core.columns import read_outcomes
from harness.core.errors import BaselineError, FileFormatError
from harness.core.records import Cell, Outcomes
from harness.core.serial import read_json

RECORD_FILE = "baseline.json"


def load_baseline(root: Path, profile: str, cell: Cell) -> Baseline | None:
    """The baseline of a cell under ``root`` (usually ``baselines/``); None where there is none.

    Raises BaselineError, naming the file and the command that restores it, when the record or an outcome file is
    missing, unreadable, truncated or not as accepted.
    """
    home = root / profile / cell.id
    if not home.exists():
        return None
    try:
        made = _load_record(home / RECORD_FILE, profile, cell)
        return Baseline(made, {name: _load_task(home / f"{name}.parquet", task) for name, task in made.tasks.items()})
    except FileFormatError as error:
        raise BaselineError(
            f"the baseline of {cell.id} can't be used: {error} Restore it: `git checkout -- {home}`; or, if the change is "
            f"meant, make it anew: {propose_command(cell.id, replaces=True)}."
        ) from error


def _load_record(path: Path, profile: str, cell: Cell) -> BaselineRecord:
    made = read_json(path, BaselineRecord)
    if digest_record(made) != made.digest:
        raise FileFormatError(f"{path} was edited: its content does not have the digest that it states.")
    if made.cell != cell or made.profile != profile:
        raise FileFormatError(f"{path} is the baseline of {made.profile}/{made.cell.id}: it was moved or copied.")
    return made


def _load_task(path: Path, task: BaselineTask) -> Outcomes:
    outcomes = read_outcomes(path)
    if digest_outcomes(outcomes) != task.outcomes_digest:
        raise FileFormatError(
            f"{path} was edited: its {len(outcomes)} outcomes are not the {task.info.n_items} accepted ones."
        )
    if int(outcomes.correct.sum()) != task.n_correct:
        raise FileFormatError(f"{path} holds {int(outcomes.correct.sum())} right answers, the record says {task.n_correct}.")
    return outcomes
