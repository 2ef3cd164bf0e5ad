"""Knowledge tasks, one file a suite. A task knows its data without any model (``spec_digest``, ``probe_sentences``),
builds its items for a tokenizer, turns an item into requests and the requests' scores into an outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from harness.core.records import Item, ItemOutcome, TaskInfo
from harness.core.shelf import Shelf
from harness.scoring import NEAR_TIE_NATS, Answer, Question, TaskKind, Tokenizer

KNOWLEDGE = Shelf(
    "knowledge",
    {
        "bear": "harness.knowledge.bear:Bear",
        "facts": "harness.knowledge.facts:Facts",
        "facts_blank": "harness.knowledge.facts:FactsBlank",
        "lama": "harness.knowledge.lama:Lama",
        "lm_eval": "harness.knowledge.lm_eval:LmEval",
    },
)

ITEMS = "items/2"
"""Part of every stored result's key: another number where tasks leave out or make other items of the same data than before. A
task's ``spec_digest`` stays, and with it the baselines whose items are the same."""


class KnowledgeTask(Protocol):
    """The contract of the shelf; entries are constructed with ``limit: int | None`` (a stable sample by digest), and with
    ``data: Path | None`` (the offline mirror) and ``family: str | None`` (the model's) where they have such a field."""

    name: str
    keeps_option_scores: bool
    """Whether records keep the per-option log-likelihoods (no, where the options are a vocabulary)."""

    clusters: bool
    """Whether the items' groups stand for others like them, as LAMA's relations do, and not for themselves (fixed strata). The
    matrix's entry may say otherwise."""

    probe_words: int
    """How many words of a probe sentence make an overlap (``core.probes``)."""

    @property
    def kind(self) -> TaskKind:
        """What the task asks of a model; one of a family that can't give it is refused before anything is measured."""

    def spec_digest(self) -> str:
        """The digest of everything the items are made from but the tokenizer and the limit; computed without torch."""

    def probe_sentences(self) -> Iterable[str]:
        """The right sentences, for the n-gram check of calibration and training text."""

    def build(self, tokenizer: Tokenizer) -> tuple[TaskInfo, tuple[Item, ...]]:
        """The items in the task's own document order, and what the task asks."""

    def requests(self, item: Item) -> Sequence[Question]:
        """What to ask for an item that ``build`` gave: requests, prompts (kind "generation") or blanks ("ranking")."""

    def outcome(self, item: Item, answers: Sequence[Answer], *, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
        """The outcome of an item from the answers to its requests, flagged as a near-tie where sums of log-likelihoods that
        differ by less than ``near_tie_nats`` decide. Raises ScoreError for a NaN or infinite score."""
