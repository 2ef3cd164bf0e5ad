"""What the commands share: their parser, what the command line lends them, the matrix, policy and cells that they were asked
about."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from harness.core.command import DEFAULT_BASELINES, DEFAULT_DEVICE, Place
from harness.core.errors import EXIT_USAGE
from harness.execution.matrix import CellPlan, Matrix, read_matrix

if TYPE_CHECKING:
    from harness.baseline import Informative
    from harness.execution.local import MeasureOptions
    from harness.execution.progress import Progress
    from harness.gate import Policy

Subparsers = Any
"""argparse's own type for a place where commands are added is private."""


class _Parser(argparse.ArgumentParser):
    """Ends as every other request that can't be met does, and as pytest's own usage errors do: argparse's 2 is pytest's
    "stopped by the user", which a CI may want to tell apart."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.format_usage()}harness: {message}; `{self.prog} --help` explains.\n")


def make_parser(*, prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser that prints what is wrong with a line and exits with 4; so do those of its commands."""
    return _Parser(prog=prog, description=description, epilog=epilog)


@dataclass(frozen=True, slots=True)
class Terminal:
    """What ``cli`` lends: how a command is added, the options of measuring and what they ask for, lines out, progress."""

    add: Callable[[Subparsers, str, Callable[[argparse.Namespace], int] | None, str], argparse.ArgumentParser]
    add_measuring: Callable[[argparse.ArgumentParser], None]
    measure_options: Callable[[argparse.Namespace], MeasureOptions]
    say: Callable[[str], None]
    progress: Callable[[], Progress]

    def say_all(self, lines: Iterable[str]) -> None:
        """Several lines."""
        for line in lines:
            self.say(line)


def place_of(args: argparse.Namespace) -> Place:
    """Where a command was told to act; what it has no option for is as by default."""
    return Place(
        profile=args.profile,
        matrix=args.matrix,
        baseline_dir=getattr(args, "baseline_dir", DEFAULT_BASELINES),
        data=getattr(args, "data", None),
        device=getattr(args, "device", DEFAULT_DEVICE),
    )


def matrix_of(args: argparse.Namespace) -> Matrix:
    """The matrix of the profile that was asked for."""
    return read_matrix(args.matrix.resolve(), args.profile)


def plans_of(matrix: Matrix, cells: Iterable[str]) -> list[CellPlan]:
    """The plans of the named cells, each once; of all cells where none is named."""
    return [matrix.plan(cell) for cell in dict.fromkeys(cells)] or list(matrix.cells.values())


def policy_of(matrix: Matrix) -> Policy:
    """The policy beside the matrix."""
    from harness.gate import read_policy
    from harness.review import POLICY

    return read_policy(matrix.path.parent / POLICY)


def informative_of(policy: Policy) -> Informative:
    """When a task can show a loss, by this policy."""
    from harness.baseline import Informative

    return Informative(policy.informative_margin, policy.interval_level)
