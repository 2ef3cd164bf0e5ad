"""``harness export CELL DIR``: a cell's compressed model as a checkpoint for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands.terminal import Subparsers, Terminal, matrix_of
from harness.core.command import DEFAULT_DEVICE
from harness.core.errors import EXIT_PASS
from harness.execution.export import FORMATS


def add_command(commands: Subparsers, terminal: Terminal) -> None:
    """Declare ``export``."""
    made = terminal.add(
        commands, "export", lambda args: run(terminal, args), "write a cell's compressed model as a checkpoint of transformers"
    )
    made.add_argument("cell", metavar="CELL", help="cell id, for instance llama_4bit-rtn_none")
    made.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder")
    made.add_argument(
        "--format", choices=FORMATS, default="auto", help="auto packs what can be packed, else writes plain weights"
    )
    made.add_argument("--device", default=DEFAULT_DEVICE, help="auto, cpu, cuda, cuda:1, mps (default: auto)")


def run(terminal: Terminal, args: argparse.Namespace) -> int:
    """Compress the cell's model where that was not done yet, and write it."""
    from harness.execution.export import export
    from harness.execution.local import MeasureOptions, make_candidate
    from harness.execution.progress import LogToProgress
    from harness.execution.store import Store

    matrix = matrix_of(args)
    progress = terminal.progress()
    with LogToProgress(progress):
        options = MeasureOptions(device=args.device)
        candidate = make_candidate(matrix, matrix.plan(args.cell), options=options, store=Store.default(), progress=progress)
        made = export(candidate, args.folder, args.format)
    terminal.say(f"exported: {made.folder} ({made.format}, {made.size_bytes:,} bytes of weights), read back and compared")
    return EXIT_PASS
