"""The reference path of generation: transformers' own ``generate`` on batches padded on the left.

Padding and neighbours leave a text as it is but for rounding; a model whose next-token scores they move by more than that is
fed one prompt at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from harness.models.loaded import LoadedModel
from harness.models.quiet import quiet_transformers
from harness.scoring.answers import AGREE_NATS
from harness.scoring.greedy import Ask
from harness.scoring.limits import rope_by_batch
from harness.scoring.memory import Halving
from harness.scoring.plan import plan_batches
from harness.scoring.stops import StopStrings

PLAIN_TOKENS = 4096
"""Padded tokens of a batch, those to be made among them: what ``generate``'s cache of keys and values has to hold."""


class LeftPadded:
    """Generates in batches of one kind (stop strings, length). ``tokens_fed`` leaves padding out."""

    def __init__(self, model: LoadedModel, *, ends: frozenset[int], batch_tokens: int) -> None:
        self.tokens_fed = 0
        self._model, self._ends = model, ends
        self._is_encoder_decoder = bool(model.module.config.is_encoder_decoder)  # type: ignore[union-attr]
        self._halving = Halving()
        together = not rope_by_batch(model.module.config) and _padding_is_harmless(model)
        self._batch_tokens = min(batch_tokens, PLAIN_TOKENS) if together else 1

    def generate(self, asks: Mapping[int, Ask], done: Callable[[Sequence[int]], None]) -> dict[int, list[int]]:
        """The tokens made for the prompts at some positions. ``done`` gets each batch's positions."""
        kinds: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
        for position, ask in asks.items():
            kinds[ask.stops.strings, ask.max_new_tokens].append(position)
        made: dict[int, list[int]] = {}
        for (_, max_new_tokens), positions in kinds.items():
            lengths = [len(asks[position].tokens) + max_new_tokens for position in positions]
            for batch in plan_batches(lengths, budget_tokens=self._batch_tokens):
                chosen = [positions[i] for i in batch]
                tokens = self._halving.feed([asks[position] for position in chosen], _padded_tokens, self._generate_batch)
                made.update(zip(chosen, tokens, strict=True))
                self.tokens_fed += sum(len(asks[position].tokens) + len(made[position]) - 1 for position in chosen)
                done(chosen)
        return made

    def _generate_batch(self, asks: Sequence[Ask]) -> list[list[int]]:
        rows = [ask.tokens for ask in asks]
        width = 1 if self._is_encoder_decoder else max(map(len, rows))
        stopping = _Stopping(asks[0].stops, n_before=width, n_rows=len(rows))
        out = feed(self._model, rows, asks[0].max_new_tokens, stopping_criteria=StoppingCriteriaList([stopping]))
        made = []
        for row, tokens in enumerate(out[:, width:].tolist()):
            n_made = stopping.n_made[row] or len(tokens)
            n_made = next((i + 1 for i, token in enumerate(tokens[:n_made]) if token in self._ends), n_made)
            made.append(tokens[:n_made])
        return made


@dataclass
class _Stopping(StoppingCriteria):
    """Ends each row for itself where one of the strings appears; ``n_made`` remembers after how many tokens."""

    stops: StopStrings
    n_before: int
    n_rows: int

    def __post_init__(self) -> None:
        self.n_made: list[int | None] = [None] * self.n_rows

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:  # noqa: ARG002 - transformers' signature
        for row, tokens in enumerate(input_ids[:, self.n_before :].tolist()):
            if self.n_made[row] is None and self.stops.appear(tokens):
                self.n_made[row] = len(tokens)
        return torch.tensor([n is not None for n in self.n_made], device=input_ids.device)


def feed(model: LoadedModel, rows: Sequence[Sequence[int]], max_new_tokens: int, **options: Any) -> Any:
    """transformers' ``generate`` on rows padded on the left."""
    width = max(map(len, rows))
    pad = _pad_token(model)
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    module: Any = model.module
    with quiet_transformers(), torch.inference_mode():
        return module.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            use_cache=True,
            **options,
        )


def _padded_tokens(asks: Sequence[Ask]) -> int:
    return len(asks) * (max(len(ask.tokens) for ask in asks) + asks[0].max_new_tokens)


def _pad_token(model: LoadedModel) -> int:
    """Any token that the model knows: it is masked. Some tokenizers have a padding token that their model lacks."""
    n_known = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    named = (model.tokenizer.pad_token_id, model.tokenizer.eos_token_id, 0)
    return next(int(token) for token in named if token is not None and token < n_known)


def _padding_is_harmless(model: LoadedModel) -> bool:
    """Whether a padded row beside a longer one gets the next-token scores that it gets alone."""
    vocabulary = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    long, short = ([(start + 17 * i * i + 5 * i) % vocabulary for i in range(n)] for start, n in ((11, 12), (101, 5)))
    options: dict[str, Any] = {"return_dict_in_generate": True, "output_logits": True}
    together, alone = (feed(model, rows, 2, **options).logits for rows in ([long, short], [short]))
    nats = max(float((a[-1] - b[-1]).abs().max()) for a, b in zip(together, alone, strict=False))  # one may have ended
    return nats <= AGREE_NATS[model.dtype]
