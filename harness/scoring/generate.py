"""Greedy generation through transformers' own ``generate``: the text of lm-eval's ``hf`` model class, for decoders and
encoder-decoders.

Prompts of one kind (stop strings, length) are fed together, padded on the left. Padding and neighbours leave a text as it is
but for rounding; a model whose next-token scores they move by more than that is fed one prompt at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from harness.core.errors import ConfigError
from harness.models.loaded import LoadedModel
from harness.models.quiet import quiet_transformers
from harness.scoring import Generated, Progress, Prompt
from harness.scoring.answers import PartsDone, refuse_soft_roots
from harness.scoring.encode import window_tokens
from harness.scoring.memory import Halving
from harness.scoring.plan import plan_batches

BATCH_TOKENS = 4096
"""Padded tokens of a batch, those to be made among them: what the cache of keys and values has to hold."""

LOOKBACK_TOKENS = 2
"""A stop string is looked for in so many more of the last tokens than it takes itself, as lm-eval does: a model may spell it
in other tokens than the tokenizer would."""

_PADDING_NATS = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.25}


class GreedyGenerator:
    """Generates with a loaded model, always taking the likeliest token."""

    identity: ClassVar[str] = "greedy/1"

    def __init__(self, model: LoadedModel, *, batch_tokens: int = BATCH_TOKENS, progress: Progress | None = None) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}: expected at least 1.")
        refuse_soft_roots(model, "generating text")
        self._model = model
        self._is_encoder_decoder = bool(model.module.config.is_encoder_decoder)  # type: ignore[union-attr]
        self._window = window_tokens(model.module.config, model.tokenizer)
        self._progress = progress
        self._halving = Halving()
        self._batch_tokens = batch_tokens if _padding_is_harmless(model) else 1

    def generate(self, groups: Sequence[Sequence[Prompt]]) -> list[list[Generated]]:
        """The texts of each group's prompts, in order. Raises ConfigError for a prompt that leaves no room for its context."""
        flat = [(g, prompt) for g, group in enumerate(groups) for prompt in group]
        encoded = [self._encode(prompt) for _, prompt in flat]
        kinds: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
        for position, (_, prompt) in enumerate(flat):
            kinds[prompt.stop, prompt.max_new_tokens].append(position)
        made: dict[int, Generated] = {}
        done = PartsDone(self._progress, len(groups), [g for g, _ in flat])
        for (stop, max_new_tokens), positions in kinds.items():
            lengths = [len(encoded[position]) + max_new_tokens for position in positions]
            for batch in plan_batches(lengths, budget_tokens=self._batch_tokens):
                chosen = [positions[i] for i in batch]
                texts = self._halving.feed(
                    [encoded[position] for position in chosen],
                    lambda rows, n_new=max_new_tokens: len(rows) * (max(map(len, rows)) + n_new),  # type: ignore[misc]
                    partial(self._generate_batch, stop=stop, max_new_tokens=max_new_tokens),
                )
                made.update(zip(chosen, texts, strict=True))
                done.tell(flat[position][0] for position in chosen)
        texts_in_order = iter(made[position] for position in range(len(flat)))
        return [[next(texts_in_order) for _ in group] for group in groups]

    def _encode(self, prompt: Prompt) -> list[int]:
        """The context's tokens, cut on the left where it does not fit beside what is to be made."""
        room = self._window - (0 if self._is_encoder_decoder else prompt.max_new_tokens)
        if room < 1 or prompt.max_new_tokens < 1:
            raise ConfigError(
                f"a task asks for {prompt.max_new_tokens} new tokens, the model takes {self._window} in all: expected at "
                "least one and fewer than that; take another task, or change max_gen_toks in its YAML."
            )
        tokenizer = self._model.tokenizer
        special = self._is_encoder_decoder or not (tokenizer.bos_token and prompt.context.startswith(tokenizer.bos_token))
        ids: list[int] = tokenizer.encode(prompt.context, add_special_tokens=special)
        return ids[-room:] or [self._model.prefix_token_id]

    def _generate_batch(self, rows: Sequence[Sequence[int]], stop: tuple[str, ...], max_new_tokens: int) -> list[Generated]:
        tokenizer, end = self._model.tokenizer, self._model.tokenizer.eos_token_id
        stops = tuple(dict.fromkeys([text for text in stop if text] + ([tokenizer.decode(end)] if end is not None else [])))
        width = 1 if self._is_encoder_decoder else max(map(len, rows))
        stopping = _StopStrings(tokenizer, stops, n_before=width, n_rows=len(rows))
        out = _feed(self._model, rows, max_new_tokens, stopping_criteria=StoppingCriteriaList([stopping]))
        ends = _end_tokens(self._model)
        texts = []
        for row, tokens in enumerate(out[:, width:].tolist()):
            n_made = stopping.n_made[row] or len(tokens)
            n_made = next((i + 1 for i, token in enumerate(tokens[:n_made]) if token in ends), n_made)
            texts.append(Generated(cut(tokenizer.decode(tokens[:n_made], skip_special_tokens=True), stops), n_made))
        return texts


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string.

    >>> cut("Paris. It is", (".", "It"))
    'Paris'
    """
    for stop in stops:
        text = text.split(stop, maxsplit=1)[0]
    return text


@dataclass
class _StopStrings(StoppingCriteria):
    """Ends each row for itself where one of the strings appears; ``n_made`` remembers after how many tokens."""

    tokenizer: Any
    stops: tuple[str, ...]
    n_before: int
    n_rows: int

    def __post_init__(self) -> None:
        self.n_made: list[int | None] = [None] * self.n_rows
        self._lookback = [len(self.tokenizer.encode(stop, add_special_tokens=False)) + LOOKBACK_TOKENS for stop in self.stops]

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:  # noqa: ARG002 - transformers' signature
        made = input_ids[:, self.n_before :]
        for row, tokens in enumerate(made.tolist()):
            if self.n_made[row] is None and any(
                stop in self.tokenizer.decode(tokens[-n:]) for stop, n in zip(self.stops, self._lookback, strict=True)
            ):
                self.n_made[row] = len(tokens)
        return torch.tensor([n is not None for n in self.n_made], device=input_ids.device)


def _feed(model: LoadedModel, rows: Sequence[Sequence[int]], max_new_tokens: int, **options: Any) -> Any:
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


def _pad_token(model: LoadedModel) -> int:
    """Any token that the model knows: it is masked. Some tokenizers have a padding token that their model lacks."""
    n_known = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    named = (model.tokenizer.pad_token_id, model.tokenizer.eos_token_id, 0)
    return next(int(token) for token in named if token is not None and token < n_known)


def _end_tokens(model: LoadedModel) -> frozenset[int]:
    """The tokens after which the model says no more: those of its generation config, and the tokenizer's."""
    config: Any = model.module.generation_config
    named = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return frozenset(int(token) for token in (*named, model.tokenizer.eos_token_id) if token is not None)


def _padding_is_harmless(model: LoadedModel) -> bool:
    """Whether a padded row beside a longer one gets the next-token scores that it gets alone."""
    vocabulary = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    long, short = ([(start + 17 * i * i + 5 * i) % vocabulary for i in range(n)] for start, n in ((11, 12), (101, 5)))
    options: dict[str, Any] = {"return_dict_in_generate": True, "output_logits": True}
    together, alone = (_feed(model, rows, 2, **options).logits for rows in ([long, short], [short]))
    nats = max(float((a[-1] - b[-1]).abs().max()) for a, b in zip(together, alone, strict=False))  # one may have ended
    return nats <= _PADDING_NATS[model.dtype]
