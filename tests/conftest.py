"""What tests of several rooms share: the embedded real model, and checkpoints packed by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from harness.core.errors import DownloadError
from harness.execution.matrix import read_matrix
from harness.execution.store import Store

if not settings().derandomize:  # in CI hypothesis has a profile of its own; a busy machine is no mistake either way
    settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("desk")

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"


@pytest.fixture(scope="session")
def embedded_model():  # type: ignore[no-untyped-def]
    """The embedded profile's model on disk (a ResolvedModel); skips with the reason where it can't be had."""
    pytest.importorskip("torch")
    from harness.models.sources import resolve

    entry = read_matrix(MATRIX, "embedded").plan("llama_none_none").model
    try:
        return resolve(entry.source, entry.sha256, Store.default().root)
    except DownloadError as error:
        pytest.skip(f"the embedded model can't be had here: {error}")


@pytest.fixture(scope="session")
def pack_by_bits() -> Callable[[Any, int], Any]:
    """Codes of each row in 32-bit words, one bit after the other, lowest first: slow, and with nothing to get wrong."""
    torch = pytest.importorskip("torch")

    def pack(codes: Any, bits: int) -> Any:
        rows = []
        for row in codes.tolist():
            stream = [(code >> bit) & 1 for code in row for bit in range(bits)]
            stream += [0] * (-len(stream) % 32)
            words = [sum(bit << place for place, bit in enumerate(stream[i : i + 32])) for i in range(0, len(stream), 32)]
            rows.append([word - 2**32 if word >= 2**31 else word for word in words])
        return torch.tensor(rows, dtype=torch.int32)

    return pack


@pytest.fixture(scope="session")
def save_gptq(pack_by_bits: Callable[[Any, int], Any]) -> Callable[[Path, Path], Path]:
    """The model of a plain folder, rounded to 4 bits in groups of 16 and packed as AutoGPTQ does, with its biases of zeros.

    ``rounded.safetensors`` beside the packed folder holds the plain weights that it stands for.
    """
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    def save(dense: Path, folder: Path) -> Path:
        shutil.copytree(dense, folder)
        tensors = load_file(folder / "model.safetensors")
        rounded = dict(tensors)
        for name in [name for name in tensors if "proj" in name]:
            layer = name.removesuffix(".weight")
            weight = tensors.pop(name)
            groups = weight.unflatten(1, (-1, 16))
            scales = (groups.abs().amax(-1) / 7).half()  # out × groups
            codes = (groups / scales.float()[..., None]).round().clamp(-8, 7).flatten(1).long() + 8
            rounded[name] = ((codes - 8).half() * scales.repeat_interleave(16, 1)).float()
            tensors[f"{layer}.qweight"] = pack_by_bits(codes, 4).t().contiguous()
            tensors[f"{layer}.qzeros"] = pack_by_bits(torch.full(scales.t().shape, 8 - 1), 4)
            tensors[f"{layer}.scales"] = scales.t().contiguous()
            tensors[f"{layer}.g_idx"] = (torch.arange(weight.shape[1]) // 16).int()
            tensors[f"{layer}.bias"] = torch.zeros(weight.shape[0])
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        save_file(rounded, folder.parent / "rounded.safetensors")
        said = json.loads((folder / "config.json").read_text())
        said["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": True}
        (folder / "config.json").write_text(json.dumps(said))
        return folder

    return save
