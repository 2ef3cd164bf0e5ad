"""Progress is readable on a terminal and in a log."""

from __future__ import annotations

import logging

from harness.execution.progress import LogToProgress, Progress


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make(is_tty: bool) -> tuple[Progress, Clock, list[str]]:
    lines: list[str] = []
    clock = Clock()
    return Progress(write=lines.append, is_tty=is_tty, clock=clock), clock, lines


def test_a_log_gets_a_line_every_ten_seconds_and_the_last_one() -> None:
    progress, clock, lines = make(is_tty=False)
    progress.start("scoring items")
    for n_done in range(1, 31):
        clock.now_s = float(n_done)
        progress.update(n_done, 30)
    assert lines == [
        "scoring items: 10/30 in 10 s, 20 s left\n",
        "scoring items: 20/30 in 20 s, 10 s left\n",
        "scoring items: 30/30 in 30 s\n",
    ]


def test_a_terminal_redraws_one_line_and_leaves_it_when_done() -> None:
    progress, clock, lines = make(is_tty=True)
    progress.start("scoring")
    clock.now_s = 1.0
    progress.update(1, 2)
    progress.say("something else")
    assert lines == ["\r\x1b[2Kscoring: 1/2 in 1 s, 1 s left", "\n", "something else\n"]


def test_what_the_harness_logs_is_shown_while_it_works() -> None:
    progress, _, lines = make(is_tty=False)
    with LogToProgress(progress):
        logging.getLogger("harness.models.sources").info("downloading %s", "x")
    logging.getLogger("harness.models.sources").info("not shown")
    assert lines == ["downloading x\n"]
