"""The scorer of masked language models: whole sentences by pseudo-log-likelihood, single answers at the mask.

*sentence*: Σ log p of each token with it and the later tokens of its own word masked, "within-word left to right" (Kauf and
Ivanova 2023, arXiv 2305.10588): with all of a word's other tokens in sight, the pieces of a rare word would betray each other.
A word is what the tokenizer cuts a text into before its model runs; ALBERT's words end at spaces, so a full stop belongs to
the word before it. *blank*: log p of the answer's tokens with all of them masked, at the places where they stand.

Nothing that an encoder computes can be shared between two rows that differ in one token, but many rows of a group are the
same: with the answer masked, its options leave one sentence. Each distinct row is fed once, with others of its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoModelForMaskedLM

from harness.core.errors import ConfigError
from harness.models.loaded import LoadedModel
from harness.scoring import Progress, Reading, Request, Score
from harness.scoring.answers import GroupsDone, check_readings, read_places, refuse_soft_roots, sum_up
from harness.scoring.encode import window_tokens
from harness.scoring.gap import Sentence, read_sentences
from harness.scoring.heads import head_at, head_runs_anywhere
from harness.scoring.memory import Halving
from harness.scoring.products import inferring
from harness.scoring.readout import TokenReading
from harness.scoring.rows import RowPlan, Rows, plan_rows

BATCH_TOKENS = 2048
"""Tokens fed at once: enough to keep a core busy, small enough for its caches (measured on tiny models)."""


class EncoderScorer:
    """Scores requests with a loaded encoder. ``tokens_fed`` counts fed tokens; there is no padding.

    The head runs at the places that are read. Where that would change what the model puts out (found on a small probe at
    construction), it runs everywhere: ``reads_everywhere`` says so.
    """

    identities: ClassVar[dict[Reading, str]] = {"sentence": "pseudo-loglikelihood/1", "blank": "mask/1"}

    def __init__(self, model: LoadedModel, *, batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}: expected at least 1.")
        refuse_soft_roots(model, "scoring")
        self._model = model
        self._batch_tokens = batch_tokens
        self._window = encoder_window(model.module, model.tokenizer)
        self._progress = progress
        self._halving = Halving()
        self.tokens_fed = 0
        self.reads_everywhere = not head_runs_anywhere(model)

    def score(self, groups: Sequence[Sequence[Request]]) -> list[list[Score]]:
        """The scores of each group's requests, in order. Raises ConfigError, ScoreError."""
        check_readings(groups, self.identities, self._model.family)
        plan = plan_rows(self._rows(groups), budget_tokens=self._batch_tokens)
        return sum_up(self._read(plan), plan.starts, groups, self._model)

    def _rows(self, groups: Sequence[Sequence[Request]]) -> list[list[Rows]]:
        mask_id = self._model.tokenizer.mask_token_id
        return [
            [
                (mask_answer if request.reading == "blank" else mask_words)(sentence, mask_id)
                for request, sentence in zip(group, read_sentences(group, self._model, self._window), strict=True)
            ]
            for group in groups
        ]

    def _read(self, plan: RowPlan) -> TokenReading:
        """All that is read, in the plan's order."""
        done = GroupsDone(self._progress, plan.last_of_groups)
        made = TokenReading.empty(len(plan.tokens))
        n_fed = 0
        for batch in plan.batches:
            ids = torch.from_numpy(batch.ids).to(self._model.device)
            with inferring(self._model):
                read = read_places(self._logits(ids, np.unique(batch.places)), batch.places, plan.tokens[batch.reads])
            made.put(batch.reads, read)
            self.tokens_fed += batch.ids.size
            n_fed += len(batch.ids)
            done.tell(n_fed)
        return made

    def _logits(self, ids: Tensor, places: Int[np.ndarray, " places"]) -> Tensor:
        """The logits at places (row x width + position, in order), [places, vocabulary]."""
        width = ids.shape[1]
        of_rows = np.split(places % width, np.searchsorted(places, width * np.arange(1, len(ids))))

        def run(rows: Sequence[int]) -> tuple[Tensor, ...]:
            places_here = np.concatenate([width * i + of_rows[row] for i, row in enumerate(rows)])
            made = self._logits_at(ids[list(rows)], torch.from_numpy(places_here).to(ids.device))
            return torch.split(made, [len(of_rows[row]) for row in rows])

        return torch.cat(self._halving.feed(range(len(ids)), lambda rows: len(rows) * width, run))

    def _logits_at(self, ids: Tensor, where: Int[Tensor, " places"]) -> Tensor:
        module: Any = self._model.module
        if self.reads_everywhere:
            everywhere: Tensor = module(input_ids=ids).logits
            return everywhere.flatten(0, 1)[where]
        with head_at(module.base_model, where):
            chosen: Tensor = module(input_ids=ids).logits
        return chosen[0]


def mask_words(sentence: Sentence, mask_id: int) -> Rows:
    """One row a token: it and the later tokens of its word masked.

    >>> mask_words(Sentence((1, 7, 8, 9, 2), (None, 0, 1, 1, None)), 0).ids.tolist()
    [[1, 0, 8, 9, 2], [1, 7, 0, 0, 2], [1, 7, 8, 0, 2]]
    """
    ids = np.array(sentence.tokens)
    words = np.array([-1 if word is None else word for word in sentence.words])
    reads = np.flatnonzero(words >= 0)
    later = np.arange(len(ids)) >= reads[:, None]
    same_word = words == words[reads, None]
    return Rows(np.where(later & same_word, mask_id, ids), np.arange(len(reads)), reads, ids[reads])


def mask_answer(sentence: Sentence, mask_id: int) -> Rows:
    """One row: every token of the answer masked.

    >>> mask_answer(Sentence((1, 7, 8, 9, 2), (None, 0, 1, 1, None), range(2, 4)), 0).ids.tolist()
    [[1, 7, 0, 0, 2]]
    """
    reads = np.array(sentence.gap)
    row = np.array(sentence.without_answer(*[mask_id] * len(reads)))
    return Rows(row[None], np.zeros(len(reads), dtype=np.int64), reads, np.array(sentence.answer))


def encoder_window(module: Any, tokenizer: Any) -> int:
    """How many tokens an encoder takes: RoBERTa's table of positions starts behind the place of padding."""
    table = getattr(getattr(module.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return window_tokens(module.config, tokenizer) - (0 if padding is None else padding + 1)


def window_of_config(config: Any, tokenizer: Any, family: str) -> int:
    """How many tokens the scorer of a family takes at once, before there is a model: an encoder is built without weights."""
    if family != "encoder":
        return window_tokens(config, tokenizer)
    masked: Any = AutoModelForMaskedLM
    with torch.device("meta"):
        return encoder_window(masked.from_config(config), tokenizer)
