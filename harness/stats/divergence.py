"""How far apart two models stand on multiple choice, whether an answer flips or not."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def option_kl(
    before_nats: Float[np.ndarray, " options"], now_nats: Float[np.ndarray, " options"], ends: Int[np.ndarray, " items"]
) -> Float[np.ndarray, " items"]:
    """KL(before || now) of each item in nats, 0 or more: the Kullback-Leibler divergence of the softmax over its options.

    The options of all items stand one after the other; those of item i are ``[ends[i - 1]:ends[i]]``, one at least. One option
    alone gives 0. Raises ValueError for scores that do not belong together, or are not finite.

    >>> option_kl(np.log([0.5, 0.5, 1.0]), np.log([0.25, 0.75, 1.0]), np.array([2, 3])).round(4).tolist()
    [0.1438, 0.0]
    """
    n_options = np.diff(ends, prepend=0)
    if before_nats.shape != now_nats.shape or len(before_nats) != n_options.sum() or (n_options < 1).any():
        raise ValueError(
            f"{len(before_nats)} and {len(now_nats)} scores are not those of {len(ends)} items with an option each"
        )
    if not (np.isfinite(before_nats).all() and np.isfinite(now_nats).all()):
        raise ValueError("a score is NaN or infinite")
    if not len(ends):
        return np.zeros(0)
    starts = ends - n_options
    before, now = (_log_softmax(scores, starts, n_options) for scores in (before_nats, now_nats))
    return np.maximum(np.add.reduceat(np.exp(before) * (before - now), starts), 0.0)


def _log_softmax(
    scores: Float[np.ndarray, " options"], starts: Int[np.ndarray, " items"], n_options: Int[np.ndarray, " items"]
) -> Float[np.ndarray, " options"]:
    shifted = scores - np.repeat(np.maximum.reduceat(scores, starts), n_options)
    made: Float[np.ndarray, " options"] = shifted - np.repeat(np.log(np.add.reduceat(np.exp(shifted), starts)), n_options)
    return made
