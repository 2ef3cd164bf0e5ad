"""A sealed room for libraries with side effects: what they print, set and draw from global generators stays inside."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import tqdm  # type: ignore[import-untyped]

_ENVIRONMENT = {
    "LLM_COMPRESSOR_LOG_LEVEL": "",  # read when llmcompressor is first imported: no log lines on stdout
    "TOKENIZERS_PARALLELISM": "false",  # llm-compressor would set it itself, for good, with a warning
}
_WARNERS = ("torch.fx._symbolic_trace",)


@contextmanager
def sealed() -> Iterator[None]:
    """While the block runs, no progress bars and no banners; environment and global generators are as before afterwards.

    Where the user set one of the environment variables, that holds: LLM_COMPRESSOR_LOG_LEVEL=INFO shows the library's log.
    """
    import torch

    with ExitStack() as stack:
        stack.enter_context(_environment({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()}))
        stack.enter_context(_no_bars())
        for name in _WARNERS:
            stack.enter_context(_errors_only(logging.getLogger(name)))
        stack.enter_context(_random_state())
        stack.enter_context(torch.random.fork_rng(devices=()))  # a DataLoader draws from the global generator
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def _no_bars() -> Iterator[None]:
    bar: Any = tqdm.tqdm
    original = bar.__init__

    def without_bar(self: Any, *args: Any, **settings: Any) -> None:
        original(self, *args, **{**settings, "disable": True})

    bar.__init__ = without_bar
    try:
        yield
    finally:
        bar.__init__ = original


@contextmanager
def _errors_only(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _random_state() -> Iterator[None]:
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
