"""The answers that a model gave, request by request: what was asked once of the same weights is never fed again, whichever
task asks it.

    <cache>/answers/<scope>/<SHA-256 of its bytes>.parquet      the answers that one round of a task needed and nobody had

A scope is the digest of everything that decides an answer but the request itself: weights, recovery, tokenizer, scorer,
engine. A block is written once, whole or not at all, and named by its own bytes, so that a truncated, edited or misplaced one
is found out when it is read, said, removed and never served. Whoever adds to a scope holds its lock.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.core.answer_block import KEY_BYTES, AnswerBlock, BlockAbout, Circumstances, Standings, from_bytes, to_bytes
from harness.core.errors import FileFormatError, ScoreError
from harness.core.serial import read_bytes, write_atomic
from harness.scoring import Answer, Blank, Generated, Prompt, Question, Score, Standing

log = logging.getLogger(__name__)

Group = Sequence[Question]
"""What one item asks."""

Place = tuple[int, int]
"""Where an answer lies: its block, and its row there."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A model made ready: ``answer`` goes from the requests of some items to the answers, ``path`` says by which way the model
    is fed ("packed", "plain", …; empty where its family has but one)."""

    answer: Callable[[Sequence[Group]], Sequence[Sequence[Answer]]]
    path: str = ""


@dataclass(slots=True)
class Answers:
    """The answers of one scope, in memory and in ``folder``, whose name is the scope's digest."""

    folder: Path
    blocks: list[AnswerBlock] = field(default_factory=list)
    _places: dict[bytes, Place] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Answers:
        """What is stored of a scope; broken blocks are said in the log and removed. To be called under the scope's lock."""
        made = cls(folder)
        for path in block_paths(folder):
            try:
                made._add(read_block(path))
            except FileFormatError as error:
                log.warning("stored answers are broken and are measured again: %s", error)
                path.unlink(missing_ok=True)
        if made.blocks:
            _note_use(folder)
        return made

    def drop(self) -> None:
        """Forget everything."""
        for path in block_paths(self.folder):
            path.unlink(missing_ok=True)
        self.blocks.clear()
        self._places.clear()

    def answer(
        self, groups: Sequence[Group], make_ask: Callable[[], Ask], about: BlockAbout
    ) -> tuple[list[list[Answer]], set[Place], int]:
        """The answers to each group's requests, where they lie, and how many requests were asked of the model.

        Only requests that nobody asked before are asked, each once and beside those of its group, and stored as one block;
        what is asked together so depends on the groups and on the answers already there. Raises ScoreError.
        """
        keys = [[request_key(request) for request in group] for group in groups]
        missing = self._missing(groups, keys)
        if missing:
            ask = make_ask()  # may load the model, which is no part of the answers' time
            started_s = time.perf_counter()
            answers = ask.answer([list(group.values()) for group in missing])
            wall_s, engine = time.perf_counter() - started_s, about.circumstances.engine
            fed = {**engine, "path": ask.path} if ask.path else engine
            circumstances = replace(about.circumstances, wall_s=wall_s, engine=fed)
            made = [answer for group in answers for answer in group]
            block = _block(replace(about, circumstances=circumstances), [key for group in missing for key in group], made)
            data = to_bytes(block)
            write_atomic(self.folder / f"{hashlib.sha256(data).hexdigest()}.parquet", data)
            self._add(block)
        places = [[self._places[key] for key in group] for group in keys]
        found = [[self._at(place) for place in group] for group in places]
        return found, {place for group in places for place in group}, sum(map(len, missing))

    def circumstances(self, n_used: Mapping[int, int]) -> Circumstances:
        """Those of so many answers of some blocks: the latest block's, with the answers' share of their blocks' time."""
        used = {index: self.blocks[index].about.circumstances for index in sorted(n_used)}
        wall_s = sum(then.wall_s * n_used[index] / len(self.blocks[index]) for index, then in used.items())
        return replace(max(used.values(), key=lambda then: then.measured_at), wall_s=wall_s)

    def _missing(self, groups: Sequence[Group], keys: Sequence[Sequence[bytes]]) -> list[dict[bytes, Question]]:
        seen: set[bytes] = set()
        missing = []
        for group, names in zip(groups, keys, strict=True):
            new = {
                name: request
                for name, request in zip(names, group, strict=True)
                if name not in self._places and name not in seen
            }
            seen.update(new)
            if new:
                missing.append(new)
        return missing

    def _add(self, block: AnswerBlock) -> None:
        for row, key in enumerate(block.keys):
            self._places.setdefault(key, (len(self.blocks), row))
        self.blocks.append(block)

    def _at(self, place: Place) -> Answer:
        index, row = place
        block = self.blocks[index]
        n_tokens, n_cut = block.n_tokens[row], block.n_cut[row]
        root = None if block.roots is None else block.roots[row]
        if block.texts is not None and block.are_ended is not None:
            return Generated(block.texts[row], n_tokens, block.are_ended[row], n_cut, root)
        if block.logliks_nats is not None and (ranked := block.standings) is not None:
            best, logliks = tuple(ranked.best[row]), tuple(ranked.best_logliks_nats[row])
            return Standing(ranked.tokens[row], block.logliks_nats[row], ranked.n_ahead[row], best, logliks, root)
        if block.logliks_nats is None or block.is_greedy is None or block.leads_nats is None:
            raise AssertionError("a block has scores, standings or texts")
        return Score(block.logliks_nats[row], block.is_greedy[row], n_tokens, block.leads_nats[row], n_cut, root)


def request_key(request: Question) -> bytes:
    """The identity of a request: any change of its texts, or of how they are read, changes it."""
    if isinstance(request, Prompt):
        kind, texts = f"generation {request.max_new_tokens}", (request.context, *request.stop)
    elif isinstance(request, Blank):
        kind = f"ranking {request.candidates.digest}"
        texts = (request.context, request.answer, request.after)
    else:
        kind, texts = request.reading, (request.context, request.continuation, request.after)
    head = "\0".join([kind, *(str(len(text)) for text in texts)])  # lengths: where a text ends is part of what it says
    return hashlib.sha256("\0".join([head, *texts]).encode("utf-8", errors="surrogatepass")).digest()[:KEY_BYTES]


def block_paths(folder: Path) -> list[Path]:
    """The blocks of a scope, in an order that depends on their content only."""
    return sorted(folder.glob("*.parquet"))


def read_block(path: Path) -> AnswerBlock:
    """A block. Raises FileFormatError where it is not what was stored in this place."""
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != path.stem:
        raise FileFormatError(f"{path} does not have the digest that is its name.")
    block = from_bytes(data, str(path))
    if block.about.scope != path.parent.name:
        raise FileFormatError(f"{path} holds the answers of another scope, {block.about.scope}.")
    return block


def read_blocks(folder: Path) -> Iterator[tuple[Path, AnswerBlock | str]]:
    """Each block of a scope, or what is wrong with it."""
    for path in block_paths(folder):
        try:
            yield path, read_block(path)
        except FileFormatError as error:
            yield path, str(error)


def _block(about: BlockAbout, keys: Sequence[bytes], answers: Sequence[Answer]) -> AnswerBlock:
    scores = [answer for answer in answers if isinstance(answer, Score)]
    texts = [answer for answer in answers if isinstance(answer, Generated)]
    ranked = [answer for answer in answers if isinstance(answer, Standing)]
    if len(answers) != len(keys) or max(len(scores), len(texts), len(ranked)) != len(keys):
        raise ScoreError(
            f"{len(scores)} scores, {len(ranked)} ranks and {len(texts)} texts came for {len(keys)} requests; some were lost."
        )
    logliks = [answer.loglik_nats for answer in (scores or ranked)]
    if not all(map(math.isfinite, logliks)):
        raise ScoreError("a score is NaN or infinite: the model's weights or its dtype are broken; nothing was stored.")
    roots = [answer.root for answer in (scores or texts or ranked) if answer.root is not None]
    standings = Standings(
        tokens=[standing.token for standing in ranked],
        n_ahead=[standing.n_ahead for standing in ranked],
        best=[standing.best for standing in ranked],
        best_logliks_nats=[standing.best_logliks_nats for standing in ranked],
    )
    return AnswerBlock(
        about=about,
        keys=keys,
        n_tokens=[1 if isinstance(answer, Standing) else answer.n_tokens for answer in answers],
        n_cut=[0 if isinstance(answer, Standing) else answer.n_cut for answer in answers],
        logliks_nats=None if texts else logliks,
        is_greedy=[score.is_greedy for score in scores] if scores else None,
        leads_nats=[score.lead_nats for score in scores] if scores else None,
        texts=[made.text for made in texts] if texts else None,
        are_ended=[made.is_ended for made in texts] if texts else None,
        standings=standings if ranked else None,
        roots=roots if len(roots) == len(answers) else None,
    )


def _note_use(folder: Path) -> None:
    """Remember when a scope was last asked for: what nobody asks for can be pruned."""
    try:
        os.utime(folder)
    except OSError as error:  # a store that is only read
        log.debug("the time of use of %s can't be noted: %s", folder, error)
