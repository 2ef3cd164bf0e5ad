"""The kinds of recovery whose cost is compared: one model, nothing trained, each side of the size of the real thing.

What a prompt or LoRA costs does not depend on its values, so prompts are rows of the vocabulary and LoRA is as it is before
its first step. Sides share the model's weights in memory as far as they leave them alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from harness.core.latency import Side
from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues
from harness.recovery.chooser import AttentionChooser, check_readable
from harness.recovery.lora import Lora
from harness.recovery.soft import Rows, as_root, seeded, vocabulary_rows
from harness.recovery.trained import check_decoder
from harness.scoring.rooted import beside_each_row, body, keep_root

PROMPT_TOKENS = 20
LORA_RANK = 8
PROMPT_COUNTS = (2, 4, 8)
"""How many prompts IDP chooses among."""


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """A side that can be run: ``kept`` are the keys and values of its prompts, ``choose`` says which of them each row gets."""

    side: Side
    model: LoadedModel
    kept: tuple[KeysValues, ...] = ()
    choose: Callable[[Tensor], Tensor] | None = None

    def prefill(self, ids: Tensor) -> tuple[Tensor, DynamicCache]:
        """Read contexts [rows, tokens] of one length; the next tokens [rows, 1] and what is kept of the contexts."""
        cache = self._roots(ids)
        logits = self._step(ids, cache)
        return logits.argmax(-1, keepdim=True), cache

    def decode(self, tokens: Tensor, cache: DynamicCache, n_new: int) -> None:
        """Make ``n_new`` tokens behind ``tokens`` [rows, 1], greedily; ``cache`` grows by as many."""
        for _ in range(n_new):
            tokens = self._step(tokens, cache).argmax(-1, keepdim=True)

    def _step(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """The logits behind the last of some tokens, [rows, vocabulary]."""
        n_before = cache.get_seq_length()
        positions = torch.arange(n_before, n_before + ids.shape[1], device=ids.device)[None].expand(ids.shape[0], -1)
        module: Any = self.model.module
        with torch.inference_mode():
            made = body(self.model)(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
            logits: Tensor = module.get_output_embeddings()(made.last_hidden_state[:, -1])
        return logits

    def _roots(self, ids: Tensor) -> DynamicCache:
        """What stands before the contexts: nothing, the prompt, or each row's own."""
        if not self.kept:
            return DynamicCache()
        if self.choose is None:
            return beside_each_row(self.kept[0], ids.shape[0])
        chosen = self.choose(ids).tolist()
        if len(set(chosen)) == 1:
            return beside_each_row(self.kept[chosen[0]], ids.shape[0])
        layers = zip(*(self.kept[number] for number in chosen), strict=True)  # prompts of one length stand side by side
        return DynamicCache(
            [(torch.cat([keys for keys, _ in rows]), torch.cat([values for _, values in rows])) for rows in layers]
        )


def make_sides(
    model: LoadedModel,
    *,
    prompt_tokens: int = PROMPT_TOKENS,
    counts: Sequence[int] = PROMPT_COUNTS,
    rank: int = LORA_RANK,
    selection_layer: int = 0,
) -> list[Bench]:
    """Without recovery, behind one prompt, IDP among several of the same length, LoRA beside the weights and merged.

    Raises RecoveryError for a model of another family, and for one whose attention can't be read.
    """
    check_decoder("latency", model)
    check_readable(model)
    rows = [vocabulary_rows(model, prompt_tokens, seeded(number)) for number in range(max(counts))]
    kept = tuple(made for one in rows if (made := keep_root(body(model), as_root(model, one))) is not None)
    n_prompt = rows[0].numel()
    sides = [
        Bench(Side("none", "none", 0, 0), model),
        Bench(Side(f"prompt of {prompt_tokens}", "prompt", n_prompt, 1), model, kept[:1]),
    ]
    for count in counts:
        side = Side(f"idp, {count} prompts", "idp", count * n_prompt, count)
        sides.append(Bench(side, model, kept[:count], chooser_of(model, rows[:count], selection_layer)))
    beside, merged = Lora(rank=rank, merged=False), Lora(rank=rank, merged=True)
    values = beside.untrained(model)
    n_lora = sum(tensor.numel() for tensor in values.values())
    layers = {name.rpartition(".")[0] for name in values}
    sides.append(Bench(Side("lora, unmerged", "lora", n_lora, 0), beside.place(sharing_weights(model), values)))
    own = sharing_weights(model, but=frozenset(f"{name}.weight" for name in layers))
    sides.append(Bench(Side("lora, merged", "lora", 0, 0), merged.place(own, values)))
    return sides


def chooser_of(model: LoadedModel, prompts: Sequence[Rows], layer: int) -> Callable[[Tensor], Tensor]:
    """Chooses a prompt for each of some contexts [rows, tokens], as IDP does, and remembers none of them."""
    chooser = AttentionChooser(model, list(prompts), layer, length_normalised=False)
    return lambda ids: chooser.scores([tuple(row) for row in ids.tolist()]).argmax(-1)


def sharing_weights(model: LoadedModel, but: frozenset[str] = frozenset()) -> LoadedModel:
    """The same model with modules of its own around the same tensors; those parameters named by ``but`` are copied."""
    named = chain(model.module.named_parameters(remove_duplicate=False), model.module.named_buffers(remove_duplicate=False))
    shared = {id(tensor): tensor for name, tensor in named if name not in but}
    return replace(model, module=copy.deepcopy(model.module, shared))
