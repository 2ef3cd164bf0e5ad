"""Reading baselines and release anchors, and refusing one that is not what was accepted or frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.baseline.record import Baseline, BaselineRecord, BaselineTask, digest_outcomes, digest_record
from harness.core.columns import read_outcomes
from harness.core.command import propose_command, restore_command
from harness.core.digest import digest_file, digest_named
from harness.core.errors import BaselineError, FileFormatError
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, record
from harness.core.serial import read_json

RECORD_FILE = "baseline.json"
RELEASE_FILE = "release.json"
RELEASE = "release"
"""The folder of a profile that holds its release anchors; no cell can be called so."""


@record
class ReleaseRecord:
    """What makes a copy of a baseline a release anchor. ``digests``: of the record and of each task's outcomes."""

    schema_version: int
    cell: Cell
    profile: str
    tag: str
    commit: str
    frozen_at: str
    digests: dict[str, str]
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """What is accepted now. ``digest``: of the record; of the files' bytes where they can't be used (there is no
    ``baseline`` then); None where nothing is accepted."""

    digest: str | None
    baseline: Baseline | None

    @property
    def is_unusable(self) -> bool:
        """Whether there is a baseline that can't be read."""
        return self.digest is not None and self.baseline is None


def load_baseline(root: Path, profile: str, cell: Cell) -> Baseline | None:
    """The baseline of a cell under ``root`` (usually ``baselines/``); None where there is none.

    Raises BaselineError, naming the file and the command that restores it, when the record or an outcome file is
    missing, unreadable, truncated or not as accepted.
    """
    home = root / profile / cell.id
    if not home.exists():
        return None
    try:
        return read_folder(home, profile, cell)
    except FileFormatError as error:
        raise BaselineError(
            f"the baseline of {cell.id} can't be used: {error} Restore it: {restore_command(home)}; or, if an older harness "
            f"made it or the change is meant, make it anew: {propose_command(cell.id, loosens=True)}."
        ) from error


def load_release(root: Path, profile: str, cell: Cell) -> Baseline | None:
    """The release anchor of a cell, frozen by ``freeze``; None where there is none. Raises BaselineError."""
    found = _load_anchor(root, profile, cell)
    return None if found is None else found[0]


def load_release_tag(root: Path, profile: str, cell: Cell) -> str | None:
    """The tag that a cell's release anchor was frozen under; None where there is none. Raises BaselineError."""
    found = _load_anchor(root, profile, cell)
    return None if found is None else found[1].tag


def release_home(root: Path, profile: str, cell: Cell) -> Path:
    """Where a cell's release anchor lies."""
    return root / profile / RELEASE / cell.id


def read_folder(home: Path, profile: str, cell: Cell) -> Baseline:
    """The baseline in a folder: its record and outcomes, checked. Raises FileFormatError."""
    made = _read_record(home / RECORD_FILE, profile, cell)
    return Baseline(made, {name: _read_task(home / f"{name}.parquet", task) for name, task in made.tasks.items()})


def read_release(home: Path, profile: str, cell: Cell) -> tuple[Baseline, ReleaseRecord]:
    """A release anchor and what makes it one, checked. Raises FileFormatError."""
    path, baseline = home / RELEASE_FILE, read_folder(home, profile, cell)
    made = read_json(path, ReleaseRecord)
    if digest_record(made) != made.digest or made.digests != content_digests(baseline):
        raise FileFormatError(f"{path} was edited, or the baseline beside it is not the one that was frozen.")
    if made.cell != cell or made.profile != profile:
        raise FileFormatError(f"{path} is the anchor of {made.profile}/{made.cell.id}: it was moved or copied.")
    return baseline, made


def content_digests(baseline: Baseline) -> dict[str, str]:
    """The digest of each file's content, by file name."""
    tasks = {f"{name}.parquet": task.outcomes_digest for name, task in baseline.record.tasks.items()}
    return {RECORD_FILE: baseline.record.digest, **tasks}


def read_present(root: Path, profile: str, cell: Cell) -> Present:
    """What is accepted of a cell now, also where it can't be used."""
    home = root / profile / cell.id
    if not home.exists():
        return Present(None, None)
    try:
        found = read_folder(home, profile, cell)
    except FileFormatError:
        return Present(digest_named({path.name: digest_file(path) for path in home.iterdir() if path.is_file()}), None)
    return Present(found.record.digest, found)


def _load_anchor(root: Path, profile: str, cell: Cell) -> tuple[Baseline, ReleaseRecord] | None:
    home = release_home(root, profile, cell)
    if not home.exists():
        return None
    try:
        return read_release(home, profile, cell)
    except FileFormatError as error:
        raise BaselineError(
            f"the release anchor of {cell.id} can't be used: {error} Restore it: {restore_command(home)}; or freeze the "
            f"accepted baseline anew: `harness baseline freeze --tag TAG --replace {cell.id}`."
        ) from error


def _read_record(path: Path, profile: str, cell: Cell) -> BaselineRecord:
    made = read_json(path, BaselineRecord)
    if digest_record(made) != made.digest:
        raise FileFormatError(f"{path} was edited: its content does not have the digest that it states.")
    if made.cell != cell or made.profile != profile:
        raise FileFormatError(f"{path} is the baseline of {made.profile}/{made.cell.id}: it was moved or copied.")
    if made.noise is None:
        raise FileFormatError(f"{path} tells no A/A runs, and without them nobody knows what its numbers move by alone.")
    return made


def _read_task(path: Path, task: BaselineTask) -> Outcomes:
    outcomes = read_outcomes(path)
    if digest_outcomes(outcomes) != task.outcomes_digest:
        raise FileFormatError(
            f"{path} was edited: its {len(outcomes)} outcomes are not the {task.info.n_items} accepted ones."
        )
    n_correct, n_items = int(outcomes.correct.sum()), len(outcomes)
    if (n_correct, n_items) != (task.n_correct, task.info.n_items):
        raise FileFormatError(
            f"{path} holds {n_correct} right answers to {n_items} items, the record says {task.n_correct} to "
            f"{task.info.n_items}."
        )
    return outcomes
