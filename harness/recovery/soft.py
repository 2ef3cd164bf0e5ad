"""Soft prompts: rows of embeddings before every input, where they come from and what they do in the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness.core.errors import RecoveryError
from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues, SoftRoot, SoftRoots
from harness.recovery.trained import check_decoder, check_length

Rows = Float[Tensor, "positions hidden"]


def behind(method: str, model: LoadedModel, root: SoftRoot) -> LoadedModel:
    """The model with ``root`` before every input; a root without positions changes nothing. Raises RecoveryError."""
    check_decoder(method, model)
    check_length(method, model, root.n_positions)
    model.soft_roots = SoftRoots.of_one(root) if root.n_positions else None
    return model


def seeded(seed: int) -> torch.Generator:
    """The generator of a recipe's seed, on the CPU: the same numbers on every machine."""
    return torch.Generator().manual_seed(seed)


def token_rows(model: LoadedModel, ids: list[int]) -> Rows:
    """The embeddings of tokens as the model's first layer is fed them."""
    embed: Any = model.module.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        rows: Tensor = embed(torch.tensor([ids], dtype=torch.long, device=model.device))[0]
    return rows


def vocabulary_rows(model: LoadedModel, n: int, generator: torch.Generator) -> Rows:
    """The embeddings of ``n`` tokens drawn from the vocabulary, special tokens left out (Lester et al. 2021, section 3.2)."""
    special = set(model.tokenizer.all_special_ids)
    plain = [token for token in known_tokens(model) if token not in special]
    drawn = torch.randint(len(plain), (n,), generator=generator).tolist()
    return token_rows(model, [plain[place] for place in drawn])


def known_tokens(model: LoadedModel) -> range:
    """The tokens that both tokenizer and model have."""
    return range(min(len(model.tokenizer), model.module.get_input_embeddings().num_embeddings))  # type: ignore[operator]


def hidden_size(model: LoadedModel) -> int:
    """How wide a row of embeddings is."""
    return int(token_rows(model, [0]).shape[-1])


def as_root(model: LoadedModel, rows: Rows) -> SoftRoot:
    """Rows as a root of this model, in its dtype and on its device."""
    like = token_rows(model, [0])
    return SoftRoot(embeddings=rows.to(device=like.device, dtype=like.dtype))


def is_rotary(model: LoadedModel) -> bool:
    """Whether a model's positions are rotations, of which only differences count."""
    return bool(getattr(model.module.config, "rope_parameters", None))


def continued_roots(model: LoadedModel, prompts: Sequence[Rows], layer: int) -> tuple[SoftRoot, ...]:
    """For each prompt what stands before a context that goes on with it from layer ``layer`` + 1, after all prompts stood
    there side by side up to that layer, none seeing another. All of them end where the context begins. Raises RecoveryError.
    """
    end = sum(int(rows.shape[0]) for rows in prompts)
    apart = [keys_values_of(model, rows, end - int(rows.shape[0])) for rows in prompts]

    def side_by_side(number: int) -> tuple[Tensor, Tensor]:
        keys, values = zip(*(kept[number] for kept in apart), strict=True)
        return torch.cat(keys, dim=-2), torch.cat(values, dim=-2)

    below = tuple(side_by_side(number) for number in range(layer + 1))
    return tuple(SoftRoot(keys_values=below + kept[layer + 1 :]) for kept in apart)


def keys_values_of(model: LoadedModel, rows: Rows, first_position: int = 0) -> KeysValues:
    """The keys and values that rows have in every layer, standing at ``first_position`` and on.

    Raises RecoveryError for a model that keeps none.
    """
    module: Any = model.module
    n = rows.shape[0]
    with torch.no_grad():
        made = module(
            inputs_embeds=rows[None],
            position_ids=torch.arange(first_position, first_position + n, device=model.device)[None],
            use_cache=True,
        )
    layers = getattr(getattr(made, "past_key_values", None), "layers", None)
    if not layers or any(getattr(layer, "keys", None) is None or layer.keys.shape[-2] != n for layer in layers):
        raise RecoveryError(
            f"{type(module).__name__} keeps no keys and values of {n} positions in every layer (no attention, or a window "
            "shorter than the prompt): take recovery 'prompt' or 'lora' for it."
        )
    return tuple((layer.keys, layer.values) for layer in layers)
