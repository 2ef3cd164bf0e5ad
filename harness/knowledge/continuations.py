"""Which documents a model can be asked as continuations or rolling texts, and, counted, why the others can't.

Few are in doubt, and only those are tokenized: a continuation that may be longer than the window, one of signs and spaces
only, which a tokenizer may drop, one without a space before it, which it may join with its context, and one without context,
which may be the token that an empty context stands for. Spaces at a context's end are scored with the continuation, and count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from harness.core.records import Item
from harness.knowledge.sentences import window_of
from harness.scoring import Request
from harness.scoring.encode import move_spaces
from harness.scoring.lengths import scored_lengths

NO_TOKENS = "documents with an option or text that has no tokens of its own for this model"
BEYOND_WINDOW = "documents with an option longer than this model's window"

_MOST_TOKENS = 4
"""Of a character, in all likelihood: one of four bytes may take a token a byte."""

_AT_ONCE = 512
"""Items whose tokens are held at once: with examples they are long."""


def askable_documents(
    items: Sequence[Item],
    ask: Callable[[Item], Sequence[Request]],
    tokenizer: Any,
    excluded: Counter[str],
    *,
    family: str | None,
) -> list[Item]:
    """The items whose every request can be scored; ``excluded`` counts the others. ``tokenizer`` tells the window as its
    ``model_max_length``. A context that is too long is cut by the scorer, and leaves nothing out."""
    window = window_of(tokenizer)
    kept: list[Item] = []
    for start in range(0, len(items), _AT_ONCE):
        some = items[start : start + _AT_ONCE]
        doubtful = [[request for request in ask(item) if _is_doubtful(request, window)] for item in some]
        flat = [request for requests in doubtful for request in requests]
        lengths = iter(scored_lengths(flat, tokenizer, family) if flat else [])
        for item, requests in zip(some, doubtful, strict=True):
            n_tokens = [next(lengths) for _ in requests]
            longest = max((n for n, one in zip(n_tokens, requests, strict=True) if one.reading != "rolling"), default=0)
            if 0 in n_tokens:
                excluded[NO_TOKENS] += 1
            elif longest > window:
                excluded[BEYOND_WINDOW] += 1
            else:
                kept.append(item)
    return kept


def _is_doubtful(request: Request, window: float) -> bool:
    """
    >>> [_is_doubtful(Request("It is", text), 8) for text in (" a", " ?", "a", " in Riga")]
    [False, True, True, True]
    """
    if request.reading == "rolling":
        return not any(map(str.isalnum, request.continuation))
    context, text = move_spaces(request)
    touches = not context or not text[:1].isspace()
    return touches or not any(map(str.isalnum, text)) or _MOST_TOKENS * len(text) > window
