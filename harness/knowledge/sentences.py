"""Which facts a model can be asked as whole sentences, and, counted, why the others can't.

An item is left out whole when one of its answers can't be asked: the answers of a closed set are ranked together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from harness.core.records import Item
from harness.knowledge.words import encode_all
from harness.scoring import Request
from harness.scoring.gap import as_read

SPECIAL_TOKENS = 2
"""What a tokenizer puts around a sentence, at most."""

BEYOND_WINDOW = "sentences longer than this model's window"


def askable_sentences(
    items: Sequence[Item],
    ask: Callable[[Item], Sequence[Request]],
    tokenizer: Any,
    excluded: Counter[str],
    *,
    takes_out: bool,
    merged: str,
) -> list[Item]:
    """The items whose every sentence fits into the window, with the special tokens around it; ``excluded`` counts the others.

    ``ask`` puts each option into an item's prompt, ``[Y]``. ``takes_out``: the model reads the sentence without its answer
    (T5), so an item with an answer that would share a token with the words around it is left out, too, under the reason
    ``merged``. Raises ScoreError where such an answer has no tokens.
    """
    kept = []
    for item, is_near in zip(items, _are_near(items, ask, tokenizer), strict=True):
        may_join = takes_out and (is_near or _touches(item.prompt))
        group = as_read(ask(item), tokenizer) if may_join else ask(item)
        if is_near and max(_lengths(group or ask(item), tokenizer)) > window_of(tokenizer):
            excluded[BEYOND_WINDOW] += 1
        elif group is None:
            excluded[merged] += 1
        else:
            kept.append(item)
    return kept


def window_of(tokenizer: Any) -> float:
    """How many tokens a tokenizer says that its model takes."""
    return float(getattr(tokenizer, "model_max_length", math.inf))


def _are_near(items: Sequence[Item], ask: Callable[[Item], Sequence[Request]], tokenizer: Any) -> list[bool]:
    """Whether every sentence of an item must be held against the window.

    Where the one with the answer of most tokens fills less than half of it there is no need: what tokens do at the answer's
    ends can't double a sentence.
    """
    window = window_of(tokenizer)
    longest = {options: _longest(tokenizer, options) for options in {item.options for item in items}}
    lengths = _lengths([ask(item)[longest[item.options]] for item in items], tokenizer)
    return [2 * length > window for length in lengths]


def _lengths(requests: Sequence[Request], tokenizer: Any) -> list[int]:
    """The tokens of each whole sentence, the special ones among them."""
    texts = [request.context + request.continuation + request.after for request in requests]
    return [len(ids) + SPECIAL_TOKENS for ids in encode_all(tokenizer, texts)]


def _longest(tokenizer: Any, options: Sequence[str]) -> int:
    """Where the option of most tokens stands."""
    lengths = [len(ids) for ids in encode_all(tokenizer, [f" {option}" for option in options])]
    return lengths.index(max(lengths))


def _touches(prompt: str) -> bool:
    """Whether the blank stands behind a character that is no space: no tokenizer joins words across one.

    >>> [_touches(prompt) for prompt in ("[X] is in[Y].", "[X] is in [Y].", "[Y] holds [X].")]
    [True, False, False]
    """
    return not prompt.partition("[Y]")[0].endswith((" ", "\t", "\n")) and not prompt.startswith("[Y]")
