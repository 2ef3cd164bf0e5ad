"""Progress of long steps as text for a terminal or a log: what is done, how far it is, how long it will take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

_TTY_INTERVAL_S = 0.2
_LOG_INTERVAL_S = 10.0


@dataclass(slots=True)
class Progress:
    """Writes progress through ``write``. On a terminal (``is_tty``) one line is redrawn; in a log a line comes every ten
    seconds. ``clock`` gives seconds."""

    write: Callable[[str], None]
    is_tty: bool
    clock: Callable[[], float] = time.monotonic
    _label: str = ""
    _started_s: float = 0.0
    _shown_s: float = 0.0
    _open: bool = field(default=False)

    def say(self, text: str) -> None:
        """One line of its own."""
        self._close()
        self.write(f"{text}\n")

    def start(self, label: str) -> None:
        """Begin a counted step."""
        self._close()
        self._label = label
        self._started_s = self._shown_s = self.clock()

    def update(self, n_done: int, n_all: int, note: str = "") -> None:
        """The step has come this far; ``note`` says how it goes."""
        now = self.clock()
        finished = n_done >= n_all
        if not finished and now - self._shown_s < (_TTY_INTERVAL_S if self.is_tty else _LOG_INTERVAL_S):
            return
        self._shown_s = now
        elapsed_s = now - self._started_s
        left = "" if finished or not n_done else f", {_duration(elapsed_s / n_done * (n_all - n_done))} left"
        line = f"{self._label}: {n_done}/{n_all} in {_duration(elapsed_s)}{left}{note and f'; {note}'}"
        if self.is_tty:
            self.write(f"\r\x1b[2K{line}")
            self._open = True
            if finished:
                self._close()
        else:
            self.write(f"{line}\n")

    def _close(self) -> None:
        if self._open:
            self.write("\n")
            self._open = False


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


@dataclass(slots=True)
class LogToProgress:
    """While the block runs, what the harness logs (INFO and above) is shown as progress lines."""

    progress: Progress
    _handler: logging.Handler | None = None
    _level: int = logging.NOTSET

    def __enter__(self) -> LogToProgress:
        logger = logging.getLogger("harness")
        self._handler = _Lines(self.progress)
        self._level = logger.level
        logger.addHandler(self._handler)
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        logger = logging.getLogger("harness")
        if self._handler is not None:
            logger.removeHandler(self._handler)
        logger.setLevel(self._level)


class _Lines(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.say(record.getMessage())
