"""Accepting proposals: the one way in which a baseline comes to be or moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.baseline.changes import Informative
from harness.baseline.evidence import require_proven, require_reason
from harness.baseline.load import read_present
from harness.baseline.proposal import Proposal, load_proposal, loosened_by, proposal_home
from harness.baseline.record import Baseline
from harness.baseline.store import (
    HISTORY_FILE,
    Written,
    append_history,
    finish_broken_swap,
    last_accepted,
    one_writer,
    remove_folder,
    swap_in,
    write_baseline,
)
from harness.core.command import accept_command, diff_command, propose_command
from harness.core.errors import EvidenceError
from harness.core.records import Cell


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of an accepted proposal. ``loosened``: what later runs need not keep any more; ``remarks``: what to know
    about its evidence."""

    cell: Cell
    written: Written
    loosened: tuple[str, ...]
    remarks: tuple[str, ...]


def accept(
    root: Path,
    profile: str,
    cells: Mapping[Cell, Sequence[str]],
    *,
    allow_loosening: str | None = None,
    informative: Informative,
    only: str | None = None,
) -> list[Accepted]:
    """Make the proposals for ``cells`` (with their declared tasks) the accepted baselines: all of them, or none.

    Raises EvidenceError for a proposal that is not there, was edited, was made against another baseline than the present
    one, lacks evidence, or loosens the gate although ``allow_loosening`` does not say why; StorageError when the disk or
    another writer is in the way. ``only``: the digest of the one proposal that is meant. A cell's folder is swapped whole.
    """
    if allow_loosening is not None and not allow_loosening.strip():
        raise EvidenceError("--allow-loosening needs a reason: say in a sentence why later runs may keep less.")
    terms = _Terms(None if allow_loosening is None else allow_loosening.strip(), informative, only)
    with one_writer(root):
        checked = [_check(root, profile, cell, tasks, terms) for cell, tasks in cells.items()]
        return [_put(root, candidate, terms) for candidate in checked]


@dataclass(frozen=True, slots=True)
class _Terms:
    """On which terms proposals are accepted, as ``accept`` says."""

    why: str | None
    informative: Informative
    only: str | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A proposal that may be accepted. ``is_there``: an acceptance put it in place already and was cut off before its end,
    or it proposes again what is accepted."""

    proposal: Proposal
    home: Path
    loosened: tuple[str, ...]
    is_there: bool


def _check(root: Path, profile: str, cell: Cell, tasks: Sequence[str], terms: _Terms) -> _Candidate:
    home = root / profile / cell.id
    for folder in (home, proposal_home(root, profile, cell)):
        finish_broken_swap(folder)
    proposal = load_proposal(root, profile, cell)
    if proposal is None:
        raise EvidenceError(f"there is no proposal for {cell.id}: {propose_command(cell.id)} makes one.")
    if terms.only is not None and proposal.record.digest != terms.only:
        raise EvidenceError(f"another proposal for {cell.id} was made meanwhile: look at it with {diff_command(cell.id)}.")
    present = read_present(root, profile, cell)
    is_there = present.digest == proposal.record.record_digest
    if not is_there and present.digest != proposal.record.replaces:
        raise EvidenceError(_stale(cell.id, proposal.record.replaces, present.digest))
    require_reason(cell.id, proposal.baseline.record.reason)
    require_proven(proposal.baseline.record, tasks)
    if is_there:
        loosens = proposal.record.loosens
    else:  # worked out again: the proposal's file is not believed
        _require_noise_only(proposal, present.baseline)
        loosens = loosened_by(proposal.baseline, present, terms.informative)
    if loosens and terms.why is None:
        raise EvidenceError(
            f"the proposal for {cell.id} loosens the gate ({'; '.join(loosens)}): look at it with {diff_command(cell.id)}; if "
            f"that is meant, {accept_command(cell.id, loosens=True)}."
        )
    return _Candidate(proposal, home, loosens, is_there)


def _put(root: Path, candidate: _Candidate, terms: _Terms) -> Accepted:
    proposal, home = candidate.proposal, candidate.home
    made, history = proposal.baseline.record, home.parent / HISTORY_FILE
    written: Written = "added" if proposal.record.replaces is None else "updated"
    if proposal.record.kind == "noise":
        written = "noise updated"
    is_told = candidate.is_there and last_accepted(history, made.cell.id) == made.digest
    if not candidate.is_there:
        swap_in(home, lambda folder: write_baseline(folder, proposal.baseline))
    if not is_told:
        append_history(history, proposal.baseline, written, terms.why if candidate.loosened else None)
    remove_folder(proposal_home(root, made.profile, made.cell))
    return Accepted(made.cell, "kept" if is_told else written, candidate.loosened, proposal.record.remarks)


def _require_noise_only(proposal: Proposal, accepted: Baseline | None) -> None:
    """A proposal of noise changes nothing else."""
    if proposal.record.kind != "noise":
        return
    made = proposal.baseline.record
    if accepted is None or replace(made, noise=None, digest="") != replace(accepted.record, noise=None, digest=""):
        raise EvidenceError(
            f"the proposal for {made.cell.id} says that it changes the noise only, and changes more: it was edited; discard "
            f"it (`harness baseline drop {made.cell.id}`) and measure the noise again (`harness noise {made.cell.id}`)."
        )


def _stale(cell: str, replaces: str | None, present: str | None) -> str:
    return (
        f"the proposal for {cell} was made against {_named(replaces)} and {_named(present)} is accepted now, so what it "
        f"changes is not known: propose it again ({propose_command(cell)}; what is stored is not measured again)."
    )


def _named(digest: str | None) -> str:
    return "no baseline" if digest is None else f"baseline {digest[:12]}"
