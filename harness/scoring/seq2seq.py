"""The scorer of encoder-decoders: the encoder runs once for each distinct context, and all that is asked about it shares
its states. What is fed and what is scored, ``scoring.pairs`` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from harness.core.errors import ConfigError
from harness.models.loaded import LoadedModel
from harness.models.seq2seq import decoder_start
from harness.scoring import Progress, Reading, Request, Score
from harness.scoring.answers import GroupsDone, check_looks_left, check_readings, read_places, refuse_soft_roots, sum_up
from harness.scoring.encode import window_tokens
from harness.scoring.memory import Halving
from harness.scoring.pairs import Pair, encode_pairs
from harness.scoring.plan import plan_batches
from harness.scoring.products import inferring
from harness.scoring.readout import TokenReading

BATCH_TOKENS = 2048
"""Padded tokens fed at once, those of the context counted for each row of the decoder."""


class Seq2SeqScorer:
    """Scores requests with a loaded encoder-decoder. ``tokens_fed`` counts fed tokens of both stacks, padding left out."""

    identities: ClassVar[dict[Reading, str]] = {
        "continuation": "seq2seq-loglikelihood/1",
        "sentence": "sentinel-span/1",
        "blank": "sentinel-token/1",
    }

    def __init__(self, model: LoadedModel, *, batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}: expected at least 1.")
        refuse_soft_roots(model, "scoring")
        config: Any = model.module.config
        self._model = model
        self._batch_tokens = batch_tokens
        self._window = window_tokens(config, model.tokenizer)
        self._start = decoder_start(model)
        self._progress = progress
        self._halving, self._decoder_halving = Halving(), Halving()
        self.tokens_fed = 0
        check_looks_left(model, self._after_one_token, self._window)

    def score(self, groups: Sequence[Sequence[Request]]) -> list[list[Score]]:
        """The scores of each group's requests, in order. Raises ConfigError, ScoreError, ModelError without sentinels."""
        check_readings(groups, self.identities, self._model.family)
        pairs = encode_pairs(groups, self._model, self._window)
        flat = [pair for group in pairs for pair in group]
        starts = np.cumsum([0, *(pair.n_scored for pair in flat)])
        scores = sum_up(self._read(pairs, flat, starts), starts[:-1], groups, self._model)
        return [
            [replace(score, n_cut=pair.n_cut) if pair.n_cut else score for score, pair in zip(row, asked, strict=True)]
            for row, asked in zip(scores, pairs, strict=True)
        ]

    def _read(
        self, groups: Sequence[Sequence[Pair]], pairs: Sequence[Pair], starts: Int[np.ndarray, " pairs+1"]
    ) -> TokenReading:
        """All that the pairs read, each from its place in ``starts`` on."""
        asked: dict[tuple[int, ...], list[int]] = {}
        for index, pair in enumerate(pairs):
            asked.setdefault(pair.context, []).append(index)
        contexts = list(asked)
        batches = plan_batches([len(context) for context in contexts], budget_tokens=self._batch_tokens)
        rank = {contexts[position]: rank for rank, position in enumerate(_flatten(batches), start=1)}
        done = GroupsDone(self._progress, [max((rank[pair.context] for pair in group), default=0) for group in groups])
        made = TokenReading.empty(int(starts[-1]))
        n_fed = 0
        for batch in batches:
            chosen = [contexts[position] for position in batch]
            with inferring(self._model):
                read = partial(self._read_batch, asked=asked, pairs=pairs, starts=starts, made=made)
                self._halving.feed(chosen, _padded_tokens, read)
            n_fed += len(batch)
            done.tell(n_fed)
        return made

    def _read_batch(
        self,
        contexts: Sequence[tuple[int, ...]],
        asked: Mapping[tuple[int, ...], Sequence[int]],
        pairs: Sequence[Pair],
        starts: Int[np.ndarray, " pairs+1"],
        made: TokenReading,
    ) -> Sequence[None]:
        """Fill in what is asked about some contexts: ``asked`` names the pairs of each."""
        rows: dict[tuple[int, tuple[int, ...]], list[int]] = {}  # what the decoder is fed, by context, and for which pairs
        for row, context in enumerate(contexts):
            for index in asked[context]:
                rows.setdefault((row, (self._start, *pairs[index].target[:-1])), []).append(index)
        ids, mask = self._padded(contexts)
        module: Any = self._model.module
        encoded: Any = module.get_encoder()(input_ids=ids, attention_mask=mask)
        states, as_output = encoded.last_hidden_state, type(encoded)  # models of experts want their own kind of output back
        keys = list(rows)
        for batch in plan_batches([ids.shape[1] + len(fed) for _, fed in keys], budget_tokens=self._batch_tokens):

            def decode(chosen: Sequence[tuple[int, tuple[int, ...]]]) -> Sequence[None]:
                of_rows = torch.tensor([context for context, _ in chosen], device=self._model.device)
                fed, _ = self._padded([fed for _, fed in chosen])  # the decoder never looks right: its padding needs no mask
                logits = module(
                    encoder_outputs=as_output(last_hidden_state=states[of_rows]),
                    attention_mask=mask[of_rows],
                    decoder_input_ids=fed,
                    use_cache=False,
                ).logits
                wanted = [(row, index) for row, key in enumerate(chosen) for index in rows[key]]
                _read_targets(logits, wanted, pairs, starts, made)
                return [None] * len(chosen)

            self._decoder_halving.feed([keys[position] for position in batch], _decoded_tokens, decode)
        self.tokens_fed += sum(map(len, contexts)) + sum(len(fed) for _, fed in keys)
        return [None] * len(contexts)

    def _after_one_token(self, fed: Tensor) -> Tensor:
        """The logits of what the decoder is fed, when the encoder got the decoder's start token."""
        module: Any = self._model.module
        context = torch.full((len(fed), 1), self._start, device=fed.device)
        logits: Tensor = module(input_ids=context, decoder_input_ids=fed, use_cache=False).logits
        return logits

    def _padded(self, rows: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Rows side by side, padded on the right, and which tokens are not padding."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self._model.device)
        lengths = torch.tensor([len(row) for row in rows], device=self._model.device)
        return ids, (torch.arange(width, device=ids.device) < lengths[:, None]).long()


def _padded_tokens(contexts: Sequence[tuple[int, ...]]) -> int:
    return len(contexts) * max(map(len, contexts))


def _decoded_tokens(rows: Sequence[tuple[int, tuple[int, ...]]]) -> int:
    return len(rows) * max(len(fed) for _, fed in rows)


def _read_targets(
    logits: Tensor,
    wanted: Sequence[tuple[int, int]],
    pairs: Sequence[Pair],
    starts: Int[np.ndarray, " pairs+1"],
    made: TokenReading,
) -> None:
    """Read the pairs' scored tokens off ``logits`` [rows, width, vocabulary]. ``wanted``: the row of each, and which it is."""
    width = logits.shape[1]
    places: list[int] = []
    tokens: list[int] = []
    into: list[int] = []
    for row, index in wanted:
        pair = pairs[index]
        first = len(pair.target) - pair.n_scored
        places += range(row * width + first, row * width + len(pair.target))
        tokens += pair.target[first:]
        into += range(starts[index], starts[index + 1])
    at = np.array(places)
    where = torch.from_numpy(np.unique(at)).to(logits.device)
    made.put(into, read_places(logits.flatten(0, 1)[where], at, np.array(tokens)))


def _flatten(lists: Iterable[Sequence[int]]) -> list[int]:
    return [entry for one in lists for entry in one]
