"""GPTQ (Frantar et al. 2023, arXiv 2210.17323) as llm-compressor does it: each layer is rounded column by column, the error
of every column made up for by those not yet rounded, as the calibration text weighs it. Blocks are done one after the
other, each on what the blocks compressed before it put out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import QUANTIZED_BITS, check_choice, check_count, check_finite, check_layers
from harness.compression.cost import quantized_bits, record_of
from harness.compression.quiet import sealed
from harness.core.errors import CompressionError, ConfigError, MissingDependencyError
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationSample, CalibrationText
    from harness.models.loaded import LoadedModel

_LIBRARIES = ("llmcompressor", "compressed-tensors", "torch", "transformers")
_SCALE_BITS = 16
_KERNEL = 1
"""Part of the recipe: raise it when the way to call the library changes results, so that no old weights are served."""


@dataclass(frozen=True, slots=True)
class Gptq:
    """Quantizes by GPTQ on the grid of ``rtn`` (float16 scales, from each group's reach before anything is rounded).

    ``bits`` a code; ``group_size`` weights a scale along a row (0: the whole row); ``symmetric``: no zero point;
    ``act_order``: columns of the strongest inputs first (groups stay where they are, so inference costs the same);
    ``n_samples`` calibration samples of ``sample_tokens`` tokens each, drawn with ``seed``; ``dampening``: what is added
    to the diagonal of the inputs' second moments, as a share of its mean.
    """

    name: ClassVar[str] = "gptq"
    stability: ClassVar[Stability] = "re-compressed"
    needs_text: ClassVar[bool] = True

    bits: int
    group_size: int = 64
    symmetric: bool = True
    act_order: bool = True
    n_samples: int = 16
    sample_tokens: int = 256
    dampening: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.name, "bits", self.bits, QUANTIZED_BITS)
        check_count(self.name, "group_size", self.group_size, least=0)
        check_choice(self.name, "symmetric", self.symmetric, (True, False))
        check_choice(self.name, "act_order", self.act_order, (True, False))
        check_count(self.name, "n_samples", self.n_samples, least=1)
        check_count(self.name, "sample_tokens", self.sample_tokens, least=1)
        check_count(self.name, "seed", self.seed, least=0)
        if not isinstance(self.dampening, float) or not 0 < self.dampening < 1:
            raise ConfigError(f"gptq: dampening = {self.dampening!r} is not possible: expected a number between 0 and 1.")

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:
        """Fields, the text's digest, and the versions of the libraries. Raises ConfigError, MissingDependencyError."""
        return {
            "method": self.name,
            "kernel": _KERNEL,
            **asdict(self),
            "calibration": _needed(text).digest,
            "libraries": {library: _version(library) for library in _LIBRARIES},
        }

    def compress(self, model: LoadedModel, layers: Mapping[str, nn.Linear], text: CalibrationText | None) -> CompressionRecord:
        """Quantize the layers in place, all or none. Raises CompressionError, ConfigError for an encoder-decoder."""
        started_s = time.perf_counter()
        _check_family(model)
        recipe = self.recipe(text)
        check_layers(self.name, layers, self.group_size)
        compressed = self._run(model, layers, self._sample(model, _needed(text)))
        for name, layer in layers.items():
            layer.weight.data.copy_(compressed[name])
            check_finite(self.name, name, layer)
        return record_of(
            model.module,
            layers.values(),
            method=self.name,
            recipe=recipe,
            stability=self.stability,
            compressed_bits=sum(map(self._bits_of, layers.values())),
            wall_s=time.perf_counter() - started_s,
        )

    def _sample(self, model: LoadedModel, text: CalibrationText) -> CalibrationSample:
        longest = getattr(getattr(model.module, "config", None), "max_position_embeddings", self.sample_tokens)
        if self.sample_tokens > longest:
            raise CompressionError(
                f"gptq: sample_tokens = {self.sample_tokens} is more than the model's {longest} positions: take fewer."
            )
        return text.draw(
            model.tokenizer,
            n_samples=self.n_samples,
            sample_tokens=self.sample_tokens,
            seed=self.seed,
            separator_id=model.document_start_id,
        )

    def _run(self, model: LoadedModel, layers: Mapping[str, nn.Linear], sample: CalibrationSample) -> dict[str, Any]:
        with sealed():
            from harness.compression.oneshot import gptq_modifier, run_oneshot

            modifier = gptq_modifier(
                layers,
                bits=self.bits,
                group_size=self.group_size,
                symmetric=self.symmetric,
                act_order=self.act_order,
                dampening=self.dampening,
            )
            return run_oneshot(model, tuple(layers), modifier, sample, label=self.name)

    def _bits_of(self, layer: nn.Linear) -> int:
        return quantized_bits(
            layer.out_features,
            layer.in_features,
            bits=self.bits,
            group_size=self.group_size,
            scale_bits=_SCALE_BITS,
            symmetric=self.symmetric,
        )


def _needed(text: CalibrationText | None) -> CalibrationText:
    if text is None:
        raise ConfigError("gptq needs a calibration text and got none: give the shipped one or a file of your own.")
    return text


def _check_family(model: LoadedModel) -> None:
    """llm-compressor can't follow T5's stacks from block to block: it would weigh all layers by the dense model at once."""
    if model.family == "seq2seq":
        raise ConfigError(
            "gptq: llm-compressor can't take a model of family 'seq2seq' block by block: take method 'rtn' for it, or gptq "
            "with a decoder or an encoder."
        )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            f"compression 'gptq' needs the package {library!r}, which is not installed: "
            "pip install 'retention-harness[measure]'."
        ) from error
