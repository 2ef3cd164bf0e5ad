"""A proposal: a baseline beside the accepted one, with what it would change, for people to look at before it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.baseline.changes import Changes, Informative, compare_baselines, loosened
from harness.baseline.evidence import require_measured, require_noise_of, require_reason
from harness.baseline.load import Present, read_folder, read_present
from harness.baseline.noise import Repeat, choose_stored, describe_repeats
from harness.baseline.record import Baseline, digest_record, make_baseline, sealed
from harness.baseline.store import finish_broken_swap, one_writer, remove_folder, swap_in, write_baseline
from harness.core.command import propose_command
from harness.core.errors import EvidenceError, FileFormatError
from harness.core.records import SCHEMA_VERSION, Cell, record
from harness.core.serial import read_json, write_json

PROPOSALS = "proposals"
"""The folder of a profile that holds its proposals; no cell can be called so."""

PROPOSAL_FILE = "proposal.json"

NO_COMMIT = "no commit known: which code measured it can't be told later"

Kind = Literal["baseline", "noise"]
"""What a proposal would replace: all of a baseline, or its noise only."""


@record
class ProposalRecord:
    """What lies beside a proposed baseline. ``digest`` covers every other field, ``record_digest`` is the baseline's.

    ``replaces``: the digest of the record that was accepted when this was made; None where there was none; of the files'
    bytes where it could not be read. ``loosens``: everything by which later runs would have to keep less than now.
    """

    schema_version: int
    kind: Kind
    cell: Cell
    profile: str
    record_digest: str
    replaces: str | None
    changes: Changes
    loosens: tuple[str, ...]
    remarks: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A proposed baseline and what accepting it would change."""

    record: ProposalRecord
    baseline: Baseline


def write_proposal(
    root: Path, repeats: Sequence[Repeat], *, reason: str, declared_tasks: Sequence[str], informative: Informative
) -> Proposal:
    """Propose the median one of a cell's A/A runs as its baseline; what is accepted stays untouched.

    Raises EvidenceError when the runs are no evidence (failed, partial, limited, from a baseline, too few, no reason),
    ConfigError for names that can't be files, StorageError when the disk or another writer is in the way.
    """
    require_measured(repeats, declared_tasks)
    stored = choose_stored(repeats)
    run = stored.measured()
    require_reason(run.record.cell.id, reason)
    return _write(root, "baseline", make_baseline(run, reason.strip(), describe_repeats(repeats, stored)), informative)


def write_noise_proposal(root: Path, renewed: Baseline, *, informative: Informative) -> Proposal:
    """Propose an accepted baseline with other noise (see ``renew_noise``)."""
    return _write(root, "noise", renewed, informative)


def renew_noise(accepted: Baseline, repeats: Sequence[Repeat]) -> Baseline:
    """An accepted baseline with the noise that other runs of its cell show: its outcomes stay, its stored run is one of the
    A/A runs beside ``repeats``.

    Raises EvidenceError when the runs are no evidence, or not of what was accepted.
    """
    stored = require_noise_of(accepted, repeats)
    return accepted.with_noise([stored, *(repeat.against(accepted.outcomes) for repeat in repeats)])


def load_proposal(root: Path, profile: str, cell: Cell) -> Proposal | None:
    """The proposal for a cell, None where there is none. Raises EvidenceError for one that was edited or damaged."""
    home = proposal_home(root, profile, cell)
    if not home.exists():
        return None
    try:
        made = read_json(home / PROPOSAL_FILE, ProposalRecord)
        baseline = read_folder(home, profile, cell)
        if digest_record(made) != made.digest:
            raise FileFormatError(f"{home / PROPOSAL_FILE} was edited: its content does not have the digest that it states.")
        if (made.cell, made.profile, made.record_digest) != (cell, profile, baseline.record.digest):
            raise FileFormatError(f"{home / PROPOSAL_FILE} was edited or moved: it is not about the baseline beside it.")
    except FileFormatError as error:
        raise EvidenceError(
            f"the proposal for {cell.id} can't be used: {error} Discard it (`harness baseline drop {cell.id}`) and make it "
            f"again: {propose_command(cell.id)}."
        ) from error
    return Proposal(made, baseline)


def drop_proposal(root: Path, profile: str, cell: Cell) -> bool:
    """Discard the proposal for a cell, whatever state it is in; whether there was one."""
    home = proposal_home(root, profile, cell)
    with one_writer(root):
        found = home.exists()
        remove_folder(home)
    return found


def loosened_by(baseline: Baseline, present: Present, informative: Informative) -> tuple[str, ...]:
    """Everything by which accepting ``baseline`` in the place of what is accepted now would let later runs keep less."""
    if present.is_unusable:
        return ("the accepted baseline can't be read, so nothing shows what is given up",)
    return tuple(loosened(present.baseline, baseline, informative))


def proposal_home(root: Path, profile: str, cell: Cell) -> Path:
    """Where a cell's proposal lies."""
    return root / profile / PROPOSALS / cell.id


def _write(root: Path, kind: Kind, baseline: Baseline, informative: Informative) -> Proposal:
    made = baseline.record
    with one_writer(root):
        finish_broken_swap(root / made.profile / made.cell.id)
        present = read_present(root, made.profile, made.cell)
        told = ProposalRecord(
            schema_version=SCHEMA_VERSION,
            kind=kind,
            cell=made.cell,
            profile=made.profile,
            record_digest=made.digest,
            replaces=present.digest,
            changes=compare_baselines(present.baseline, baseline),
            loosens=loosened_by(baseline, present, informative),
            remarks=(NO_COMMIT,) if made.provenance.commit == "unknown" else (),
            digest="",
        )
        proposal = Proposal(sealed(told), baseline)

        def fill(folder: Path) -> None:
            write_baseline(folder, baseline)
            write_json(folder / PROPOSAL_FILE, proposal.record)

        swap_in(proposal_home(root, made.profile, made.cell), fill)
    return proposal
