"""Knowledge tasks, one file a suite. A task knows its data without any model (``spec_digest``, ``probe_sentences``),
builds its items for a tokenizer, turns an item into requests and the requests' scores into an outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from harness.core.records import Item, ItemOutcome, TaskInfo
from harness.core.shelf import Shelf
from harness.scoring import Request, Score, Tokenizer

KNOWLEDGE = Shelf(
    "knowledge",
    {
        "facts": "harness.knowledge.facts:Facts",
        "facts_blank": "harness.knowledge.facts:FactsBlank",
    },
)


class KnowledgeTask(Protocol):
    """The contract of the shelf; entries are constructed with ``limit: int | None`` (a stable sample by digest)."""

    name: str
    keeps_option_scores: bool
    """Whether records keep the per-option log-likelihoods (no, where the options are a vocabulary)."""

    def spec_digest(self) -> str:
        """The digest of everything the items are made from but the tokenizer and the limit; computed without torch."""

    def probe_sentences(self) -> Iterable[str]:
        """The right sentences, for the n-gram check of calibration and training text."""

    def build(self, tokenizer: Tokenizer) -> tuple[TaskInfo, tuple[Item, ...]]:
        """The items in the task's own document order, and what the task asks."""

    def requests(self, item: Item) -> tuple[Request, ...]:
        """What to score for an item: one request an option, in the options' order."""

    def outcome(self, item: Item, scores: Sequence[Score]) -> ItemOutcome:
        """The outcome of an item from its requests' scores. Raises ScoreError for a NaN or infinite score."""
