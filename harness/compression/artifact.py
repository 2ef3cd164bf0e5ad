"""A compression that was done elsewhere: the checkpoint that a team is about to release, whatever tool made it.

Its weights take the place of the dense model's, all of them (AWQ hides its scales in norms), so that a release is a cell
beside its own dense model: what was kept, lost and gained, and at how many bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.checks import check_choice, check_layers
from harness.core.digest import digest_file, digest_json
from harness.core.errors import CompressionError, ConfigError
from harness.core.records import CompressionRecord, Stability
from harness.models.artifact_config import read_quantization, weight_files
from harness.models.digest import digest_config, digest_weights_files

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.compression.calibration import CalibrationText
    from harness.models.loaded import LoadedModel

_KERNEL = 1
"""Part of the recipe: raise it when a checkpoint would be unpacked to other weights, so that no old ones are served."""

_LEAST_COSINE = 0.9
"""How alike the token embeddings of a checkpoint and its base model are at least. No tool here moves them much (GGUF's 2 bits:
0.97); those of two models have nothing in common."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Takes the weights of the checkpoint in ``folder``: safetensors packed by AutoGPTQ, GPTQModel, AutoAWQ, llm-compressor,
    bitsandbytes or torchao (``models.artifact``), or plain ones. ``pickled``: where there are none, the tensors of pickled
    files, and nothing else of them, are read too."""

    name: ClassVar[str] = "artifact"
    stability: ClassVar[Stability] = "stable"
    needs_text: ClassVar[bool] = False

    folder: str
    pickled: bool = False

    def __post_init__(self) -> None:
        check_choice(self.name, "pickled", self.pickled, (True, False))
        if not isinstance(self.folder, str) or not self.folder:
            raise ConfigError(
                f"artifact: folder = {self.folder!r} is not possible: expected the path of a checkpoint's folder."
            )

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:  # noqa: ARG002 - the contract's
        """The content of the checkpoint, wherever it lies: digests of its tensors and of what its config says."""
        folder = Path(self.folder)
        files = weight_files(folder, pickled=self.pickled)
        said = read_quantization(folder)
        is_pickled = files[0].suffix != ".safetensors"
        return {
            "method": self.name,
            "kernel": _KERNEL,
            "format": "plain" if said is None else said.format,
            "weights": digest_json([digest_file(file) for file in files]) if is_pickled else digest_weights_files(files),
            "config": digest_json({} if said is None else said.identity),
            "model_config": digest_config(folder) if (folder / "config.json").is_file() else "",
        }

    def compress(
        self,
        model: LoadedModel,
        layers: Mapping[str, nn.Linear],
        text: CalibrationText | None,  # noqa: ARG002 - the contract's
    ) -> CompressionRecord:
        """Put the checkpoint's weights in. Raises CompressionError, ModelError for one of another base model."""
        from harness.models.artifact import read_artifact
        from harness.models.artifact_fit import check_config, fitted
        from harness.models.folders import block_layers

        started_s = time.perf_counter()
        check_layers(self.name, layers, group_size=0)
        folder = Path(self.folder)
        recipe = self.recipe()
        check_config(model.module, folder)
        found = read_artifact(folder, pickled=self.pickled)
        beyond = sorted(set(found.packed_bits) - set(layers))
        if beyond:
            raise CompressionError(
                f"{folder} has {beyond[0]!r} packed, which is no layer of this scope ({len(beyond)} such layers): take "
                "scope = 'all'; a packed head or embedding can't be compared layer by layer."
            )
        if not found.packed_bits and set(layers) != set(block_layers(model)):
            raise CompressionError(f"{folder} is plain, so no scope says what was done to it: take scope = 'all'.")
        tensors = fitted(model.module, found.tensors, folder)
        self._check_base(model, tensors)
        for name, parameter in model.module.named_parameters():
            parameter.data.copy_(tensors[name])
        packed = {name: layers[name].weight.numel() for name in found.packed_bits}
        n_bits = sum(found.packed_bits.values())
        return CompressionRecord(
            method=self.name,
            recipe=recipe,
            recipe_digest=digest_json(recipe),
            stability=self.stability,
            effective_bits=n_bits / sum(packed.values()) if packed else 8.0 * _mean_bytes(layers, found.tensors),
            size_bytes=found.size_bytes,
            n_weights_compressed=sum(packed.values()),
            n_weights_total=sum(parameter.numel() for parameter in model.module.parameters()),
            wall_s=time.perf_counter() - started_s,
        )

    def _check_base(self, model: LoadedModel, tensors: Mapping[str, Tensor]) -> None:
        """Raise CompressionError for a checkpoint of the same shapes, but of another model's weights."""
        embedding = model.module.get_input_embeddings().weight  # type: ignore[operator]
        name = next(name for name, parameter in model.module.named_parameters() if parameter is embedding)
        ours, theirs = embedding.detach().double().flatten(), tensors[name].to(embedding.device).double().flatten()
        cosine = float(ours @ theirs / (ours.norm() * theirs.norm()))
        if not cosine >= _LEAST_COSINE:
            raise CompressionError(
                f"{self.folder} is an artifact of another base model: the cosine of its token embeddings with those of "
                f"{model.folder} is {cosine:.2f}, expected at least {_LEAST_COSINE}; name the model that it was made from."
            )


def _mean_bytes(layers: Mapping[str, nn.Linear], tensors: Mapping[str, Tensor]) -> float:
    """The bytes of a weight of the layers, as a plain checkpoint stores them."""
    stored = [tensors[f"{name}.weight"] for name in layers]
    return sum(one.numel() * one.element_size() for one in stored) / sum(one.numel() for one in stored)
