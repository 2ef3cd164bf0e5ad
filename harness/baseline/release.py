"""Freezing accepted baselines as the anchor of a release: what many small, tolerated losses add up against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.baseline.load import RELEASE_FILE, ReleaseRecord, content_digests, load_baseline, read_release, release_home
from harness.baseline.record import Baseline, sealed
from harness.baseline.store import finish_broken_swap, one_writer, swap_in, write_baseline
from harness.core.command import propose_command
from harness.core.errors import EvidenceError, FileFormatError
from harness.core.records import SCHEMA_VERSION, Cell
from harness.core.serial import write_json


def freeze(
    root: Path, profile: str, cells: Sequence[Cell], *, tag: str, commit: str, frozen_at: str, replace: bool = False
) -> list[Cell]:
    """Copy the accepted baselines of ``cells`` whole, as the release anchors named ``tag``; all of them, or none.

    Returns the cells that were written: an anchor that already is this one under this tag stays. Raises EvidenceError
    without a cell or tag, for a cell without a baseline, or when an anchor would be replaced without ``replace``;
    BaselineError for an edited baseline.
    """
    if not tag.strip():
        raise EvidenceError("a release anchor needs a tag: --tag v1.2.")
    if not cells:
        raise EvidenceError("there is no accepted baseline to freeze: accept one first (`harness baseline accept CELL`).")
    with one_writer(root):
        found = {cell: _accepted(root, profile, cell) for cell in dict.fromkeys(cells)}
        new = {cell: made for cell, made in found.items() if not _is_frozen(root, made, tag.strip(), replace)}
        for cell, baseline in new.items():
            told = ReleaseRecord(
                schema_version=SCHEMA_VERSION,
                cell=cell,
                profile=profile,
                tag=tag.strip(),
                commit=commit,
                frozen_at=frozen_at,
                digests=content_digests(baseline),
                digest="",
            )
            write_anchor(release_home(root, profile, cell), baseline, told)
    return list(new)


def write_anchor(home: Path, baseline: Baseline, told: ReleaseRecord) -> None:
    """Put an anchor in place, sealed; needs the lock."""

    def fill(folder: Path) -> None:
        write_baseline(folder, baseline)
        write_json(folder / RELEASE_FILE, sealed(told))

    swap_in(home, fill)


def _accepted(root: Path, profile: str, cell: Cell) -> Baseline:
    finish_broken_swap(root / profile / cell.id)
    found = load_baseline(root, profile, cell)
    if found is None:
        raise EvidenceError(f"{cell.id} has no accepted baseline to freeze: {propose_command(cell.id, replaces=True)}.")
    return found


def _is_frozen(root: Path, baseline: Baseline, tag: str, replace: bool) -> bool:
    """Whether the anchor is there already. Raises EvidenceError where another one is, and may not be replaced."""
    made = baseline.record
    home = release_home(root, made.profile, made.cell)
    finish_broken_swap(home)
    if not home.exists():
        return False
    try:
        _, told = read_release(home, made.profile, made.cell)
    except FileFormatError as error:
        if replace:
            return False
        raise EvidenceError(
            f"{made.cell.id} has a release anchor that can't be read ({error}): --replace replaces it."
        ) from error
    if (told.tag, told.digests) == (tag, content_digests(baseline)):
        return True
    if not replace:
        state = "another state of it" if told.tag == tag else "its state"
        raise EvidenceError(
            f"{made.cell.id} has a release anchor already, {state} at {told.tag!r} of {told.frozen_at}: --replace moves it to "
            f"{tag!r}, and what was lost in between is then no longer seen."
        )
    return False
