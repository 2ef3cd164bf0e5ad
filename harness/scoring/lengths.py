"""How many tokens of a request a family would score, known from its tokenizer alone: what can't be asked is found before a
model is loaded. Imports no torch for decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.models.loaded import bos_or_eos
from harness.scoring import Request
from harness.scoring.encode import continuation_lengths
from harness.scoring.rolling import tokens_of


@dataclass(frozen=True)
class _Alone:
    """A tokenizer without its model."""

    tokenizer: Any

    @cached_property
    def prefix_token_id(self) -> int:
        return bos_or_eos(self.tokenizer, Path(self.tokenizer.name_or_path))


def scored_lengths(requests: Sequence[Request], tokenizer: Any, family: str | None) -> list[int]:
    """The scored tokens of continuations and rolling texts, those beyond the window among them; 0 can't be asked. ``family``:
    an encoder-decoder reads a continuation by itself, every other family behind its context. Raises ModelError."""
    alone = _Alone(tokenizer)
    continued = [request for request in requests if request.reading != "rolling"]
    if family == "seq2seq":
        from harness.scoring.pairs import target_lengths as lengths_of
    else:
        lengths_of = continuation_lengths
    lengths = iter(lengths_of(continued, alone))
    return [len(tokens_of(request, alone)) if request.reading == "rolling" else next(lengths) for request in requests]
