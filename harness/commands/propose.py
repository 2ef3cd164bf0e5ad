"""``harness baseline propose`` and ``harness noise``: the commands that measure."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from harness.baseline import Baseline, Proposal, accept, describe_noise, proposal_home
from harness.commands.review import tell_accepted
from harness.commands.terminal import Terminal, informative_of, matrix_of, plans_of, policy_of
from harness.core.command import accept_command, diff_command
from harness.core.errors import EXIT_PASS, EvidenceError, HarnessError
from harness.core.verdicts import POOLED
from harness.execution.local import crashed
from harness.execution.matrix import CellPlan
from harness.execution.progress import LogToProgress
from harness.execution.propose import Measuring, propose_baseline, propose_noise
from harness.execution.store import Store
from harness.gate import Policy

T = TypeVar("T")


def propose(terminal: Terminal, args: argparse.Namespace) -> int:
    """Measure the named cells and propose what came."""
    matrix, root = matrix_of(args), args.baseline_dir
    plans, informative = plans_of(matrix, args.cells), informative_of(policy_of(matrix))
    if args.accept:
        _require_first(root, plans)
    asked = partial(propose_baseline, root=root, reason=args.reason, n_runs=args.runs, informative=informative)
    for plan in plans:
        made = _measured(terminal, args, plan, asked)
        if args.accept:
            cells = {plan.cell: tuple(plan.tasks)}
            tell_accepted(terminal, accept(root, plan.profile, cells, informative=informative, only=made.record.digest))
        else:
            _tell_proposed(terminal, root, made)
    return EXIT_PASS


def noise(terminal: Terminal, args: argparse.Namespace) -> int:
    """Measure the A/A runs of the named cells, print them and propose their noise."""
    matrix, root = matrix_of(args), args.baseline_dir
    policy = policy_of(matrix)
    asked = partial(propose_noise, root=root, n_runs=args.runs, informative=informative_of(policy))
    for plan in plans_of(matrix, args.cells):
        renewed, made = _measured(terminal, args, plan, asked)
        terminal.say_all(describe_noise(renewed, _m1(renewed, policy)))
        if made is None:
            terminal.say("  this is what the accepted baseline says already: nothing to accept")
        else:
            _tell_proposed(terminal, root, made)
    return EXIT_PASS


def _require_first(root: Path, plans: Iterable[CellPlan]) -> None:
    there = [plan.cell.id for plan in plans if (root / plan.profile / plan.cell.id).exists()]
    if there:
        raise EvidenceError(
            f"--accept is for the first baseline of a cell, and {', '.join(there)} has one: propose without it, look at "
            f"{diff_command(there[0])}, then {accept_command(there[0])}."
        )


def _tell_proposed(terminal: Terminal, root: Path, made: Proposal) -> None:
    told, cell = made.record, made.record.cell.id
    terminal.say(f"{cell}: proposed in {proposal_home(root, told.profile, told.cell)}; nothing accepted has changed")
    terminal.say_all([f"  loosens: {phrase}" for phrase in told.loosens] + [f"  note: {note}" for note in told.remarks])
    terminal.say(f"  {diff_command(cell)} shows it, {accept_command(cell, loosens=bool(told.loosens))} accepts it")


def _m1(baseline: Baseline, policy: Policy) -> dict[str, float]:
    """The loss that a PASS excludes at the measured flip rates: of each task, and of the pool of informative ones."""
    made, noise, informative = baseline.record, baseline.record.noise, informative_of(policy)
    if noise is None:
        return {}
    m1 = {
        name: policy.task.m1(task.info.n_items, noise.flip_rate[name]) * (1 - task.info.chance)
        for name, task in made.tasks.items()
        if informative.holds(task)
    }
    n_pooled = sum(min(made.tasks[name].info.n_items, policy.pool_cap_items) for name in m1 if made.tasks[name].info.pooled)
    return {**m1, POOLED: policy.cell.m1(n_pooled, noise.flip_rate[POOLED])} if n_pooled else m1


def _measured(terminal: Terminal, args: argparse.Namespace, plan: CellPlan, measure: Callable[[Measuring], T]) -> T:
    """What ``measure`` makes of the cell; somebody's own error in it is told as a crash, not as a traceback."""
    progress = terminal.progress()
    measuring = Measuring(matrix_of(args), plan, terminal.measure_options(args), Store.default(), progress)
    with LogToProgress(progress):
        try:
            return measure(measuring)
        except HarnessError:
            raise
        except Exception as error:
            raise HarnessError(f"{plan.cell.id}: {crashed(plan, error).reason}") from error
