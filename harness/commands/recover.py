"""``harness recover``: train the recoveries of cells; what comes is stored beside the baselines, to be committed."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands.terminal import Subparsers, Terminal, matrix_of, place_of
from harness.core.command import DEFAULT_BASELINES
from harness.core.errors import EXIT_PASS, HarnessError


def add_command(commands: Subparsers, terminal: Terminal) -> None:
    """Declare ``recover``."""
    made = terminal.add(commands, "recover", lambda args: _run(terminal, args), "train the recoveries of cells")
    made.add_argument("cells", nargs="+", metavar="CELL", help="cell id, for instance llama_4bit-rtn_prompt")
    made.add_argument("--baseline-dir", type=Path, default=DEFAULT_BASELINES, metavar="DIR", help="default: %(default)s")
    terminal.add_measuring(made)


def _run(terminal: Terminal, args: argparse.Namespace) -> int:
    from harness.execution.progress import LogToProgress
    from harness.execution.recover import train_recovery
    from harness.execution.store import Store

    matrix, options, progress = matrix_of(args), terminal.measure_options(args), terminal.progress()
    for plan in [matrix.plan(cell) for cell in dict.fromkeys(args.cells)]:
        with LogToProgress(progress):
            try:
                found = train_recovery(matrix, plan, options=options, store=Store.default(), progress=progress)
            except HarnessError:
                raise
            except Exception as error:
                told = str(error).strip().partition("\n")[0]
                raise HarnessError(
                    f"{plan.cell.id}: training crashed ({type(error).__name__}: {told}): no artifact was stored; run it "
                    "again, it goes on at its last validation."
                ) from error
        for number, one in enumerate(found.record.trainings, start=1):
            which = f" {number} of {len(found.record.trainings)}" if len(found.record.trainings) > 1 else ""
            terminal.say(
                f"{plan.cell.id}: training{which}: validation perplexity {one.perplexity_before:.4g} without it, "
                f"{one.perplexity_first:.4g} at first, {one.perplexity_best:.4g} at step {one.best_step}, which is kept; "
                f"{one.n_parameters:,} numbers, {one.steps} steps in {one.wall_s:.0f} s ({one.stopped})"
            )
        if found.was_there:
            terminal.say(f"{plan.cell.id}: trained already, in {found.folder}; --fresh trains it again")
        else:
            measure = place_of(args).complete(f"`harness measure {plan.cell.id}`")
            terminal.say(f"{plan.cell.id}: stored in {found.folder}: commit it; next: {measure}")
    return EXIT_PASS
