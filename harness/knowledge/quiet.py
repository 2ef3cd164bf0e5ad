"""The data loader's progress bars and other libraries' log lines, switched off while a task loads: the harness tells its
progress itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def quiet_loading(loggers: Sequence[str]) -> Iterator[None]:
    """No bars of ``datasets``, and nothing below critical from these loggers; afterwards as before."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    found = [logging.getLogger(name) for name in loggers]
    levels, had_bars = [logger.level for logger in found], not are_progress_bars_disabled()
    for logger in found:
        logger.setLevel(logging.CRITICAL)
    disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            enable_progress_bars()
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
