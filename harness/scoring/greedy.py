"""Greedy generation of many prompts side by side: a row that ends leaves, and a prompt that waits takes its place.

What prompts begin with is fed once. A forward pass feeds one token of each running row and the prompts of those that enter,
in one line without padding. A row reads its own tokens and the shared ones only: its neighbours change nothing but rounding.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues
from harness.scoring.encode import Encoded
from harness.scoring.memory import Halving, is_out_of_memory
from harness.scoring.products import inferring
from harness.scoring.rooted import body, keep
from harness.scoring.slots import Slots, Step, Stretch, attending
from harness.scoring.stems import Stem, find_stems
from harness.scoring.stops import StopStrings
from harness.scoring.tree import head
from harness.scoring.trie import make_tries

STEP_TOKENS = 1024
"""Tokens of a forward pass: prompts enter as long as they fit beside the running rows."""

MOST_ROWS = 32
"""Rows that run side by side: more would cost as much more time as they make tokens."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt as tokens, where its text ends, and how many tokens may be made at most."""

    tokens: tuple[int, ...]
    stops: StopStrings
    max_new_tokens: int


@dataclass(slots=True)
class _Row:
    """A running row: which prompt it is, its own part of it, and what was made."""

    position: int
    own: tuple[int, ...]
    made: list[int] = field(default_factory=list)

    @property
    def n_kept(self) -> int:
        """How many own tokens have their keys and values in the slot: the last one that was made is fed next."""
        return len(self.own) + len(self.made) - 1 if self.made else 0

    def stretch(self, slot: int) -> Stretch:
        """What is fed next."""
        return Stretch(slot, self.n_kept, (self.made[-1],) if self.made else self.own)


class GreedyEngine:
    """Generates with a decoder whose attention can be set. Only valid where it was found to agree with the plain path.

    ``root``: keys and values that stand before every prompt; positions count on from them, and they must fit into the model's
    window beside a prompt and what is made. ``windows``: how far each layer that was run looks back (None: all the way).
    ``watch`` gets each position and its next-token scores [vocabulary], before any penalty.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        ends: frozenset[int],
        cache_tokens: int,
        step_tokens: int = STEP_TOKENS,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self.model = model
        self.windows: dict[int, int | None] = {}
        self._softcaps = False
        self.tokens_fed = 0
        self._ends, self._cache_tokens, self._step_tokens, self._most_rows = ends, cache_tokens, step_tokens, most_rows
        self._halving = Halving()
        config: Any = model.module.generation_config
        penalty = config.repetition_penalty
        self._penalty = RepetitionPenaltyLogitsProcessor(float(penalty)) if penalty not in (None, 1.0) else None
        with torch.inference_mode():
            self._like = _one_token(model)

    def generate(
        self,
        asks: Sequence[Ask],
        stems: Sequence[Stem],
        *,
        root: KeysValues | None = None,
        done: Callable[[int], None] | None = None,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> list[list[int]]:
        """The tokens made for each prompt, in order, the last of a stop string or an end token among them."""
        made: dict[int, list[int]] = {}
        with inferring(self.model), attending(self.model.module) as softcaps:
            self._softcaps = softcaps
            for stem in stems:
                before = self._keep(stem.tokens, root) if stem.tokens else root
                for row in self._run(asks, stem, before, watch):
                    made[row.position] = row.made
                    if done:
                        done(row.position)
        return [made[position] for position in range(len(asks))]

    def _keep(self, tokens: tuple[int, ...], root: KeysValues | None) -> KeysValues:
        """Feed what several prompts begin with, after the root, for its keys and values."""
        slots = Slots(1, len(tokens), root, self._like)
        self._feed(slots, [Stretch(0, 0, tokens)])
        return slots.kept(len(tokens))

    def _run(
        self, asks: Sequence[Ask], stem: Stem, before: KeysValues | None, watch: Callable[[int, Tensor], None] | None
    ) -> Iterator[_Row]:
        """The rows of one stem as they end."""
        rest = {position: asks[position].tokens[len(stem.tokens) :] for position in stem.members}
        # the last token that is made is never fed
        most = {position: len(tokens) + asks[position].max_new_tokens - 1 for position, tokens in rest.items()}
        waiting = deque(sorted(stem.members, key=lambda position: (-most[position], position)))
        slots = self._make_slots(len(waiting), max(most.values()), before)
        running: list[_Row] = []
        while waiting or running:
            n_fed, n_ran = len(running), len(running)
            while waiting and len(running) < slots.n_rows:
                n_fed += len(rest[waiting[0]])
                if n_fed > self._step_tokens and len(running) > n_ran:
                    break  # the first one always enters
                running.append(_Row(waiting[0], rest[waiting.popleft()]))
            feed = [(row, row.stretch(slot)) for slot, row in enumerate(running)]
            tokens = self._halving.feed(feed, _n_tokens, partial(self._next, slots, asks, watch))
            for row, token in zip(running, tokens, strict=True):
                row.made.append(token)
            for slot in reversed(range(len(running))):
                row = running[slot]
                if not self._ends_now(row, asks[row.position]):
                    continue
                yield row
                last = running.pop()
                if slot < len(running):  # the slots of running rows stay side by side
                    slots.move(len(running), slot, last.n_kept)
                    running[slot] = last

    def _ends_now(self, row: _Row, ask: Ask) -> bool:
        return row.made[-1] in self._ends or len(row.made) == ask.max_new_tokens or ask.stops.appear(row.made)

    def _next(
        self,
        slots: Slots,
        asks: Sequence[Ask],
        watch: Callable[[int, Tensor], None] | None,
        feed: Sequence[tuple[_Row, Stretch]],
    ) -> list[int]:
        """The likeliest next token of each row."""
        scores = head(self.model, self._feed(slots, [stretch for _, stretch in feed])).float()
        for (row, _), of_row in zip(feed, scores, strict=True):
            if watch:
                watch(row.position, of_row)
            if self._penalty:
                seen = torch.tensor([[*asks[row.position].tokens, *row.made]], device=scores.device)
                of_row.copy_(self._penalty(seen, of_row[None])[0])
        likeliest: list[int] = scores.argmax(dim=-1).tolist()
        return likeliest

    def _feed(self, slots: Slots, stretches: Sequence[Stretch]) -> Tensor:
        """The last hidden state of each stretch, [stretches, hidden]."""
        step = Step(slots, stretches, softcaps=self._softcaps)
        out = body(self.model)(input_ids=step.ids, position_ids=step.positions, use_cache=False, slots=step)
        if len(step.windows) != len(slots.own):
            raise ValueError("this architecture has layers without the attention that was set")
        self.windows = step.windows
        self.tokens_fed += step.ids.numel()
        states: Tensor = out.last_hidden_state
        return states[0, step.last]

    def _make_slots(self, n_rows: int, width: int, before: KeysValues | None) -> Slots:
        """Slots for as many rows as may run side by side, fewer where the memory has no room for them."""
        n_rows = max(1, min(n_rows, self._most_rows, self._cache_tokens // width))
        while True:
            try:
                return Slots(n_rows, width, before, self._like)
            except RuntimeError as error:
                if n_rows == 1 or not is_out_of_memory(error):
                    raise
            n_rows //= 2
            log.warning(
                "the memory has no room for more than %s rows of %s tokens: fewer run side by side", n_rows, f"{width:,}"
            )


def find_beginnings(prompts: Sequence[Sequence[int]], shortest: int) -> list[Stem]:
    """The prompts parted by what they begin with, which is fed once; each keeps its last token for itself.

    >>> find_beginnings([(7, 8, 1), (7, 8, 2, 3), (9,)], shortest=2)
    [Stem(tokens=(7, 8), members=(0, 1)), Stem(tokens=(), members=(2,))]
    """
    paths = [Encoded((*tokens, 0), 1) for tokens in prompts]
    return find_stems([make_tries(i, [path], max_nodes=len(path.tokens))[0] for i, path in enumerate(paths)], shortest)


def _n_tokens(feed: Sequence[tuple[_Row, Stretch]]) -> int:
    return sum(len(stretch.tokens) for _, stretch in feed)


def _one_token(model: LoadedModel) -> KeysValues:
    """What a layer keeps of a token. Raises ValueError for a model that keeps other things than keys and values."""
    return keep(body(model), [0], None, model.device)
