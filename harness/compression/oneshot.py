"""llm-compressor's ``oneshot``, held at arm's length: with ``modifiers`` the only importer of llmcompressor.

The library leaves much behind in a model: observers, scales, wrapped ``forward`` and ``save_pretrained``. So it works on a
copy, of which only the weights are taken. It runs in a session of its own, saves nothing and downloads nothing.

On a CPU it runs in one thread: its many tiny steps gain little from more (SmolLM2: 48 s instead of 36 s on two idle cores),
wait for each other without end when another process has a core (11 minutes), and would round differently.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import loguru
import torch
from llmcompressor.core import create_session
from llmcompressor.entrypoints.oneshot import oneshot
from llmcompressor.modifiers import Modifier
from llmcompressor.pipelines.cache import IntermediatesCache
from pydantic import PrivateAttr
from torch import Tensor, nn
from torch.fx.proxy import TraceError
from torch.utils.data import DataLoader

from harness.compression.calibration import CalibrationSample
from harness.core.errors import CompressionError

if TYPE_CHECKING:
    from harness.models.loaded import LoadedModel

log = logging.getLogger(__name__)

BATCH_SAMPLES = 8
"""Samples fed at once. Another number sums in another order, so a few weights may round the other way."""

_NO_NEWS = "get_main_device"
"""The function that warns, many times, that there is no GPU."""


def run_oneshot(
    model: LoadedModel, layers: Sequence[str], modifiers: Sequence[Modifier], sample: CalibrationSample, *, label: str
) -> dict[str, Tensor]:
    """The weights of ``layers`` after modifiers saw ``sample``, block by block; ``model`` itself is not touched.

    Needs the memory of a second model. Logs the progress (INFO, after ``label``) and the library's warnings.
    Raises CompressionError.
    """
    scratch: Any = copy.deepcopy(model.module)
    scratch.config._name_or_path = str(model.folder)  # the library reads the config there again
    progress = _Progress()
    progress.watch(label, [scratch.get_submodule(name) for name in layers])
    blocks = torch.from_numpy(sample.token_ids).to(model.device)
    batches: Any = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in torch.split(blocks, BATCH_SAMPLES)]
    with create_session(), _warnings_to_logging(), _one_thread(), _nothing_pinned():
        try:
            oneshot(
                model=scratch,
                tokenizer=model.tokenizer,
                recipe=[*modifiers, progress],
                dataset=DataLoader(batches, batch_size=None),
                pipeline="sequential",
            )
        except (RuntimeError, ValueError, TraceError) as error:
            raise CompressionError(f"llm-compressor could not compress the model ({error}): it was left as it was.") from error
    return {name: scratch.get_submodule(name).weight.detach() for name in layers}


class _Progress(Modifier):
    """Changes nothing; logs a line whenever a block of the model is done."""

    _label: str = PrivateAttr(default="")
    _left: set[nn.Module] = PrivateAttr(default_factory=set)
    _n_layers: int = PrivateAttr(default=0)
    _started_s: float = PrivateAttr(default=0.0)

    def watch(self, label: str, layers: list[nn.Module]) -> None:
        self._label = label
        self._left = set(layers)
        self._n_layers = len(layers)
        self._started_s = time.monotonic()

    def on_initialize(self, *_: Any, **__: Any) -> bool:
        return True

    def on_sequential_epoch_end(self, state: Any, event: Any, modules: list[nn.Module], **_: Any) -> None:  # noqa: ARG002
        if not self._left.isdisjoint(modules):
            self._left -= set(modules)
            n_done = self._n_layers - len(self._left)
            elapsed_s = time.monotonic() - self._started_s
            log.info("%s: %d of %d layers compressed, %.0f s", self._label, n_done, self._n_layers, elapsed_s)


@contextmanager
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def _nothing_pinned() -> Iterator[None]:
    """Without a GPU the library's AWQ still wants memory pinned for one, which torch refuses."""
    cache: Any = IntermediatesCache
    pin = cache.pin_memory
    if not torch.accelerator.is_available():
        cache.pin_memory = lambda *_, **__: None
    try:
        yield
    finally:
        cache.pin_memory = pin


@contextmanager
def _warnings_to_logging() -> Iterator[None]:
    def forward(message: Any) -> None:
        if message.record["level"].name != "METRIC":
            log.warning("%s", message.record["message"])

    def is_news(record: Any) -> bool:
        return record["name"].partition(".")[0] in ("llmcompressor", "compressed_tensors") and record["function"] != _NO_NEWS

    sink = loguru.logger.add(forward, level="WARNING", filter=is_news, format="{message}")
    try:
        yield
    finally:
        loguru.logger.remove(sink)
