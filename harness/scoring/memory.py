"""Batches that memory can't hold are fed in halves."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Row = TypeVar("Row")
Made = TypeVar("Made")
log = logging.getLogger(__name__)

_CPU_MESSAGE = "can't allocate memory"


@dataclass(slots=True)
class Halving:
    """Feeds batches; where memory runs out, a batch is fed in halves, and so is from then on every batch of its size.

    ``too_many_tokens`` is the size of the smallest batch that did not fit; None: all did.
    """

    too_many_tokens: int | None = None

    def feed(
        self, rows: Sequence[Row], n_tokens: Callable[[Sequence[Row]], int], run: Callable[[Sequence[Row]], Sequence[Made]]
    ) -> list[Made]:
        """What ``run`` makes of each row; ``n_tokens`` is the size of a batch. A single row that does not fit is an error."""
        size = n_tokens(rows)
        if len(rows) == 1 or self.too_many_tokens is None or size < self.too_many_tokens:
            try:
                return list(run(rows))
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if len(rows) == 1 or not is_out_of_memory(error):
                    raise
            self.too_many_tokens = size
            log.warning("%s tokens at once are too many for the memory: fed in halves from now on", f"{size:,}")
            make_room()
        middle = len(rows) // 2
        return self.feed(rows[:middle], n_tokens, run) + self.feed(rows[middle:], n_tokens, run)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory ran out, on a device or in the CPU's allocator."""
    return isinstance(error, torch.OutOfMemoryError) or _CPU_MESSAGE in str(error)


def make_room() -> None:
    """Give back what nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
