"""One task on one candidate, fed in rounds: what is stored, or is the baseline's own, costs no forward pass.

Items go in an order that depends on the candidate's weights and on nothing that anyone chose, so that what a gate has seen
by the end of a round is a random sample of the task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from harness.core.digest import digest_text
from harness.core.records import Item, ItemOutcome, Origin, Outcomes, TaskInfo, TaskRun
from harness.execution.store import Circumstances, Store, StoredResult
from harness.knowledge import KnowledgeTask
from harness.scoring import Answer, Question
from harness.stats.sequential import round_ends

ORDER = "sha256 rounds/1"
"""Part of every result's key: blocks are rounds of this order."""

Ask = Callable[[Sequence[Sequence[Question]]], Sequence[Sequence[Answer]]]
"""From the requests of some items to the answers."""


def fed_order(items: Sequence[Item], weights_digest: str, task: str) -> tuple[Item, ...]:
    """The items by SHA-256 of weights, task and item: fixed for one candidate, another one for every other."""
    return tuple(sorted(items, key=lambda item: digest_text(f"{weights_digest}\0{task}\0{item.digest}")))


@dataclass(slots=True)
class TaskFeed:
    """A task while it is measured. ``items`` are in the order in which they are fed; ``parts`` are the rounds' outcomes."""

    cell: str
    key: str
    task: KnowledgeTask
    scorer: str
    info: TaskInfo
    items: tuple[Item, ...]
    circumstances: Circumstances
    origin: Origin = "stored"
    parts: list[Outcomes] = field(default_factory=list)

    @classmethod
    def finished(
        cls, result: StoredResult, *, cell: str, key: str, task: KnowledgeTask, scorer: str, origin: Origin
    ) -> TaskFeed:
        """A task that needs no feeding: its result is known."""
        by_digest = {item.digest: item for item in result.items}
        items = tuple(by_digest[digest] for digest in result.outcomes.digests)
        return cls(cell, key, task, scorer, result.info, items, result.circumstances, origin, [result.outcomes])

    @property
    def n_fed(self) -> int:
        """How many items have outcomes."""
        return sum(map(len, self.parts))

    @property
    def is_complete(self) -> bool:
        """Whether every item has its outcome."""
        return self.n_fed == len(self.items)

    def feed(self, round_index: int, store: Store, make_ask: Callable[[KnowledgeTask], Ask]) -> None:
        """Add a round's outcomes, from the store or by asking; ``make_ask`` is called only where something is asked."""
        block = self.items[self.n_fed : round_ends(len(self.items))[round_index]]
        if not block:
            return
        digests = tuple(item.digest for item in block)
        outcomes = store.find_block(self.key, round_index, digests)
        if outcomes is None:
            started_s = time.perf_counter()
            answers = make_ask(self.task)([self.task.requests(item) for item in block])
            rows: list[ItemOutcome] = [self.task.outcome(item, found) for item, found in zip(block, answers, strict=True)]
            outcomes = Outcomes.of(digests, rows)
            if not self.task.keeps_option_scores:
                outcomes = replace(outcomes, option_logliks_nats=None)
            wall_s = self.circumstances.wall_s + time.perf_counter() - started_s
            self.origin, self.circumstances = "measured", replace(self.circumstances, wall_s=wall_s)
            store.put_block(self.key, round_index, outcomes)
        self.parts.append(outcomes)

    def keep(self, store: Store) -> None:
        """Store a complete result; its blocks are then no longer needed."""
        store.put_result(self.key, StoredResult(self.info, self.items, self.outcomes, self.circumstances), self.scorer)

    @property
    def outcomes(self) -> Outcomes:
        """What came so far."""
        return Outcomes.concatenate(self.parts) if self.parts else Outcomes.of((), [])

    def task_run(self) -> TaskRun:
        """The task as far as it was fed."""
        items = self.items[: self.n_fed]
        return TaskRun(self.cell, self.info, items, self.outcomes, self.scorer, self.origin)
