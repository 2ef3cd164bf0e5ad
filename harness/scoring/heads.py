"""The output head at chosen places only: at the others its logits, a vocabulary wide, would be made for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.loaded import LoadedModel
from harness.scoring.answers import AGREE_NATS


@contextmanager
def head_at(body: nn.Module, places: Tensor) -> Iterator[None]:
    """While the block runs, the body gives the head its states at ``places`` only, as one row."""

    def narrow(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[places][None]
        return output

    hook = body.register_forward_hook(narrow)
    try:
        yield
    finally:
        hook.remove()


def head_runs_anywhere(model: LoadedModel) -> bool:
    """Whether the head gives the same at chosen places as at all of them: so it does unless it looks at other places too."""
    module: Any = model.module
    n_tokens = module.get_input_embeddings().num_embeddings
    ids = (torch.arange(24, device=model.device).reshape(3, 8) * 17 + 11) % n_tokens
    places = torch.tensor([1, 6, 8, 15, 20], device=model.device)
    with torch.inference_mode():
        whole = module(input_ids=ids).logits.flatten(0, 1)[places].float().log_softmax(-1)
        try:
            with head_at(module.base_model, places):
                chosen = module(input_ids=ids).logits[0].float().log_softmax(-1)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            return False  # a head that wants whole rows says so in many ways
    return chosen.shape == whole.shape and bool((chosen - whole).abs().max() <= AGREE_NATS[model.dtype])
