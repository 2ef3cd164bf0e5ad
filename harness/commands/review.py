"""``harness baseline show | diff | accept | drop``: looking at proposals and deciding about them; nothing is measured."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from harness.baseline import (
    Accepted,
    compare_baselines,
    describe_baseline,
    describe_diff,
    drop_proposal,
    load_baseline,
    load_proposal,
    load_release_tag,
    loosened_by,
    proposal_home,
    read_present,
)
from harness.baseline import accept as accept_proposals
from harness.commands.terminal import Terminal, informative_of, matrix_of, plans_of, policy_of
from harness.core.command import diff_command, propose_command
from harness.core.errors import EXIT_PASS, EXIT_USAGE, BaselineError, EvidenceError
from harness.core.records import Cell

EXIT_DIFFERENT = 1
"""As ``diff`` has it: 0 where nothing differs, 1 where something does."""


def show(terminal: Terminal, args: argparse.Namespace) -> int:
    """Print the accepted baselines."""
    matrix, root = matrix_of(args), args.baseline_dir
    code = EXIT_PASS
    for plan in plans_of(matrix, args.cells):
        try:
            baseline = load_baseline(root, matrix.profile, plan.cell)
            if baseline is not None:
                terminal.say_all(describe_baseline(baseline, load_release_tag(root, matrix.profile, plan.cell)))
            else:
                terminal.say(f"{plan.cell.id}: no baseline; {propose_command(plan.cell.id)} proposes one")
                code = max(code, EXIT_USAGE) if args.cells else code
        except BaselineError as error:  # the other cells are shown all the same
            terminal.say(str(error))
            code = error.exit_code
        if proposal_home(root, matrix.profile, plan.cell).exists():
            terminal.say(f"  there is a proposal: {diff_command(plan.cell.id)} shows it")
    return code


def diff(terminal: Terminal, args: argparse.Namespace) -> int:
    """Print what the proposals change."""
    matrix, root = matrix_of(args), args.baseline_dir
    informative, code, n_found = informative_of(policy_of(matrix)), EXIT_PASS, 0
    for plan in plans_of(matrix, args.cells):
        proposal = load_proposal(root, matrix.profile, plan.cell)
        if proposal is None:
            if args.cells:
                raise EvidenceError(f"there is no proposal for {plan.cell.id}: {propose_command(plan.cell.id)} makes one.")
            continue
        n_found += 1
        present = read_present(root, matrix.profile, plan.cell)
        changes = compare_baselines(present.baseline, proposal.baseline)
        terminal.say_all(describe_diff(proposal, changes, loosened_by(proposal.baseline, present, informative)))
        if present.digest not in (proposal.record.replaces, proposal.record.record_digest):
            terminal.say("  stale: it was made against another baseline than the present one; propose it again")
        if present.is_unusable or not changes.is_nothing:
            code = EXIT_DIFFERENT
    if not n_found:
        terminal.say(f"no proposals in {root / matrix.profile}")
    return code


def accept(terminal: Terminal, args: argparse.Namespace) -> int:
    """Accept the proposals for the named cells."""
    matrix = matrix_of(args)
    cells = {plan.cell: tuple(plan.tasks) for plan in plans_of(matrix, args.cells)}
    informative = informative_of(policy_of(matrix))
    done = accept_proposals(
        args.baseline_dir, matrix.profile, cells, allow_loosening=args.allow_loosening, informative=informative
    )
    tell_accepted(terminal, done)
    return EXIT_PASS


def drop(terminal: Terminal, args: argparse.Namespace) -> int:
    """Discard the proposals for the named cells."""
    matrix = matrix_of(args)
    cells = [Cell.parse(name) for name in args.cells]  # also of cells that the matrix no longer has
    missing = [cell for cell in cells if not drop_proposal(args.baseline_dir, matrix.profile, cell)]
    for cell in cells:
        terminal.say(f"{cell.id}: {'there was no proposal' if cell in missing else 'proposal discarded'}")
    return EXIT_USAGE if missing else EXIT_PASS


def tell_accepted(terminal: Terminal, done: Iterable[Accepted]) -> None:
    """Say what became of accepted proposals."""
    for one in done:
        what = "was accepted already" if one.written == "kept" else one.written
        terminal.say(f"{one.cell.id}: baseline {what}; review it and commit it")
        terminal.say_all(f"  loosened: {phrase}" for phrase in one.loosened)
        terminal.say_all(f"  warning: {note}" for note in one.remarks)
