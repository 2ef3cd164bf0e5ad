"""``harness env NAME``: the environment of a package that needs other versions than ours."""

from __future__ import annotations

import argparse

from harness.commands.terminal import Subparsers, Terminal
from harness.compression.environment import ENVIRONMENTS, make_environment
from harness.core.errors import EXIT_PASS


def add_command(commands: Subparsers, terminal: Terminal) -> None:
    """Declare ``env``."""
    made = terminal.add(
        commands, "env", lambda args: run(terminal, args), "make the environment of a package that runs in one of its own"
    )
    made.add_argument("name", metavar="NAME", help=f"one of: {', '.join(ENVIRONMENTS)}")
    made.add_argument("--python", metavar="FILE", help="the interpreter to make it with (default: this one)")


def run(terminal: Terminal, args: argparse.Namespace) -> int:
    """Make it where it is not there."""
    folder = make_environment(args.name, terminal.say, python=args.python)
    terminal.say(f"{args.name} is ready in {folder}")
    return EXIT_PASS
