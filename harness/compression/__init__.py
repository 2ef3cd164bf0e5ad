"""Compression methods, one file each. A method is a frozen dataclass: its fields are the recipe, its verb ``compress``
changes a loaded model's linear layers in place and says what that cost; ``stability`` says whether doing it again gives
the same bits everywhere. Importing a method, making one and asking for its recipe load no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.digest import digest_json
from harness.core.records import CompressionRecord, Stability
from harness.core.shelf import Shelf

if TYPE_CHECKING:
    from torch import nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

COMPRESSION = Shelf(
    "compression",
    {
        "none": "harness.compression.none:NoCompression",
        "rtn": "harness.compression.rtn:Rtn",
        "gptq": "harness.compression.gptq:Gptq",
        "auto_gptq": "harness.compression.auto_gptq:AutoGptq",
        "awq": "harness.compression.awq:Awq",
        "sparsegpt": "harness.compression.sparsegpt:SparseGpt",
        "wanda": "harness.compression.wanda:Wanda",
        "magnitude": "harness.compression.magnitude:Magnitude",
        "last_dense": "harness.compression.last_dense:LastDense",
        "int8_dynamic": "harness.compression.int8_dynamic:Int8Dynamic",
        "noise": "harness.compression.noise:Noise",
        "artifact": "harness.compression.artifact:Artifact",
        "steps": "harness.compression.steps:Steps",
    },
)


class CompressionMethod(Protocol):
    """The contract of the shelf. Quantization is simulated: what is written back are the dequantized weights, in the plain
    layers and the model's own dtype, so every engine scores them; bits and bytes are counted as the format stores them. A
    method whose format rounds inputs too has the layers do so (``compression.inputs``)."""

    @property
    def name(self) -> str:
        """Its name on the shelf; like the next two, an attribute of the class."""

    @property
    def stability(self) -> Stability:
        """Whether doing it again gives the same bits everywhere."""

    @property
    def needs_text(self) -> bool:
        """Whether ``compress`` and ``recipe`` need a calibration text; the others ignore it."""

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:
        """Everything but the model that the result depends on, ready for JSON: fields, kernel version, and for methods
        with a library behind them its versions and the digest of the calibration text. Raises ConfigError without a
        needed text."""

    def compress(self, model: LoadedModel, layers: Mapping[str, nn.Linear], text: CalibrationText | None) -> CompressionRecord:
        """Compress ``layers`` (by their module names) in place; all else stays as it is.

        Raises CompressionError when the recipe does not fit the layers (nothing is changed then) or when it goes wrong
        on the way (load the model again then).
        """


def recipe_digest(method: CompressionMethod, text: CalibrationText | None = None) -> str:
    """The digest of a method's recipe: with the dense weights' digest, the identity of the compressed weights."""
    return digest_json(method.recipe(text))
