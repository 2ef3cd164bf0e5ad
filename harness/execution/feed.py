"""One task on one candidate, fed in rounds: what is stored, or is the baseline's own, costs no forward pass.

Items go in an order that depends on the candidate's weights and on nothing that anyone chose, so that what a gate has seen
by the end of a round is a random sample of the task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from harness.core.answer_block import BlockAbout, Circumstances
from harness.core.digest import digest_text
from harness.core.errors import ConfigError, ScoreError
from harness.core.outcomes import Outcomes
from harness.core.records import Item, ItemOutcome, Origin, TaskInfo, TaskRun
from harness.execution.answers import Answers, Ask, Place
from harness.execution.store import Store, StoredResult
from harness.knowledge import KnowledgeTask
from harness.scoring import Answer, is_cut, near_tie_nats
from harness.stats.sequential import round_ends

ORDER = "sha256 rounds/2"
"""Part of every result's key."""


def fed_order(items: Sequence[Item], weights_digest: str) -> tuple[Item, ...]:
    """The items by SHA-256 of weights and item: fixed for one candidate, another one for every other.

    No task's name enters: tasks that ask the same items ask them in the same rounds, and so with the same neighbours.
    """
    return tuple(sorted(items, key=lambda item: digest_text(f"{weights_digest}\0{item.digest}")))


@dataclass(slots=True)
class TaskFeed:
    """A task while it is measured. ``items`` are in the order in which they are fed; ``parts`` are the rounds' outcomes.

    ``answers`` are those of its scope, None only where the outcomes are known already; ``now`` are the circumstances of what
    is asked in this run, or those of the known outcomes.
    """

    cell: str
    key: str
    task: KnowledgeTask
    scorer: str
    info: TaskInfo
    items: tuple[Item, ...]
    now: Circumstances
    answers: Answers | None = None
    origin: Origin = "stored"
    parts: list[Outcomes] = field(default_factory=list)
    _used: set[Place] = field(default_factory=set)
    _n_used: Counter[int] = field(default_factory=Counter)

    @classmethod
    def finished(
        cls, result: StoredResult, *, cell: str, key: str, task: KnowledgeTask, scorer: str, origin: Origin
    ) -> TaskFeed:
        """A task that needs no feeding: its result is known."""
        by_digest = {item.digest: item for item in result.items}
        items = tuple(by_digest[digest] for digest in result.outcomes.digests)
        return cls(cell, key, task, scorer, result.info, items, result.circumstances, None, origin, [result.outcomes])

    @property
    def n_fed(self) -> int:
        """How many items have outcomes."""
        return sum(map(len, self.parts))

    @property
    def circumstances(self) -> Circumstances:
        """When, and in how much time, the answers that it used were measured."""
        return self.now if self.answers is None or not self._n_used else self.answers.circumstances(self._n_used)

    @property
    def is_complete(self) -> bool:
        """Whether every item has its outcome."""
        return self.n_fed == len(self.items)

    def feed(self, round_index: int, make_ask: Callable[[KnowledgeTask], Ask]) -> None:
        """Add a round's outcomes. The model is asked, and ``make_ask`` called, only where an answer is not stored."""
        block = self.items[self.n_fed : round_ends(len(self.items))[round_index]]
        if not block or self.answers is None:
            return
        about = BlockAbout(self.answers.folder.name, self.cell, self.scorer, self.now)
        asked = [self.task.requests(item) for item in block]
        with self._named():
            answers, places, n_asked = self.answers.answer(asked, lambda: make_ask(self.task), about)
            noise_nats = near_tie_nats(self.now.engine["dtype"])
            rows: list[ItemOutcome] = [
                replace(self.task.outcome(item, found, near_tie_nats=noise_nats), is_cut=any(map(is_cut, found)))
                for item, found in zip(block, answers, strict=True)
            ]
        outcomes = Outcomes.of(tuple(item.digest for item in block), rows)
        if not self.task.keeps_option_scores:
            outcomes = replace(outcomes, option_logliks_nats=None)
        outcomes = replace(outcomes, choices=_choices(answers))
        self.parts.append(outcomes)
        self._n_used.update(index for index, _ in places - self._used)
        self._used |= places
        if n_asked:
            self.origin = "measured"

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Around asking: a cell's engines know of requests only, so that an error needs the name of its task."""
        try:
            yield
        except (ConfigError, ScoreError) as error:
            kind = ScoreError if isinstance(error, ScoreError) else ConfigError
            raise kind(f"{self.info.name}: {error}") from error

    def keep(self, store: Store) -> None:
        """Store a complete result."""
        store.put_result(self.key, StoredResult(self.info, self.items, self.outcomes, self.circumstances), self.scorer)

    @property
    def outcomes(self) -> Outcomes:
        """What came so far."""
        return Outcomes.concatenate(self.parts) if self.parts else Outcomes.of((), [])

    def task_run(self) -> TaskRun:
        """The task as far as it was fed."""
        items = self.items[: self.n_fed]
        return TaskRun(self.cell, self.info, items, self.outcomes, self.scorer, self.origin)


def _choices(answers: Sequence[Sequence[Answer]]) -> tuple[tuple[int, ...], ...] | None:
    """Which prompt each item's requests were asked behind, told once where it was the same; None where none was chosen."""
    rows: list[tuple[int, ...]] = []
    for found in answers:
        roots = [answer.root for answer in found if answer.root is not None]
        if len(roots) < len(found) or not roots:
            return None
        rows.append((roots[0],) if len(set(roots)) == 1 else tuple(roots))
    return tuple(rows)
