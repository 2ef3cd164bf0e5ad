"""GPTQ as the package auto-gptq itself does it, for who must gate exactly what it makes: in an environment of its own
(``harness env auto-gptq``), in a child process, on a CUDA device. Everywhere else ``gptq`` is the method, and its checkpoints
load as ``artifact``."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compression.calibrated import check_family, check_gptq_fields, needed_text, sample_of
from harness.compression.checks import check_layers
from harness.compression.environment import ENVIRONMENTS, ready
from harness.core.digest import digest_json
from harness.core.errors import CompressionError, ConfigError
from harness.core.records import CompressionRecord, Stability

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from harness.compression.calibration import CalibrationText
    from harness.models.artifact import Artifact
    from harness.models.loaded import LoadedModel

ENVIRONMENT = "auto-gptq"
_KERNEL = 1
"""Part of the recipe: raise it when the way to call the package changes results, so that no old weights are served."""

_WORD_BITS = 32

_N_CHECKED = 2
"""Samples that both sides predict before anything is quantized."""

_MOST_APART = 0.02
"""How far the two sides' nats per token may lie apart, as a share: more than float16 moves them by."""


@dataclass(frozen=True, slots=True)
class AutoGptq:
    """Quantizes with auto-gptq 0.7.1; the model is in float16 there, and so are the scales.

    ``bits`` a code; ``group_size`` weights a scale along a row (0: the whole row); ``symmetric``: the zero point is the
    middle; ``act_order``: columns of the strongest inputs first; ``n_samples`` calibration samples of ``sample_tokens``
    tokens each, drawn with ``seed``; ``dampening``: a share of the mean of the second moments' diagonal.
    """

    name: ClassVar[str] = "auto_gptq"
    stability: ClassVar[Stability] = "re-compressed"
    needs_text: ClassVar[bool] = True

    bits: int
    group_size: int = 64
    symmetric: bool = True
    act_order: bool = True
    n_samples: int = 128
    sample_tokens: int = 256
    dampening: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_gptq_fields(self)

    def recipe(self, text: CalibrationText | None = None) -> dict[str, Any]:
        """Fields, the text's digest, and the pinned versions of the environment. Raises ConfigError."""
        return {
            "method": self.name,
            "kernel": _KERNEL,
            **asdict(self),
            "calibration": needed_text(self.name, text).digest,
            "libraries": ENVIRONMENTS[ENVIRONMENT].versions,
        }

    def compress(self, model: LoadedModel, layers: Mapping[str, nn.Linear], text: CalibrationText | None) -> CompressionRecord:
        """Quantize the layers, all or none. Raises ConfigError without CUDA, for another family or a scope,
        MissingDependencyError without the environment, CompressionError."""
        from harness.models.folders import block_layers

        started_s = time.perf_counter()
        check_family(self.name, model, families=("decoder",))
        if set(layers) != set(block_layers(model)):
            raise ConfigError("auto_gptq packs all layers of a model's blocks: take scope = 'all', or method = 'gptq'.")
        python = ready(ENVIRONMENT)
        check_layers(self.name, layers, self.group_size)
        _check_words(layers)
        recipe = self.recipe(text)
        sample = sample_of(self, model, needed_text(self.name, text))
        found = self._run(python, model, sample.token_ids)
        write_back(found, layers)
        n_weights = sum(layer.weight.numel() for layer in layers.values())
        return CompressionRecord(
            method=self.name,
            recipe=recipe,
            recipe_digest=digest_json(recipe),
            stability=self.stability,
            effective_bits=sum(found.packed_bits.values()) / n_weights,
            size_bytes=found.size_bytes,
            n_weights_compressed=n_weights,
            n_weights_total=sum(parameter.numel() for parameter in model.module.parameters()),
            wall_s=time.perf_counter() - started_s,
        )

    def _run(self, python: Path, model: LoadedModel, token_ids: np.ndarray) -> Artifact:
        from harness.compression.auto_gptq_worker import nats_per_token
        from harness.compression.child import run_job
        from harness.models.artifact import read_artifact

        with tempfile.TemporaryDirectory(prefix="auto-gptq-") as scratch:
            folder = Path(scratch)
            samples = _write_job(folder, model, token_ids, self._quantize_config())
            run_job(ENVIRONMENT, python, Path(__file__).with_name("auto_gptq_worker.py"), folder, _visible(model.device))
            theirs = json.loads((folder / "report.json").read_text(encoding="utf-8"))["nats_per_token"]
            ours = nats_per_token(model.module, samples[:_N_CHECKED])
            if not abs(theirs - ours) <= _MOST_APART * ours:
                raise CompressionError(
                    f"auto_gptq: its transformers reads the dense model otherwise than ours ({theirs:.3f} nats a token there, "
                    f"{ours:.3f} here, on the same text): this architecture's config can't be handed to it; take 'gptq'."
                )
            return read_artifact(folder / "packed")

    def _quantize_config(self) -> dict[str, Any]:
        """The fields in the package's own words."""
        return {
            "bits": self.bits,
            "group_size": self.group_size or -1,
            "sym": self.symmetric,
            "desc_act": self.act_order,
            "damp_percent": self.dampening,
        }


def _check_words(layers: Mapping[str, nn.Linear]) -> None:
    """Raise CompressionError for a layer that does not fill words: the package cuts off what is left over."""
    for name, layer in layers.items():
        if layer.in_features % _WORD_BITS or layer.out_features % _WORD_BITS:
            raise CompressionError(
                f"auto_gptq packs widths that are multiples of {_WORD_BITS}, and {name!r} has {layer.in_features} inputs and "
                f"{layer.out_features} outputs: take method = 'gptq'."
            )


def _write_job(folder: Path, model: LoadedModel, token_ids: np.ndarray, quantize_config: Mapping[str, Any]) -> Tensor:
    """What the child needs, in ``folder``; gives back the samples."""
    import torch
    from safetensors.torch import save_file

    from harness.models.quiet import quiet_transformers

    module: Any = model.module
    with quiet_transformers():
        module.save_pretrained(folder / "dense")
    config = folder / "dense" / "config.json"
    config.write_text(json.dumps(older_config(json.loads(config.read_text(encoding="utf-8")))), encoding="utf-8")
    samples = torch.from_numpy(token_ids)
    save_file({"token_ids": samples}, folder / "samples.safetensors")
    job = {"quantize_config": quantize_config, "n_checked": _N_CHECKED}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return samples


def older_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers 5 in the words of 4.46, which passes over what it does not know.

    >>> older_config({"dtype": "float32", "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}})
    {'torch_dtype': 'float32', 'rope_theta': 100000.0}
    """
    made = {"torch_dtype" if key == "dtype" else key: value for key, value in config.items() if key != "rope_parameters"}
    rope = dict(config.get("rope_parameters") or {})
    if "rope_theta" in rope:
        made["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        made["rope_scaling"] = rope
    return made


def write_back(found: Artifact, layers: Mapping[str, nn.Linear]) -> None:
    """Put the checkpoint's weights into the layers, and leave all else as it is. Raises CompressionError."""
    if set(found.packed_bits) != set(layers):
        odd = sorted(set(found.packed_bits) ^ set(layers))
        raise CompressionError(
            f"auto_gptq packed {len(found.packed_bits)} layers of {len(layers)} ({odd[0]!r} is one that differs): it knows "
            "this architecture's blocks otherwise; take method = 'gptq'."
        )
    weights = {name: found.tensors[f"{name}.weight"] for name in layers}
    if odd_shapes := [name for name, layer in layers.items() if weights[name].shape != layer.weight.shape]:
        raise CompressionError(f"auto_gptq packed {odd_shapes[0]!r} in another shape than the model has it.")
    for name, layer in layers.items():
        layer.weight.data.copy_(weights[name])


def _visible(device: str) -> dict[str, str]:
    """The one device that the model is on, where it has a number: of those that we see ourselves."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number:
        return {}
    seen = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    return {"CUDA_VISIBLE_DEVICES": seen[int(number)] if seen else number}
