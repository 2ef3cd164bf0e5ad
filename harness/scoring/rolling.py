"""A text of its own, longer than a model may be: cut into windows by lm-eval's convention to the letter
(``lm_eval.utils.get_rolling_token_windows`` with one token of context, made disjoint; 0.4.13).

Every token is scored once. The first window starts after the prefix token. Each later one is full: it sees the one token
before those that it scores, and the last one, which may have few to score, as many before them as there is room for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.core.errors import ScoreError
from harness.scoring import Request
from harness.scoring.encode import Encoded, Reader, encode_groups


def encode_pieces(groups: Sequence[Sequence[Request]], model: Reader, window: int) -> list[list[list[Encoded]]]:
    """What is fed for each request: one piece, or the windows of a rolling text. Raises ScoreError as ``encode_groups`` does,
    and for a rolling text without tokens."""
    others = [[request for request in group if request.reading != "rolling"] for group in groups]
    made = [iter(group) for group in encode_groups(others, model, window)]
    return [
        [_windows_of(request, model, window) if request.reading == "rolling" else [next(made[g])] for request in group]
        for g, group in enumerate(groups)
    ]


def cut_windows(tokens: Sequence[int], prefix: int, window: int) -> Iterator[Encoded]:
    """Tokens as windows of at most ``window`` fed tokens, each token scored once.

    >>> [(piece.tokens, piece.n_scored) for piece in cut_windows([1, 2, 3, 4, 5], prefix=0, window=3)]
    [((0, 1, 2, 3), 3), ((2, 3, 4, 5), 2)]
    """
    for start in range(0, len(tokens), window):
        end = min(start + window, len(tokens))
        before = [prefix] if start == 0 else list(tokens[max(0, end - window - 1) : start])
        yield Encoded((*before, *tokens[start:end]), end - start)


def tokens_of(request: Request, model: Reader) -> list[int]:
    """All tokens of a rolling text, each of which is scored once."""
    text = request.continuation
    special = not text.startswith(model.tokenizer.decode(model.prefix_token_id))
    tokens: list[int] = model.tokenizer.encode(text, add_special_tokens=special, verbose=False)
    return tokens


def _windows_of(request: Request, model: Reader, window: int) -> list[Encoded]:
    tokens = tokens_of(request, model)
    if not tokens:
        raise ScoreError(
            f"the text {request.continuation[:60]!r}, to be scored in windows, has no tokens: expected at least one; leave "
            "the item out."
        )
    return list(cut_windows(tokens, model.prefix_token_id, window))
