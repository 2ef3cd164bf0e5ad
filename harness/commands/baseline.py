"""The commands ``harness baseline …`` and ``harness noise``: from a proposal to the accepted baseline and its anchor."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.commands.terminal import Subparsers, Terminal, place_of
from harness.core.command import DEFAULT_BASELINES

Action = Callable[[Terminal, argparse.Namespace], int]

_RUNS = 3


def add_commands(commands: Subparsers, terminal: Terminal) -> None:
    """Declare ``baseline`` with its actions, and ``noise``."""
    baseline = terminal.add(commands, "baseline", None, "propose, review, accept and freeze baselines")
    actions = baseline.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(place: Subparsers, name: str, about: str, cells: str | None) -> argparse.ArgumentParser:
        made = terminal.add(place, name, lambda args: _actions()[name](_at(terminal, args), args), about)
        made.add_argument("--baseline-dir", type=Path, default=DEFAULT_BASELINES, metavar="DIR", help="default: %(default)s")
        if cells is not None:
            made.add_argument("cells", nargs=cells, metavar="CELL", help="cell id, for instance llama_4bit-rtn_none")
        return made

    propose = add(actions, "propose", "measure cells with their A/A runs and propose them as baselines", "+")
    propose.add_argument("--reason", required=True, metavar="TEXT", help="why; stored with the baseline")
    propose.add_argument("--accept", action="store_true", help="accept it at once, where the cell has no baseline yet")
    _add_measuring(propose, terminal)
    add(actions, "show", "accepted baselines, proposals and release anchors: accuracy, noise, provenance", "*")
    add(actions, "diff", "what proposals change; exit code 1 where something differs", "*")
    accept = add(actions, "accept", "make proposals the accepted baselines; all of them, or none", "+")
    accept.add_argument("--allow-loosening", metavar="WHY", help="accept that later runs need keep less, and say why")
    add(actions, "drop", "discard proposals", "+")
    freeze = add(actions, "freeze", "copy accepted baselines (of all cells, or those named) as the anchor of a release", "*")
    freeze.add_argument("--tag", required=True, help="name of the release")
    freeze.add_argument("--replace", action="store_true", help="replace the anchor of another release")
    unused = add(actions, "unused", "what lies there for cells and tasks that the matrix no longer has", None)
    unused.add_argument("--remove", action="store_true", help="delete it, after listing it")

    noise = add(commands, "noise", "measure what accepted cells move by when nothing changes, and propose it", "+")
    _add_measuring(noise, terminal)


def _add_measuring(parser: argparse.ArgumentParser, terminal: Terminal) -> None:
    parser.add_argument("--runs", type=int, default=_RUNS, metavar="K", help="A/A runs, at least and by default %(default)s")
    terminal.add_measuring(parser)


def _at(terminal: Terminal, args: argparse.Namespace) -> Terminal:
    """The terminal, whose lines name commands that work with the options of this one."""
    complete = place_of(args).complete
    return replace(terminal, say=lambda text: terminal.say(complete(text)))


def _actions() -> dict[str, Action]:
    """What each command runs; imported only when one does."""
    from harness.commands import propose, release, review

    return {
        "propose": propose.propose,
        "noise": propose.noise,
        "show": review.show,
        "diff": review.diff,
        "accept": review.accept,
        "drop": review.drop,
        "freeze": release.freeze,
        "unused": release.unused,
    }
