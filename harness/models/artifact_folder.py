"""A compressed checkpoint as a plain safetensors folder, so that it can be loaded, scored and compressed like any model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from harness.core.errors import ModelError, StorageError
from harness.models.artifact import read_artifact
from harness.models.artifact_fit import fitted
from harness.models.folders import family_of, first_line
from harness.models.quiet import quiet_transformers

_AUTO: dict[str, Any] = {
    "decoder": AutoModelForCausalLM,
    "encoder": AutoModelForMaskedLM,
    "seq2seq": AutoModelForSeq2SeqLM,
}
_NOT_COPIED = ("config.json", "quantize_config.json", "quant_config.json", "recipe.yaml", "model.safetensors.index.json")


def write_plain(folder: Path, target: Path) -> None:
    """Write a checkpoint's plain weights to ``target``, with its config and all that is not weights. Raises ModelError."""
    artifact = read_artifact(folder)
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"transformers can't read config.json in {folder} ({first_line(error)}).") from error
    for name in ("quantization_config", "compression_config"):
        if hasattr(config, name):
            delattr(config, name)
    with quiet_transformers(), torch.device("meta"):
        module = _AUTO[family_of(config)].from_config(config)
    tensors = {name: tensor.contiguous() for name, tensor in fitted(module, artifact.tensors, folder).items()}
    plain = {**config.to_dict(), "architectures": [type(module).__name__]}
    plain.pop("quantization_config", None)
    target.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in _NOT_COPIED and path.suffix in (".json", ".jinja", ".txt", ".model"):
            shutil.copyfile(path, target / path.name)
    (target / "config.json").write_text(json.dumps(plain, indent=2, sort_keys=True), encoding="utf-8")
    try:
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise StorageError(f"{target} was not written ({error}): check the free space and permissions.") from error
