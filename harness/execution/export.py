"""A cell's compressed model as a checkpoint that transformers loads, and that scores the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import CompressionError, ConfigError, StorageError

if TYPE_CHECKING:
    from harness.core.records import CompressionRecord
    from harness.execution.candidate import Candidate
    from harness.models.loaded import LoadedModel

FORMATS = ("auto", "plain", "compressed-tensors")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: ``format`` is one of ``FORMATS``, ``size_bytes`` that of its weights."""

    folder: Path
    format: str
    size_bytes: int


def export(candidate: Candidate, folder: Path, form: str = "auto") -> Exported:
    """Write a candidate's compressed model to ``folder``, read it back, and compare.

    ``auto`` is compressed-tensors (packed) where the method's weights lie on a grid that the format has, and plain weights in
    the dtype that they were scored in otherwise. Raises ConfigError for a folder that holds something, a cell that is
    recovered or rounds its inputs, and a format that its method does not have; CompressionError, StorageError.
    """
    from harness.compression.packed import PACKABLE

    if candidate.recovery().name != "none":
        raise ConfigError(
            f"{candidate.plan.cell.id} is recovered: only what was compressed can be exported, its cell with none."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: name a new folder, or an empty one.")
    manifest = candidate.weights()
    made = manifest.compression
    if manifest.inputs:
        raise ConfigError(
            f"{candidate.plan.cell.id} rounds its layers' inputs to {min(manifest.inputs.values())}, which no standard "
            "checkpoint says of itself: it can't be exported and score the same."
        )
    packs = made.method in PACKABLE
    if form == "compressed-tensors" and not packs:
        raise ConfigError(
            f"{made.method} leaves weights that compressed-tensors has no packing for ({', '.join(PACKABLE)} have one): take "
            "--format plain."
        )
    model = candidate.model()
    packs = packs and form != "plain"
    try:
        if packs:
            _write_packed(candidate, model, made, folder)
        else:
            _write_plain(model, folder)
    except OSError as error:
        raise StorageError(f"{folder} was not written ({error}): check the free space and permissions.") from error
    _compare(model, folder)
    size_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return Exported(folder, "compressed-tensors" if packs else "plain", size_bytes)


def _write_plain(model: LoadedModel, folder: Path) -> None:
    from harness.models.quiet import quiet_transformers

    module: Any = model.module
    with quiet_transformers():
        module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def _write_packed(candidate: Candidate, model: LoadedModel, made: CompressionRecord, folder: Path) -> None:
    from safetensors.torch import save_file

    from harness.compression.packed import packed_layers, quantization_config
    from harness.compression.scopes import layers_of_scope

    scope = made.recipe.get("scope", "all")
    dense = candidate.dense_model()
    layers, dense_layers = (layers_of_scope(candidate.family().linear_layers(one), scope) for one in (model, dense))
    packed = packed_layers(layers, dense_layers, made.recipe)
    module: Any = model.module
    weights = {f"{name}.weight" for name in layers}
    rest = {name: one.detach().cpu().contiguous() for name, one in module.named_parameters() if name not in weights}
    config = {**module.config.to_dict(), "architectures": [type(module).__name__]}
    config["quantization_config"] = quantization_config(module, layers, made.recipe)
    model.tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    save_file({**rest, **packed}, folder / "model.safetensors", metadata={"format": "pt"})


def _compare(model: LoadedModel, folder: Path) -> None:
    """Raise CompressionError unless the checkpoint holds the model's weights, each as it is or rounded to 16 bits once."""
    from harness.models.artifact import read_artifact
    from harness.models.artifact_fit import fitted

    for name, tensor in fitted(model.module, read_artifact(folder).tensors, folder).items():
        weight = model.module.get_parameter(name).detach().cpu()
        if not (tensor == weight.to(tensor.dtype)).all():
            raise CompressionError(f"{folder} does not hold the weights that were scored ({name} differs): do not use it.")
