"""The regimes of a recovery: per layer, how like the dense model a cell attends and computes, and how much of its attention
goes to the prompt (Hoang et al., arXiv 2310.00867, who found that prompts and added weights differ in this).

The dense model is looked at first and what it shows kept on disk, so that one model is in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.analysis.observe import Fed, Layers, Observed, Observer
from harness.analysis.similarity import cosine_of_rows, even_share, share_of_root, sum_defined, without_root
from harness.core.errors import AnalysisError, StorageError
from harness.core.regimes import LayerValue, Stack
from harness.core.serial import storage_errors
from harness.core.verdicts import Estimate, NotEstimable
from harness.models.loaded import LoadedModel
from harness.stats.bootstrap import ratio_of_sums

LEVEL = 0.95
METHOD = "bootstrap over texts"

Tell = Callable[[int, int], None]
"""Hears how many texts of how many are done."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A cell's stacks; for each root its positions and how many texts chose it; see ``core.regimes.Regimes``."""

    stacks: tuple[Stack, ...]
    roots: tuple[tuple[int, int], ...]
    even_share: float | None


def keep_dense(model: LoadedModel, texts: Sequence[Fed], folder: Path, tell: Tell) -> None:
    """Look at the dense model and keep what it shows of each text in ``folder``. Raises AnalysisError, StorageError."""
    observe = Observer(model, len(texts[0]))
    for number, fed in enumerate(texts):
        _save(observe(fed), folder / f"{number}.safetensors")
        tell(number + 1, len(texts))


def compare(model: LoadedModel, texts: Sequence[Fed], folder: Path, tell: Tell) -> Compared:
    """Look at another model on the same texts, beside what ``keep_dense`` kept. Raises AnalysisError, StorageError."""
    from safetensors import SafetensorError, safe_open

    observe = Observer(model, len(texts[0]))
    sums: dict[str, _StackSums] = {}
    chosen: Counter[int] = Counter()
    for number, fed in enumerate(texts):
        seen = observe(fed)
        chosen[seen.root] += 1
        try:
            with safe_open(folder / f"{number}.safetensors", "pt") as dense:
                for name, layers in seen.stacks.items():
                    sums.setdefault(name, _StackSums()).add(name, layers, dense)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"what was kept of the dense model in {folder} can't be read ({error}): run again.") from error
        tell(number + 1, len(texts))
    roots = model.soft_roots.roots if model.soft_roots else ()
    even = sum(even_share(roots[number].n_positions, len(texts[0])) * n for number, n in chosen.items()) if roots else 0.0
    return Compared(
        stacks=tuple(made.stack(name) for name, made in sums.items()),
        roots=tuple((root.n_positions, chosen[number]) for number, root in enumerate(roots)),
        even_share=even / len(texts) if roots else None,
    )


@dataclass(slots=True)
class _Sums:
    """One quantity: for each text, [layers, heads] sums and counts over its tokens."""

    sums: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)

    def add(self, layers: Sequence[Tensor]) -> None:
        """One text's values: for each layer [heads, tokens]."""
        parts = [sum_defined(values) for values in layers]
        self.sums.append(torch.stack([total for total, _ in parts]))
        self.counts.append(torch.stack([count for _, count in parts]))

    def by_head(self) -> tuple[tuple[float | None, ...], ...]:
        """The mean of every layer's heads."""
        sums, counts = torch.stack(self.sums).sum(0), torch.stack(self.counts).sum(0)
        rows = zip(sums.tolist(), counts.tolist(), strict=True)
        return tuple(tuple(total / n if n else None for total, n in zip(*row, strict=True)) for row in rows)

    def by_layer(self) -> tuple[LayerValue, ...]:
        """The mean of every layer with its interval over texts."""
        sums, counts = (torch.stack(parts).sum(-1).numpy() for parts in (self.sums, self.counts))
        rng = np.random.default_rng(0)
        return tuple(_estimate(sums[:, layer], counts[:, layer], rng) for layer in range(sums.shape[1]))


@dataclass(slots=True)
class _StackSums:
    attention: _Sums = field(default_factory=_Sums)
    outputs: _Sums = field(default_factory=_Sums)
    to_root: _Sums = field(default_factory=_Sums)

    def add(self, name: str, layers: Layers, dense: Any) -> None:
        """One text, beside the dense model's tensors of it."""
        first = 1 if layers.is_causal else 0  # a causal text's first token sees only itself, whatever the model
        pairs = [(without_root(maps, layers.n_root), _dense(dense, f"{name}.map.{i}")) for i, maps in enumerate(layers.maps)]
        self.attention.add([cosine_of_rows(*_alike(ours, theirs))[:, first:] for ours, theirs in pairs])
        if layers.n_root:
            self.to_root.add([share_of_root(maps, layers.n_root) for maps in layers.maps])
        if layers.outputs:
            states = [(ours, _dense(dense, f"{name}.out.{i}")) for i, ours in enumerate(layers.outputs)]
            self.outputs.add([cosine_of_rows(*_alike(ours, theirs))[None] for ours, theirs in states])

    def stack(self, name: str) -> Stack:
        """The means over all texts."""
        return Stack(
            name=name,
            attention=self.attention.by_layer(),
            attention_heads=self.attention.by_head(),
            outputs=self.outputs.by_layer() if self.outputs.sums else (),
            to_root=self.to_root.by_layer() if self.to_root.sums else (),
            to_root_heads=self.to_root.by_head() if self.to_root.sums else (),
        )


def _estimate(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> LayerValue:
    if not (counts > 0).all():
        return NotEstimable("the model's numbers are not finite there, or all zero")
    made = ratio_of_sums(sums, counts, LEVEL, rng)
    return made if isinstance(made, NotEstimable) else Estimate(made.value, made.low, made.high, made.level, METHOD)


def _alike(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    if ours.shape != theirs.shape:
        raise AnalysisError(
            f"the cell's layers give {list(ours.shape)}, the dense model's {list(theirs.shape)}: a compression that changes "
            "a model's shape can't be compared layer by layer."
        )
    return ours, theirs


def _dense(kept: Any, name: str) -> Tensor:
    if name not in kept.keys():  # noqa: SIM118 - a file of safetensors is no mapping
        raise AnalysisError("the cell has more layers than the dense model: they can't be compared layer by layer.")
    tensor: Tensor = kept.get_tensor(name)
    return tensor


def _save(seen: Observed, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {}
    for name, layers in seen.stacks.items():
        tensors.update({f"{name}.map.{i}": maps.contiguous() for i, maps in enumerate(layers.maps)})
        tensors.update({f"{name}.out.{i}": states.contiguous() for i, states in enumerate(layers.outputs)})
    try:
        with storage_errors(path):
            save_file(tensors, path)
    except SafetensorError as error:
        raise StorageError(
            f"{path} can't be written ({error}): free some space, or ask for fewer or shorter texts (--texts, --tokens)."
        ) from error
