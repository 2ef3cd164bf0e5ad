"""How far a model sees, and how it turns positions, as its config says: what a short probe can't find out."""

from __future__ import annotations

from typing import Any

_WINDOW_KEYS = (
    "sliding_window",
    "attention_chunk_size",
    "window_size",
    "keep_window_size",
    "local_attention",
    "attention_window_size",
    "index_topk",  # attention to the k places that fit best: all of them up to k
)

_ROPE_BY_BATCH = ("dynamic", "longrope")


def deepest_path(config: Any) -> int | None:
    """How long a path may be before a window would cut it, whose working a mask of ours does not know. None: as long as the
    model's window.

    >>> from transformers import MistralConfig
    >>> deepest_path(MistralConfig(sliding_window=32)), deepest_path(MistralConfig(sliding_window=None))
    (32, None)
    """
    told = [getattr(part, key, None) for part in _parts(config) for key in _WINDOW_KEYS]
    limits = [limit for value in told for limit in (value if isinstance(value, list | tuple) else [value])]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def rope_by_batch(config: Any) -> bool:
    """Whether a row's positions are turned by how long the longest row of its batch is: such rows are fed one at a time."""
    return any(kind in _ROPE_BY_BATCH for part in _parts(config) for kind in _kinds(getattr(part, "rope_parameters", None)))


def _parts(config: Any) -> list[Any]:
    """A config and that of its language model, where a model of texts and images has one of its own."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return [config] if text is config else [config, text]


def _kinds(rope: Any) -> list[Any]:
    """The kinds of rotary scaling: one, or one for each kind of layer."""
    if not isinstance(rope, dict):
        return []
    return [rope.get("rope_type"), *(kind for value in rope.values() for kind in _kinds(value))]
