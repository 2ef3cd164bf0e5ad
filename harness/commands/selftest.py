"""The parser lines of ``harness selftest``; what it does is loaded only when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands.terminal import Subparsers, Terminal


def add_command(commands: Subparsers, terminal: Terminal) -> None:
    """Declare ``selftest``."""
    made = terminal.add(commands, "selftest", lambda args: _run(terminal, args), "how often the gate errs, and what it finds")
    made.add_argument("--policy-file", type=Path, metavar="FILE", help="default: policy.toml beside the matrix")
    made.add_argument("--baseline-dir", type=Path, default=Path("baselines"), metavar="DIR", help="default: %(default)s")
    made.add_argument(
        "--run",
        type=Path,
        dest="folder",
        metavar="DIR",
        help="inject losses into this run's records (default: the baselines')",
    )
    made.add_argument(
        "--commits", type=int, default=20_000, metavar="N", help="simulated commits of each kind (default: 20000)"
    )
    made.add_argument("--seed", type=int, default=0, metavar="N", help="of the simulation (default: 0)")
    made.add_argument(
        "--flips", type=float, metavar="SHARE", help="share of the items that flip when nothing changed (default: as measured)"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")


def _run(terminal: Terminal, args: argparse.Namespace) -> int:
    from harness.commands.selftesting import run

    return run(terminal, args)
