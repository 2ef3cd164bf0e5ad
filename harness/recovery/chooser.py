"""Reading a model's attention to several prompts off a forward pass, and choosing by it.

All prompts' keys and values, made apart, stand before each context at once; the pass ends in the layer that is asked. Queries
and keys come from transformers' own attention interface, so rotary positions, grouped heads, scales and caps are the model's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from harness.core.errors import RecoveryError
from harness.models.loaded import LoadedModel
from harness.recovery.selection import attention_weights, prompt_scores, sees, shares_of_prompts
from harness.recovery.soft import Rows, is_rotary, keys_values_of
from harness.recovery.trained import check_length
from harness.scoring.encode import window_tokens
from harness.scoring.limits import deepest_path, rope_by_batch
from harness.scoring.plan import plan_batches
from harness.scoring.rooted import body

_NAME = "harness_prompt_choice"
BATCH_TOKENS = 1024
"""Padded context tokens fed at once."""


class _EnoughSeenError(Exception):
    """Ends a forward pass in the layer that was asked: what comes after it is not needed."""


@dataclass(slots=True)
class _Asked:
    layer: int
    lengths: tuple[int, ...]
    shares: Tensor | None = None


_ASKED: ContextVar[_Asked] = ContextVar(_NAME)


@dataclass(slots=True)
class AttentionChooser:
    """Chooses among ``prompts`` for each context by its attention to them in layer ``layer``.

    Called with contexts as tokens, it gives the number of each one's prompt; a context is read once and then remembered.
    Rotary models: the prompts end at one position, where every context begins. Others keep the positions that they were
    trained at, and a context begins behind the longest. ``chosen`` counts distinct contexts.
    """

    model: LoadedModel
    prompts: Sequence[Rows]
    layer: int
    length_normalised: bool
    batch_tokens: int = BATCH_TOKENS
    chosen: Counter[int] = field(default_factory=Counter)
    _known: dict[tuple[int, ...], int] = field(default_factory=dict)
    _before: list[tuple[Tensor, Tensor]] | None = None

    def __call__(self, contexts: Sequence[tuple[int, ...]]) -> list[int]:
        """The prompt of each context. Raises RecoveryError where the model's attention can't be read."""
        new = list(dict.fromkeys(context for context in contexts if context not in self._known))
        for batch in plan_batches([len(context) for context in new], budget_tokens=self.batch_tokens):
            rows = [new[position] for position in batch]
            for context, choice in zip(rows, self.scores(rows).argmax(-1).tolist(), strict=True):
                self._known[context] = choice
                self.chosen[choice] += 1
        return [self._known[context] for context in contexts]

    def scores(self, contexts: Sequence[tuple[int, ...]]) -> Tensor:
        """How strongly each context attends to each prompt, [contexts, prompts]; see ``prompt_scores``."""
        longest = self._longest_context()
        rows = [context[-longest:] if longest else context for context in contexts]
        n_tokens = torch.tensor([len(row) for row in rows], device=self.model.device)
        ids = torch.zeros((len(rows), int(n_tokens.max())), dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
        shares = self._shares(ids.to(self.model.device))
        return prompt_scores(shares, n_tokens, self._lengths, length_normalised=self.length_normalised)

    @property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(int(prompt.shape[0]) for prompt in self.prompts)

    def _longest_context(self) -> int | None:
        """How many of a context's last tokens are read: in a sliding window all prompts must still be seen."""
        window = deepest_path(self.model.module.config)
        left = None if window is None else window - sum(self._lengths)
        if left is not None and left < 1:
            raise RecoveryError(
                f"idp: prompts of {sum(self._lengths)} positions together fill the model's sliding window of {window}: take "
                "fewer or shorter ones."
            )
        return left

    def _shares(self, ids: Tensor) -> Tensor:
        if self._before is None:
            self._before = self._side_by_side()
        n_rows, width = ids.shape
        cache = DynamicCache([(k.expand(n_rows, -1, -1, -1), v.expand(n_rows, -1, -1, -1)) for k, v in self._before])
        positions = max(self._lengths) + torch.arange(width, device=ids.device)[None].expand(n_rows, -1)
        asked = _Asked(self.layer, self._lengths)
        with _attention_read(self.model.module, asked), torch.inference_mode(), suppress(_EnoughSeenError):
            body(self.model)(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
        if asked.shares is None:
            raise RecoveryError(
                f"idp: {type(self.model.module).__name__} has no attention in layer {self.layer}: take another one."
            )
        return asked.shares

    def _side_by_side(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of all prompts, which do not see each other, of the layers up to the one that is asked."""
        rotary = is_rotary(self.model)
        longest = max(self._lengths)
        apart = [keys_values_of(self.model, rows, longest - rows.shape[0] if rotary else 0) for rows in self.prompts]
        return [
            (torch.cat([keys for keys, _ in layer], dim=-2), torch.cat([values for _, values in layer], dim=-2))
            for layer in zip(*(layers[: self.layer + 1] for layers in apart), strict=True)
        ]


def check_readable(model: LoadedModel) -> None:
    """Raise RecoveryError for a model whose attention can't be read."""
    if not getattr(model.module, "_supports_attention_backend", False):
        raise RecoveryError(
            f"idp: {type(model.module).__name__} has an attention of its own (ALiBi, or none at all) that transformers lets "
            "nobody read, so no prompt can be chosen by it: take recovery 'prompt' for it, or idp with a fixed choice."
        )


def check_continues(model: LoadedModel, n_positions: int) -> None:
    """Raise RecoveryError for a model in which the pass that chose can't go on behind the chosen prompt; ``n_positions``: of
    all prompts together."""
    config: Any = model.module.config
    window, name = deepest_path(config), type(model.module).__name__
    reason = ""
    if not is_rotary(model):
        reason = "its positions are absolute, so behind another prompt the input would stand where it was not trained to"
    elif rope_by_batch(config):
        reason = "it turns positions by how long the input is, and the prompts' were turned before there was one"
    elif window is not None and window < window_tokens(config, model.tokenizer):
        reason = f"some of its layers see {window} tokens only, and each prompt would be seen by another part of the input"
    if reason:
        raise RecoveryError(f"idp: mode 'continue' is not defined for {name}: {reason}; take mode 'exact'.")
    check_length("idp, whose prompts stand side by side in mode 'continue'", model, n_positions)


@contextmanager
def _attention_read(module: Any, asked: _Asked) -> Iterator[None]:
    """While the block runs, the model's attention is ours."""
    AttentionInterface.register(_NAME, _attend)
    before = module.config._attn_implementation
    token = _ASKED.set(asked)
    module.config._attn_implementation = _NAME
    try:
        yield
    finally:
        module.config._attn_implementation = before
        _ASKED.reset(token)


def _attend(  # noqa: PLR0917 - transformers' own order
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - the interface's: what is seen here is known
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it, [rows, tokens, heads, size], until the layer that is read."""
    asked = _ASKED.get()
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if module.layer_idx == asked.layer:
        asked.shares = shares_of_prompts(query, key, asked.lengths, scaling=scaling, softcap=softcap)
        raise _EnoughSeenError
    if softcap is None:
        seen = sees(query.shape[-2], key.shape[-2], query.device)
        out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling, enable_gqa=True)
    else:
        weights = attention_weights(query, key, scaling=scaling, softcap=softcap).to(value.dtype)
        out = weights @ value.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return out.transpose(1, 2).contiguous(), None
