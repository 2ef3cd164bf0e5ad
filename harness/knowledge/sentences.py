"""Which facts a model can be asked as whole sentences, and, counted, why the others can't.

An item is left out whole when one of its answers can't be asked: the answers of a closed set are ranked together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
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

    ``ask`` puts each of an item's options into its prompt's ``[Y]``. ``takes_out``: the model reads
    the sentence without its answer (T5), so an item with an answer that would share a token with the words around it is left
    out, too, under the reason ``merged``. Raises ScoreError where such an answer has no tokens.
    """
    kept = []
    window = window_of(tokenizer)
    for item, length in zip(items, _longest_lengths(items, ask, tokenizer), strict=True):
        # Below half of the window no other answer's sentence reaches beyond it: what tokens do at its ends can't double it.
        is_near = 2 * length > window
        looks = takes_out and (is_near or _touches(item.prompt))
        read = as_read(ask(item), tokenizer) if looks and length <= window else None
        if length > window or (is_near and max(_lengths(read or ask(item), tokenizer)) > window):
            excluded[BEYOND_WINDOW] += 1
        elif looks and read is None:
            excluded[merged] += 1
        else:
            kept.append(item)
    return kept


def window_of(tokenizer: Any) -> float:
    """How many tokens a tokenizer says that its model takes."""
    return float(getattr(tokenizer, "model_max_length", math.inf))


def _longest_lengths(items: Sequence[Item], ask: Callable[[Item], Sequence[Request]], tokenizer: Any) -> list[int]:
    """The tokens of each item's sentence with the answer that has most of them by itself."""
    sets = {
        id(item.options): item.options for item in items
    }  # those of a relation are one object: thousands are looked at once
    answers = list({option: None for options in sets.values() for option in options})
    n_tokens = dict(zip(answers, map(len, encode_all(tokenizer, [f" {answer}" for answer in answers])), strict=True))
    longest = {key: max(options, key=lambda one: n_tokens[one]) for key, options in sets.items()}
    one_each = [ask(replace(item, options=(longest[id(item.options)],), gold=(0,)))[0] for item in items]
    return _lengths(one_each, tokenizer)


def _lengths(requests: Sequence[Request], tokenizer: Any) -> list[int]:
    """The tokens of each whole sentence, the special ones among them."""
    texts = [request.context + request.continuation + request.after for request in requests]
    return [len(ids) + SPECIAL_TOKENS for ids in encode_all(tokenizer, texts)]


def _touches(prompt: str) -> bool:
    """Whether the blank stands behind a character that is no space: no tokenizer joins words across one.

    >>> [_touches(prompt) for prompt in ("[X] is in[Y].", "[X] is in [Y].", "[Y] holds [X].")]
    [True, False, False]
    """
    return not prompt.partition("[Y]")[0].endswith((" ", "\t", "\n")) and not prompt.startswith("[Y]")
