"""What a compression left and took, as measured: zeros, how far each layer is from its dense weights, memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from safetensors import safe_open
from torch import Tensor, nn

from harness.core.records import CompressionCost
from harness.models.digest import loaded_files

_SAMPLED_EVERY_S = 0.05


class Peak:
    """The most memory that was taken while a block ran; 0 until it ends."""

    def __init__(self) -> None:
        self.n_bytes = 0


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """While the block runs: on CUDA what torch allocated at most, on a CPU what the process held at most (sampled)."""
    peak = Peak()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.n_bytes = torch.cuda.max_memory_allocated(device)
        return
    process, done = psutil.Process(), threading.Event()

    def watch() -> None:
        while True:
            peak.n_bytes = max(peak.n_bytes, process.memory_info().rss)
            if done.wait(_SAMPLED_EVERY_S):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def cost_of(module: nn.Module, layers: Mapping[str, nn.Linear], dense: Path, peak: Peak) -> CompressionCost:
    """What there is of a compressed model, beside the dense weights in the safetensors files of ``dense``.

    They are read layer by layer, so that no second model is in memory. Where a family's files name its weights otherwise than
    its modules (GPT-NeoX), there is no error to measure.
    """
    errors = dict(_errors(layers, dense))
    worst = max(errors, key=errors.__getitem__, default="")
    n_weights = sum(layer.weight.numel() for layer in layers.values())
    return CompressionCost(
        sparsity=sum(int((layer.weight == 0).sum()) for layer in layers.values()) / n_weights,
        error_mean=sum(errors.values()) / len(errors) if errors else None,
        error_max=errors[worst] if errors else None,
        worst_layer=worst,
        memory_bytes=sum(parameter.numel() * parameter.element_size() for parameter in module.parameters()),
        peak_memory_bytes=peak.n_bytes,
    )


def relative_error(weight: Tensor, dense: Tensor) -> float:
    """The Frobenius norm of a weight's change, as a share of the dense weight's norm, which is not 0.

    >>> relative_error(torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    0.8
    """
    return float((weight.double() - dense.double()).norm() / dense.double().norm())


def _errors(layers: Mapping[str, nn.Linear], dense: Path) -> Iterator[tuple[str, float]]:
    for file in loaded_files(dense):
        with safe_open(file, framework="pt") as stored:
            names = set(stored.keys())
            for name, layer in layers.items():
                if f"{name}.weight" in names:
                    before = stored.get_tensor(f"{name}.weight").to(layer.weight.dtype).to(layer.weight.device)
                    if before.shape == layer.weight.shape and before.any():
                        yield name, relative_error(layer.weight.detach(), before)
