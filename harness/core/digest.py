"""Content digests: of JSON-like values, of files, of streams. SHA-256 in lower-case hex, always."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20

_PLACES_KEPT = 32
"""Sequences of digests whose places are remembered: about as many as a cell has tasks."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON (sorted keys, no spaces, UTF-8, NaN refused).

    >>> digest_json({"b": 1, "a": [2, 3]}) == digest_json({"a": [2, 3], "b": 1})
    True
    """
    return digest_text(_CANONICAL.encode(value))


def digest_text(text: str) -> str:
    """The SHA-256 of a text's UTF-8 bytes.

    >>> digest_text("")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def digest_file(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def digest_sequence(digests: Iterable[str]) -> str:
    """One digest for an ordered sequence of digests.

    >>> digest_sequence(["a", "b"]) == digest_sequence(["b", "a"])
    False
    """
    state = hashlib.sha256()
    for digest in digests:
        state.update(digest.encode())
        state.update(b"\n")
    return state.hexdigest()


def digest_named(parts: Mapping[str, str]) -> str:
    """One digest for a mapping of names to digests, whatever its order (the weights of a model, a folder's files)."""
    return digest_sequence(f"{name}\0{parts[name]}" for name in sorted(parts))


@lru_cache(maxsize=_PLACES_KEPT)
def places_of(digests: tuple[str, ...]) -> Mapping[str, int]:
    """Where each digest stands in a sequence; the last place of one that stands there twice. Not to be written to.

    Remembered, because all cells of a run are joined with records of the same items in the same order.

    >>> places_of(("a", "b"))
    {'a': 0, 'b': 1}
    """
    return {digest: index for index, digest in enumerate(digests)}
