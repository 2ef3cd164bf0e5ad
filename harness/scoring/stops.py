"""Where a generated text ends: lm-eval's stop strings, and the tokens after which a model says no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from harness.models.loaded import LoadedModel

LOOKBACK_TOKENS = 2
"""A stop string is looked for in so many more of the last tokens than it takes itself, as lm-eval does: a model may spell it
in other tokens than the tokenizer would."""


class StopStrings:
    """The strings before which a text ends: those of a prompt, and the tokenizer's end of sequence."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        end = tokenizer.eos_token_id
        named = [text for text in stop if text] + ([tokenizer.decode(end)] if end is not None else [])
        self.strings = tuple(dict.fromkeys(named))
        self._tokenizer = tokenizer
        self._by_lookback: dict[int, list[str]] = defaultdict(list)
        for text in self.strings:
            n_tokens = len(tokenizer.encode(text, add_special_tokens=False))
            self._by_lookback[n_tokens + LOOKBACK_TOKENS].append(text)

    def appear(self, made: Sequence[int]) -> bool:
        """Whether one of them is among the last of the tokens that were made."""
        return any(
            stop in text
            for n, stops in self._by_lookback.items()
            for text in [self._tokenizer.decode(made[-n:])]
            for stop in stops
        )

    def end(self, made: Sequence[int]) -> bool:
        """Whether one of them is in the text of tokens, which is then cut before it."""
        whole = self._tokenizer.decode(made)
        return any(stop in whole for stop in self.strings)

    def text(self, made: Sequence[int]) -> str:
        """The text of tokens, cut."""
        return cut(self._tokenizer.decode(made, skip_special_tokens=True), self.strings)


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string.

    >>> cut("Paris. It is", (".", "It"))
    'Paris'
    """
    for stop in stops:
        text = text.split(stop, maxsplit=1)[0]
    return text


def end_tokens(model: LoadedModel) -> frozenset[int]:
    """The tokens after which the model says no more: those of its generation config, and the tokenizer's."""
    config: Any = model.module.generation_config
    named = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return frozenset(int(token) for token in (*named, model.tokenizer.eos_token_id) if token is not None)
