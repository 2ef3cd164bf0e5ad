"""What the methods that calibrate through llm-compressor do alike: their checks, their sample, what their recipes name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from harness.compression.checks import QUANTIZED_BITS, check_choice, check_count, check_finite, check_share
from harness.compression.quiet import sealed
from harness.core.errors import CompressionError, ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.compression.calibration import CalibrationSample, CalibrationText
    from harness.models.loaded import LoadedModel

_LIBRARIES = ("llmcompressor", "compressed-tensors", "torch", "transformers")


class Calibrated(Protocol):
    """The fields that these methods share."""

    @property
    def name(self) -> str:
        """The method's."""

    @property
    def n_samples(self) -> int:
        """Calibration samples."""

    @property
    def sample_tokens(self) -> int:
        """The tokens of each."""

    @property
    def seed(self) -> int:
        """What they are drawn with."""


def check_fields(method: Calibrated) -> None:
    """Raise ConfigError for a sample that can't be."""
    check_count(method.name, "n_samples", method.n_samples, least=1)
    check_count(method.name, "sample_tokens", method.sample_tokens, least=1)
    check_count(method.name, "seed", method.seed, least=0)


class SolvesGptq(Calibrated, Protocol):
    """What GPTQ is asked by, whoever computes it."""

    @property
    def bits(self) -> int:
        """A code."""

    @property
    def group_size(self) -> int:
        """Weights a scale; 0: the whole row."""

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is the middle."""

    @property
    def act_order(self) -> bool:
        """Whether columns of the strongest inputs come first."""

    @property
    def dampening(self) -> float:
        """A share of the mean of the second moments' diagonal."""


def check_gptq_fields(method: SolvesGptq) -> None:
    """Raise ConfigError for fields that GPTQ can't have."""
    check_choice(method.name, "bits", method.bits, QUANTIZED_BITS)
    check_count(method.name, "group_size", method.group_size, least=0)
    check_choice(method.name, "symmetric", method.symmetric, (True, False))
    check_choice(method.name, "act_order", method.act_order, (True, False))
    check_fields(method)
    check_share(method.name, "dampening", method.dampening)


def recipe_of(method: Calibrated, fields: Mapping[str, Any], kernel: int, text: CalibrationText | None) -> dict[str, Any]:
    """Fields, the text's digest, and the versions of the libraries. Raises ConfigError, MissingDependencyError."""
    return {
        "method": method.name,
        "kernel": kernel,
        **fields,
        "calibration": needed_text(method.name, text).digest,
        "libraries": {library: _version(method.name, library) for library in _LIBRARIES},
    }


def run(
    method: Calibrated,
    model: LoadedModel,
    layers: Mapping[str, nn.Linear],
    text: CalibrationText | None,
    modifiers: Callable[[Sequence[str]], list[Any]],
) -> dict[str, Tensor]:
    """The weights of ``layers`` after the library went through the model; the model itself is not touched.

    ``modifiers`` builds what it does to layers of these names. Raises CompressionError, ConfigError.
    """
    sample = sample_of(method, model, needed_text(method.name, text))
    with sealed():
        from harness.compression.oneshot import run_oneshot

        return run_oneshot(model, tuple(layers), modifiers(tuple(layers)), sample, label=method.name)


def write_back(method: str, layers: Mapping[str, nn.Linear], weights: Mapping[str, Tensor]) -> None:
    """Put compressed weights into a model's layers. Raises CompressionError for one with NaN or infinity."""
    for name, layer in layers.items():
        layer.weight.data.copy_(weights[name])
        check_finite(method, name, layer)


def needed_text(method: str, text: CalibrationText | None) -> CalibrationText:
    """The calibration text. Raises ConfigError where there is none."""
    if text is None:
        raise ConfigError(f"{method} needs a calibration text and got none: give the shipped one or a file of your own.")
    return text


def check_family(method: str, model: LoadedModel, *, families: Sequence[str] = ("decoder", "encoder")) -> None:
    """Raise ConfigError for a family that a method is not for.

    llm-compressor can't follow T5's stacks from block to block: it would weigh all layers by the dense model at once.
    """
    if model.family == "seq2seq":
        raise ConfigError(
            f"{method}: llm-compressor can't take a model of family 'seq2seq' block by block: take method 'rtn' or "
            f"'magnitude' for it, or {method} with {' or '.join(f'a model of family {name!r}' for name in families)}."
        )
    if model.family not in families:
        raise ConfigError(
            f"{method} is not for a model of family {model.family!r}: take method 'rtn' or 'gptq' for it, or {method} with "
            f"{' or '.join(f'a model of family {name!r}' for name in families)}."
        )


def sample_of(method: Calibrated, model: LoadedModel, text: CalibrationText) -> CalibrationSample:
    """The tokens that a method calibrates a model on. Raises CompressionError for more than there can be."""
    longest = getattr(getattr(model.module, "config", None), "max_position_embeddings", method.sample_tokens)
    if method.sample_tokens > longest:
        raise CompressionError(
            f"{method.name}: sample_tokens = {method.sample_tokens} is more than the model's {longest} positions: take fewer."
        )
    return text.draw(
        model.tokenizer,
        n_samples=method.n_samples,
        sample_tokens=method.sample_tokens,
        seed=method.seed,
        separator_id=model.document_start_id,
    )


def _version(method: str, library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            f"compression {method!r} needs the package {library!r}, which is not installed: "
            "pip install 'retention-harness[measure]'."
        ) from error
