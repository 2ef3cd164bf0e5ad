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

FORMATS = ("auto", "plain", "compressed-tensors", "gptq", "gptq_v2")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: ``format`` is one of ``FORMATS``, ``size_bytes`` that of its weights."""

    folder: Path
    format: str
    size_bytes: int


def export(candidate: Candidate, folder: Path, form: str = "auto") -> Exported:
    """Write a candidate's compressed model to ``folder``, read it back, and compare.

    ``auto`` is compressed-tensors (packed) where the method's weights lie on a grid that the format has, and plain weights in
    the dtype that they were scored in otherwise; ``gptq`` is AutoGPTQ's own layout, ``gptq_v2`` GPTQModel's second version of
    it. Raises ConfigError for a folder that holds something, a cell that is
    recovered or rounds its inputs, and a format that its method does not have; CompressionError, StorageError.
    """
    from harness.compression.packed import PACKABLE, ZERO_OFFSETS

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
    if form not in ("auto", "plain") and not packs:
        raise ConfigError(
            f"{made.method} leaves weights that {form} has no packing for ({', '.join(PACKABLE)} have one): take "
            "--format plain."
        )
    chosen = form if form != "auto" else "compressed-tensors" if packs else "plain"
    if chosen in ZERO_OFFSETS:
        _check_gptq(candidate, made)
    model = candidate.model()
    try:
        if chosen == "plain":
            _write_plain(model, folder)
        else:
            _write_packed(candidate, model, made, folder, chosen)
    except OSError as error:
        raise StorageError(f"{folder} was not written ({error}): check the free space and permissions.") from error
    _compare(model, folder)
    size_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return Exported(folder, chosen, size_bytes)


def _check_gptq(candidate: Candidate, made: CompressionRecord) -> None:
    """Raise ConfigError for a cell that GPTQ's own loaders would take for another model: they expect all layers packed."""
    scope, family = made.recipe.get("scope", "all"), candidate.plan.model.family
    if scope != "all" or family != "decoder":
        what = f"the layers of scope {scope!r}" if scope != "all" else f"a model of family {family!r}"
        raise ConfigError(
            f"GPTQ's layout is for decoders of which all layers are packed, and {candidate.plan.cell.id} has {what}: take "
            "--format compressed-tensors."
        )


def _write_plain(model: LoadedModel, folder: Path) -> None:
    from harness.models.quiet import quiet_transformers

    module: Any = model.module
    with quiet_transformers():
        module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def _write_packed(candidate: Candidate, model: LoadedModel, made: CompressionRecord, folder: Path, form: str) -> None:
    from safetensors.torch import save_file

    from harness.compression.packed import ZERO_OFFSETS, packed_layers, quantization_config
    from harness.compression.scopes import layers_of_scope

    scope = made.recipe.get("scope", "all")
    dense = candidate.dense_model()
    layers, dense_layers = (layers_of_scope(candidate.family().linear_layers(one), scope) for one in (model, dense))
    packed = packed_layers(layers, dense_layers, made.recipe, form)
    module: Any = model.module
    weights = {f"{name}.weight" for name in layers}
    rest = {name: one.detach().cpu().contiguous() for name, one in module.named_parameters() if name not in weights}
    config = {**module.config.to_dict(), "architectures": [type(module).__name__]}
    config["quantization_config"] = said = quantization_config(module, layers, made.recipe, form)
    model.tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    if form in ZERO_OFFSETS:  # where AutoGPTQ looks for it
        (folder / "quantize_config.json").write_text(json.dumps(said, indent=2, sort_keys=True), encoding="utf-8")
    save_file({**rest, **packed}, folder / "model.safetensors", metadata={"format": "pt"})


def _compare(model: LoadedModel, folder: Path) -> None:
    """Raise CompressionError unless the checkpoint holds the model's weights, or what both are in the narrower dtype."""
    from harness.models.artifact import read_artifact
    from harness.models.artifact_fit import fitted

    for name, tensor in fitted(model.module, read_artifact(folder).tensors, folder).items():
        weight = model.module.get_parameter(name).detach().cpu()
        narrower = min(tensor.dtype, weight.dtype, key=lambda dtype: dtype.itemsize)
        if not (tensor.to(narrower) == weight.to(narrower)).all():
            raise CompressionError(f"{folder} does not hold the weights that were scored ({name} differs): do not use it.")
