"""Where one token stands among a whole vocabulary at a blank: every candidate is read off one row of logits.

A row is fed once whatever is asked about its blank, together with others of its length, so there is no padding. *decoder*:
the tokens before the blank, read at the last of them. *encoder*: the sentence with the mask in its blank. *encoder-decoder*:
the sentence with the first sentinel in it, read after that sentinel in the decoder. The tokens are those that the reading
"blank" of the family's scorer has, so that a token's log-probability is the same here and there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.core.errors import ConfigError, ScoreError
from harness.models.loaded import LoadedModel
from harness.models.roots import SoftRoot
from harness.models.seq2seq import decoder_start, sentinel
from harness.scoring import Blank, Progress, Request, Standing
from harness.scoring.answers import GroupsDone, broken_score, check_looks_left, refuse_soft_roots
from harness.scoring.encode import encode_groups, window_tokens
from harness.scoring.encoder import encoder_window, mask_answer
from harness.scoring.gap import read_sentences
from harness.scoring.heads import head_at, head_runs_anywhere
from harness.scoring.limits import deepest_path
from harness.scoring.memory import Halving
from harness.scoring.pairs import encode_pairs
from harness.scoring.products import inferring
from harness.scoring.rooted import body, calling_behind, choose_roots, keep_root, room_beside_roots
from harness.scoring.rows import RowBatch, Rows, plan_rows

T = TypeVar("T")

log = logging.getLogger(__name__)

BATCH_TOKENS = 1024
"""Tokens fed at once; at the places that are read, logits are made for the whole vocabulary."""

N_BEST = 10
"""Candidates that a standing lists: enough for the runner-up and for a reader."""

LogitsAt = Callable[[Int[Tensor, "rows width"], Int[Tensor, " places"]], Float[Tensor, "places vocabulary"]]
"""The logits of rows at places (row x width + position, ascending, one a row)."""


class DecoderRanker:
    """Ranks with a loaded decoder: what is behind the blank is not read. A soft root stands before every blank; of several the
    one that is chosen for what is before it."""

    identity: ClassVar[str] = "next-token-rank/1"

    def __init__(self, model: LoadedModel, *, batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None) -> None:
        module: Any = model.module
        self._model, self._batch_tokens, self._progress = model, _checked(batch_tokens), progress
        self._halving = Halving()
        self._window = room_beside_roots(model, window_tokens(module.config, model.tokenizer))
        self._reads_everywhere = not head_runs_anywhere(model)
        self._kept: dict[int, SoftRoot | None] = {}
        check_looks_left(model, lambda ids: module(input_ids=ids, use_cache=False).logits, self._window)

    def rank(self, groups: Sequence[Sequence[Blank]]) -> list[list[Standing]]:
        """Where each blank's answer stands. Raises ScoreError."""
        requests = _requests(groups)
        encoded = encode_groups(requests, self._model, self._window)
        pieces = [[[one] for one in group] for group in encoded]
        roots = choose_roots(requests, pieces, self._model, self._window)
        rows = [[_one_read(one.tokens[:-1], len(one.tokens) - 2, one.tokens[-one.n_scored :]) for one in g] for g in encoded]
        chosen = sorted({root for group in roots for root in group}) or [0]
        found: dict[int, Iterator[Standing]] = {}
        for number, root in enumerate(chosen):
            here = [[one == root for one in group] for group in roots]
            part = _Engine(self._model, self._batch_tokens, self._share(number, len(chosen)), self._halving)
            made = part.rank(_only(groups, here), _only(rows, here), partial(self._logits_at, root))
            found[root] = iter([standing for group in made for standing in group])
        has_choice = self._model.soft_roots is not None and self._model.soft_roots.has_choice
        return [[replace(next(found[root]), root=root if has_choice else None) for root in group] for group in roots]

    def _share(self, number: int, n_parts: int) -> Progress | None:
        """The progress of one root's part of the blanks as a part of all groups."""
        progress = self._progress
        return progress and (lambda n_done, n_all: progress((number * n_all + n_done) // n_parts, n_all))

    def _logits_at(self, root: int, ids: Tensor, where: Tensor) -> Tensor:
        module: Any = self._model.module
        width = ids.shape[1]
        with calling_behind(module, ids, self._keep(root)) as (asked, n_before):
            at = where + n_before * (where // width + 1)
            if self._reads_everywhere:
                whole: Tensor = module(**asked).logits
                return whole.flatten(0, 1)[at]
            with head_at(module.base_model, at):
                chosen: Tensor = module(**asked).logits
        return chosen[0]

    def _keep(self, root: int) -> SoftRoot | None:
        """A root as its keys and values, made once, where the model keeps them for all positions; else as it is."""
        if self._model.soft_roots is None:
            return None
        if root not in self._kept:
            own = self._model.soft_roots.roots[root]
            self._kept[root] = own
            if own.embeddings is not None and own.n_positions and deepest_path(self._model.module.config) is None:
                try:
                    self._kept[root] = SoftRoot(keys_values=keep_root(body(self._model), own))
                except (TypeError, ValueError, AttributeError):  # it keeps other things: the root is fed before every row
                    log.debug("%s keeps no keys and values", type(self._model.module).__name__)
        return self._kept[root]


class EncoderRanker:
    """Ranks with a loaded encoder, at the mask."""

    identity: ClassVar[str] = "mask-rank/1"

    def __init__(self, model: LoadedModel, *, batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None) -> None:
        refuse_soft_roots(model, "ranking")
        self._model, self._engine = model, _Engine(model, _checked(batch_tokens), progress)
        self._window = encoder_window(model.module, model.tokenizer)
        self._reads_everywhere = not head_runs_anywhere(model)

    def rank(self, groups: Sequence[Sequence[Blank]]) -> list[list[Standing]]:
        """Where each blank's answer stands. Raises ScoreError."""
        mask_id = self._model.tokenizer.mask_token_id
        rows = [
            [mask_answer(sentence, mask_id) for sentence in read_sentences(group, self._model, self._window)]
            for group in _requests(groups)
        ]
        return self._engine.rank(groups, rows, self._logits_at)

    def _logits_at(self, ids: Tensor, where: Tensor) -> Tensor:
        return _logits(self._model, ids, where, everywhere=self._reads_everywhere)


class Seq2SeqRanker:
    """Ranks with a loaded encoder-decoder, after the first sentinel."""

    identity: ClassVar[str] = "sentinel-rank/1"

    def __init__(self, model: LoadedModel, *, batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None) -> None:
        refuse_soft_roots(model, "ranking")
        config: Any = model.module.config
        self._model, self._engine = model, _Engine(model, _checked(batch_tokens), progress)
        self._window = window_tokens(config, model.tokenizer)

    def rank(self, groups: Sequence[Sequence[Blank]]) -> list[list[Standing]]:
        """Where each blank's answer stands. Raises ScoreError, ModelError without sentinels."""
        pairs = encode_pairs(_requests(groups), self._model, self._window)
        rows = [[_one_read(pair.context, 0, pair.target[-pair.n_scored :]) for pair in group] for group in pairs]
        return self._engine.rank(groups, rows, self._logits_at)

    def _logits_at(self, ids: Tensor, where: Tensor) -> Tensor:
        module: Any = self._model.module
        opened = torch.tensor([[decoder_start(self._model), sentinel(self._model, 0)]], device=ids.device)
        logits: Tensor = module(input_ids=ids, decoder_input_ids=opened.expand(len(ids), -1), use_cache=False).logits
        return logits[where // ids.shape[1], -1]


def _checked(batch_tokens: int) -> int:
    if batch_tokens < 1:
        raise ConfigError(f"batch_tokens is {batch_tokens}: expected at least 1.")
    return batch_tokens


def _requests(groups: Sequence[Sequence[Blank]]) -> list[list[Request]]:
    return [[Request(blank.context, blank.answer, blank.after, "blank") for blank in group] for group in groups]


def _only(groups: Sequence[Sequence[T]], kept: Sequence[Sequence[bool]]) -> list[list[T]]:
    return [[one for one, is_kept in zip(*pair, strict=True) if is_kept] for pair in zip(groups, kept, strict=True)]


def _one_read(ids: Sequence[int], position: int, answer: Sequence[int]) -> Rows:
    """One row, read at one position for every token of the answer: more than one is refused by the engine."""
    reads = np.zeros(len(answer), dtype=np.int64)
    return Rows(np.array([ids], dtype=np.int64), reads, reads + position, np.array(answer, dtype=np.int64))


def _logits(model: LoadedModel, ids: Tensor, where: Tensor, *, everywhere: bool) -> Tensor:
    module: Any = model.module
    if everywhere:
        whole: Tensor = module(input_ids=ids).logits
        return whole.flatten(0, 1)[where]
    with head_at(module.base_model, where):
        chosen: Tensor = module(input_ids=ids).logits
    return chosen[0]


@dataclass(frozen=True, slots=True)
class _Engine:
    """Feeds each distinct row once and finds every answer's standing on it."""

    model: LoadedModel
    budget_tokens: int
    progress: Progress | None
    halving: Halving = field(default_factory=Halving)

    def rank(
        self, groups: Sequence[Sequence[Blank]], rows: Sequence[Sequence[Rows]], logits_at: LogitsAt
    ) -> list[list[Standing]]:
        """The standings of all groups, in order; ``rows`` has one row and one read for each blank."""
        blanks = [blank for group in groups for blank in group]
        for blank, row in zip(blanks, (row for group in rows for row in group), strict=True):
            if len(row.tokens) != 1:
                raise ScoreError(
                    f"{blank.answer!r} takes {len(row.tokens)} tokens after {blank.context[-60:]!r}: expected one; "
                    "leave the item out, or rank it as a whole sentence."
                )
        plan = plan_rows(rows, budget_tokens=self.budget_tokens)
        done = GroupsDone(self.progress, plan.last_of_groups)
        found: dict[int, Standing] = {}
        n_fed = 0
        for batch in plan.batches:
            width = batch.ids.shape[1]
            feed = partial(self._feed, batch=batch, tokens=plan.tokens, blanks=blanks, logits_at=logits_at)
            for of_row in self.halving.feed(range(len(batch.ids)), partial(_size, width=width), feed):
                found |= of_row
            n_fed += len(batch.ids)
            done.tell(n_fed)
        in_order = iter([found[index] for index in range(len(blanks))])
        return [[next(in_order) for _ in group] for group in groups]

    def _feed(
        self,
        chosen: Sequence[int],
        *,
        batch: RowBatch,
        tokens: Int[np.ndarray, " reads"],
        blanks: Sequence[Blank],
        logits_at: LogitsAt,
    ) -> list[dict[int, Standing]]:
        """The standings on some rows of a batch, by the blank's place among all."""
        rows, positions = np.divmod(batch.places, batch.ids.shape[1])
        position = dict(zip(rows.tolist(), positions.tolist(), strict=True))  # one blank a row
        where = [i * batch.ids.shape[1] + position[row] for i, row in enumerate(chosen)]
        made: list[dict[int, Standing]] = []
        with inferring(self.model):
            ids = torch.from_numpy(batch.ids[list(chosen)]).to(self.model.device)
            logits = logits_at(ids, torch.tensor(where, device=self.model.device))
            logprobs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
            for row, line in zip(chosen, logprobs, strict=True):
                reads = batch.reads[rows == row].tolist()
                made.append({i: _stand(line, int(tokens[i]), blanks[i], self.model) for i in reads})
        return made


def _size(rows: Sequence[int], width: int) -> int:
    return len(rows) * width


def _stand(logprobs: Float[Tensor, " vocabulary"], answer: int, blank: Blank, model: LoadedModel) -> Standing:
    tokens = torch.from_numpy(blank.candidates.tokens).to(logprobs.device)
    competing = logprobs[tokens]
    own = float(logprobs[answer])
    if not math.isfinite(own):
        raise broken_score(Request(blank.context, blank.answer, blank.after, "blank"), own, model)
    n_ahead = int(((competing >= logprobs[answer]) & (tokens != answer)).sum())
    best = competing.topk(min(N_BEST, len(tokens)))
    listed = sorted(
        zip((-best.values).tolist(), tokens[best.indices].tolist(), strict=True)
    )  # of equal ones the lower id first
    return Standing(answer, own, n_ahead, tuple(token for _, token in listed), tuple(-value for value, _ in listed))
