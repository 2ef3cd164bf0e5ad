"""Tries as rows of one batch, padded to the widest, under a 4-D mask: for architectures that let nobody else attend for them,
but take a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues
from harness.scoring.rooted import beside_each_row, body, n_positions
from harness.scoring.trie import Trie


def feed_padded(
    model: LoadedModel, tries: Sequence[Trie], kept: KeysValues | None, n_stem: int
) -> tuple[Float[Tensor, "places hidden"], Int[np.ndarray, " tries"]]:
    """The body's last hidden states, and where those of each trie begin; ``kept`` ends with the stem, which is not fed."""
    n_kept = n_positions(kept)
    width = max(trie.n_nodes for trie in tries) - n_stem
    ids = np.zeros((len(tries), width), dtype=np.int64)
    positions = np.full_like(ids, n_kept)
    visible = np.zeros((len(tries), width, n_kept + width), dtype=np.bool_)
    visible[:, :, n_kept:] = np.eye(width, dtype=np.bool_)  # padding sees itself
    for row, trie in enumerate(tries):
        n = trie.n_nodes - n_stem
        ids[row, :n], positions[row, :n] = trie.tokens[n_stem:], n_kept - n_stem + trie.depths[n_stem:]
        visible[row, :n, :n_kept] = True
        visible[row, :n, n_kept : n_kept + n] = trie.visible()[n_stem:, n_stem:]
    device, dtype = model.device, next(model.module.parameters()).dtype
    mask = torch.zeros((len(tries), 1, width, n_kept + width), dtype=dtype, device=device)
    mask.masked_fill_(~torch.from_numpy(visible).to(device)[:, None], torch.finfo(dtype).min)
    before = {} if kept is None else {"past_key_values": beside_each_row(kept, len(tries))}
    out = body(model)(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=mask,
        position_ids=torch.from_numpy(positions).to(device),
        use_cache=kept is not None,
        **before,
    )
    states: Tensor = out.last_hidden_state
    return states.flatten(0, 1), width * np.arange(len(tries))
