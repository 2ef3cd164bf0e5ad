"""``harness analyze``: how like the dense model cells attend and compute, layer by layer, for the report to draw."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands.terminal import Subparsers, Terminal, matrix_of, place_of
from harness.core.command import DEFAULT_BASELINES
from harness.core.errors import EXIT_PASS, HarnessError
from harness.core.regimes import LayerValue, Regimes, write_regimes
from harness.core.verdicts import NotEstimable


def add_command(commands: Subparsers, terminal: Terminal) -> None:
    """Declare ``analyze``."""
    made = terminal.add(
        commands,
        "analyze",
        lambda args: _run(terminal, args),
        "compare cells with their dense model layer by layer: attention, block outputs, attention to the prompt",
    )
    made.add_argument("cells", nargs="+", metavar="CELL", help="cell id, for instance llama_4bit-rtn_prompt20; no dense one")
    made.add_argument(
        "--text", type=Path, metavar="FILE", help=".txt or .jsonl, also with .gz (default: the shipped calibration text)"
    )
    made.add_argument("--texts", type=int, default=16, metavar="N", help="documents that are read (default: %(default)s)")
    made.add_argument("--tokens", type=int, default=64, metavar="N", help="tokens of each (default: %(default)s)")
    made.add_argument(
        "--run",
        type=Path,
        dest="folder",
        default=Path("reports/latest"),
        metavar="DIR",
        help="run folder, whose report then draws it (default: %(default)s)",
    )
    made.add_argument("--baseline-dir", type=Path, default=DEFAULT_BASELINES, metavar="DIR", help="default: %(default)s")
    terminal.add_measuring(made)


def _run(terminal: Terminal, args: argparse.Namespace) -> int:
    from harness.execution.analyze import LookedAt, analyze_cells
    from harness.execution.progress import LogToProgress
    from harness.execution.store import Store

    at = LookedAt(args.text, args.texts, args.tokens)
    matrix, options, progress = matrix_of(args), terminal.measure_options(args), terminal.progress()
    plans = [matrix.plan(cell) for cell in dict.fromkeys(args.cells)]
    with LogToProgress(progress):
        try:
            for made in analyze_cells(matrix, plans, at, options=options, store=Store.default(), progress=progress):
                terminal.say(f"{_summary(made)}: {write_regimes(args.folder, made)}")
        except HarnessError:
            raise
        except Exception as error:
            told = str(error).strip().partition("\n")[0]
            raise HarnessError(
                f"analyzing crashed ({type(error).__name__}: {told}): the cells that were told above are in {args.folder}; "
                "name the others again."
            ) from error
    terminal.say(f"next: {place_of(args).complete(f'`harness report --run {args.folder}`')}")
    return EXIT_PASS


def _summary(made: Regimes) -> str:
    """A cell's least alike layers in a line."""
    told = []
    for stack in made.stacks:
        for what, layers in (("attention", stack.attention), ("output", stack.outputs)):
            if found := _least(layers):
                told.append(f"{stack.name} {what} cosine at least {found[1]:.3f} (layer {found[0]})")
    return f"{made.cell.id}: {'; '.join(told) or 'no layer has finite numbers'}"


def _least(layers: tuple[LayerValue, ...]) -> tuple[int, float] | None:
    known = [(value.value, layer) for layer, value in enumerate(layers) if not isinstance(value, NotEstimable)]
    return (min(known)[1], min(known)[0]) if known else None
