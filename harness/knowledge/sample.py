"""What suites do alike with their items: a stable sample of them, and what guessing would score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.core.digest import digest_text
from harness.core.errors import ConfigError
from harness.core.records import Item


def sample(items: Sequence[Item], limit: int | None, seed: str) -> tuple[Item, ...]:
    """At most ``limit`` items, the same ones whatever else there is, in their own order. ``seed`` is the suite's.

    >>> items = [Item(name, "g", "[Y]", ("a",), (0,)) for name in "pqrst"]
    >>> [item.id for item in sample(items, 2, "s")] == [item.id for item in sample(items[::-1], 2, "s")][::-1]
    True
    """
    if limit is None:
        return tuple(items)
    if limit < 1:
        raise ConfigError(f"limit {limit} asks for no items: expected 1 or more, or no limit.")
    drawn = set(sorted((item.id for item in items), key=lambda name: digest_text(f"{seed}\0sample\0{name}"))[:limit])
    return tuple(item for item in items if item.id in drawn)


def chance_share(items: Sequence[Item]) -> float:
    """The mean share of right options."""
    return sum(len(item.gold) / len(item.options) for item in items) / len(items)


def reasons(excluded: Mapping[str, int]) -> str:
    """What was left out, for a sentence.

    >>> reasons({"facts outside the fixed sample": 3, "documents without options": 0, "facts without a sentence": 1})
    'facts outside the fixed sample: 3, facts without a sentence: 1'
    """
    return ", ".join(f"{reason}: {n}" for reason, n in excluded.items() if n)
