"""A model looked at while it reads: the attention maps and block outputs of a text, as transformers gives them.

Soft roots stand before the text as keys and values, as they do when the cell is scored, so that only the text's own tokens
are fed and looked at. One text is fed at a time, and what it leaves goes to the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness.compression.calibration import CalibrationText
from harness.core.errors import AnalysisError, ConfigError
from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues
from harness.models.seq2seq import decoder_start
from harness.scoring.encode import window_tokens
from harness.scoring.limits import deepest_path
from harness.scoring.rooted import beside_each_row, body, keep_root

Fed = tuple[int, ...]

_FIELDS: dict[str, dict[str, tuple[str, str | None]]] = {
    "decoder": {"decoder": ("attentions", "hidden_states")},
    "encoder": {"encoder": ("attentions", "hidden_states")},
    "seq2seq": {
        "encoder": ("encoder_attentions", "encoder_hidden_states"),
        "decoder": ("decoder_attentions", "decoder_hidden_states"),
        "cross": ("cross_attentions", None),
    },
}
"""By family, the stacks of a model and what transformers calls their maps and states."""


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """One stack on one text. ``maps``: a layer's attention, the root's ``n_root`` columns first. ``outputs``: what its block
    hands on; the last one is what the head is given, behind the model's last norm. ``is_causal``: the first token sees only
    itself."""

    maps: Sequence[Float[Tensor, "heads tokens keys"]]
    outputs: Sequence[Float[Tensor, "tokens hidden"]]
    n_root: int
    is_causal: bool


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """All stacks of a model on one text, and the number of the root that it was read behind."""

    stacks: Mapping[str, Layers]
    root: int


def cut_texts(text: CalibrationText, model: LoadedModel, *, n_texts: int, n_tokens: int) -> list[Fed]:
    """The first ``n_tokens`` tokens of the first documents that have as many, with the tokens that the model expects around a
    text (a decoder: before it). Raises ConfigError where they are fewer than ``n_texts``."""
    texts: list[Fed] = []
    for document in text.documents:
        if model.family == "decoder":
            ids = model.tokenizer(document, add_special_tokens=False)["input_ids"]
            fed = (model.document_start_id, *ids[: n_tokens - 1])
        else:
            fed = tuple(model.tokenizer(document, truncation=True, max_length=n_tokens)["input_ids"])
        if len(fed) == n_tokens and len(texts) < n_texts:
            texts.append(fed)
    if len(texts) < n_texts:
        raise ConfigError(
            f"text {text.name} has {len(texts)} documents of {n_tokens} tokens or more, and {n_texts} were asked for: take "
            "fewer or shorter ones (--texts, --tokens), or another text (--text)."
        )
    return texts


class Observer:
    """Looks at one model. Raises ConfigError for texts that don't fit into its window beside its roots, AnalysisError where
    transformers gives no attention maps of it, or where its layers keep different numbers of prompt positions."""

    def __init__(self, model: LoadedModel, n_tokens: int) -> None:
        self._model = model
        self._kept: dict[int, KeysValues | None] = {}
        config: Any = model.module.config
        if model.soft_roots and any(root.is_uneven for root in model.soft_roots.roots):
            raise AnalysisError(
                "idp in mode 'continue' has more prompts before some layers than before others, so that their attention can't "
                "be compared layer by layer: analyze the cell with mode 'exact', which shares its artifact."
            )
        taken = model.soft_roots.most_positions if model.soft_roots else 0
        window = min(window_tokens(config, model.tokenizer), deepest_path(config) or n_tokens + taken)
        if n_tokens + taken > window:
            raise ConfigError(
                f"{n_tokens} tokens behind {taken} prompt positions don't fit into what the model sees at once, {window}: ask "
                "for shorter texts (--tokens)."
            )

    def __call__(self, fed: Fed) -> Observed:
        """The model on one text."""
        number = int(self._model.soft_roots.choose([fed])[0]) if self._model.soft_roots else 0
        root = self._kept_root(number)
        n_root = 0 if root is None else int(root[0][0].shape[-2])
        with _maps_given(self._model), torch.inference_mode():
            made = body(self._model)(**self._inputs(fed, root), output_attentions=True, output_hidden_states=True)
        stacks = {
            name: self._layers(name, getattr(made, maps, None), getattr(made, states, None) if states else None, n_root)
            for name, (maps, states) in _FIELDS[self._model.family].items()
        }
        return Observed(stacks, number)

    def _kept_root(self, number: int) -> KeysValues | None:
        if self._model.soft_roots is None:
            return None
        if number not in self._kept:
            self._kept[number] = keep_root(body(self._model), self._model.soft_roots.roots[number])
        return self._kept[number]

    def _inputs(self, fed: Fed, root: KeysValues | None) -> dict[str, Any]:
        ids = torch.tensor([fed], device=self._model.device)
        if self._model.family == "seq2seq":
            start = torch.tensor([[decoder_start(self._model)]], device=self._model.device)
            return {"input_ids": ids, "decoder_input_ids": torch.cat([start, ids[:, :-1]], dim=1), "use_cache": False}
        if root is None:
            return {"input_ids": ids} | ({"use_cache": False} if self._model.family == "decoder" else {})
        n_root = root[0][0].shape[-2]
        positions = n_root + torch.arange(len(fed), device=self._model.device)[None]
        return {"input_ids": ids, "position_ids": positions, "past_key_values": beside_each_row(root, 1)}

    def _layers(self, name: str, maps: Any, states: Any, n_root: int) -> Layers:
        kind = type(self._model.module).__name__
        if not maps or any(one is None for one in maps):
            raise AnalysisError(
                f"transformers gives no attention maps of {kind} ({name}): it has no attention, or one that nobody can look "
                "at; there is nothing to compare."
            )
        outputs = () if states is None else states[1:]
        if states is not None and len(outputs) != len(maps):
            raise AnalysisError(
                f"{kind} ({name}) has {len(maps)} layers with attention and {len(outputs)} blocks: expected as many; its "
                "layers can't be told apart."
            )
        return Layers(
            [one[0].float().cpu() for one in maps], [one[0].float().cpu() for one in outputs], n_root, name == "decoder"
        )


@contextmanager
def _maps_given(model: LoadedModel) -> Iterator[None]:
    """While the block runs, attention is computed so that its maps can be had, in every part that has a config of its own."""
    parts: Any = [part for part in model.module.modules() if hasattr(getattr(part, "config", None), "_attn_implementation")]
    before = [(part.config, part.config._attn_implementation) for part in {id(part.config): part for part in parts}.values()]
    for config, _ in before:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for config, own in before:
            config._attn_implementation = own
