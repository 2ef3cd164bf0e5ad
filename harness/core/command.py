"""The commands that messages name, in one place, so that they can be pasted as they stand."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PROFILE = "embedded"
DEFAULT_MATRIX = Path("suites/matrix.toml")
DEFAULT_BASELINES = Path("baselines")
DEFAULT_DEVICE = "auto"
DATA_VARIABLE = "HARNESS_DATA"

_COMMAND = re.compile(r"`(?P<command>harness (?P<verb>baseline [a-z]+|noise|recover|analyze|measure|judge|report)\b[^`]*)`")
_MEASURES = ("baseline propose", "noise", "recover", "analyze", "measure")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run reads and writes, and what it measured with: what a command must be told to mean the same cell.

    ``data`` and ``device`` are as the user gave them: the mirror of data sets, and the device by name.
    """

    profile: str
    matrix: Path
    baseline_dir: Path
    data: Path | None = None
    device: str = DEFAULT_DEVICE

    def complete(self, text: str) -> str:
        """``text`` with every harness command in backticks made to work here: the options that are not the command line's
        defaults in the current folder are added, those that a command has already stay.

        >>> Place("tiny", Path("suites/matrix.toml"), Path("my baselines")).complete("look: `harness baseline diff a_b_c`.")
        "look: `harness baseline diff a_b_c --profile tiny --baseline-dir 'my baselines'`."
        """
        return _COMMAND.sub(self._completed, text)

    def _completed(self, found: re.Match[str]) -> str:
        command, verb = found["command"], found["verb"]
        missing = [f"{option} {shlex.quote(value)}" for option, value in self._options(verb) if f" {option} " not in command]
        return f"`{' '.join([command, *missing])}`"

    def _options(self, verb: str) -> Iterator[tuple[str, str]]:
        if self.profile != DEFAULT_PROFILE:
            yield "--profile", self.profile
        if self.matrix.resolve() != DEFAULT_MATRIX.resolve():
            yield "--matrix", _from_here(self.matrix)
        if self.baseline_dir.resolve() != DEFAULT_BASELINES.resolve():
            yield "--baseline-dir", _from_here(self.baseline_dir)
        if verb in _MEASURES and self.data is not None and str(self.data) != os.environ.get(DATA_VARIABLE):
            yield "--data", _from_here(self.data)
        if verb in _MEASURES and self.device != DEFAULT_DEVICE:
            yield "--device", self.device


def _from_here(path: Path) -> str:
    """A path as short as it can be pasted in the current folder."""
    whole, here = path.resolve(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def propose_command(cell: str, *, replaces: bool = False, loosens: bool = False) -> str:
    """How to make a cell's baseline for review; ``replaces`` where there is one already: then accepting it is named too.

    ``loosens``: later runs will have to keep less than now.

    >>> propose_command("llama_4bit-rtn_none")
    '`harness baseline propose llama_4bit-rtn_none --reason "..."`'
    """
    proposing = f'`harness baseline propose {cell} --reason "..."`'
    return f"{proposing}, then {accept_command(cell, loosens=loosens)}" if replaces or loosens else proposing


def accept_command(cell: str, *, loosens: bool = False) -> str:
    """How to accept what was proposed for a cell.

    >>> accept_command("llama_4bit-rtn_none", loosens=True)
    '`harness baseline accept llama_4bit-rtn_none --allow-loosening "why"`'
    """
    why = ' --allow-loosening "why"' if loosens else ""
    return f"`harness baseline accept {cell}{why}`"


def restore_command(path: Path) -> str:
    """How to get back what was committed.

    >>> restore_command(Path("my baselines/embedded"))
    "`git checkout -- 'my baselines/embedded'`"
    """
    return f"`git checkout -- {shlex.quote(str(path))}`"


def diff_command(cell: str) -> str:
    """How to see what a proposal changes."""
    return f"`harness baseline diff {cell}`"
