"""What this machine can run and what is missing: for people who start, and for the first line of a bug report."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.execution.store import Store

_MEASURE = ("torch", "transformers", "safetensors", "gguf", "llmcompressor", "compressed-tensors", "huggingface-hub")
_ENOUGH_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, what was found, whether it stands in the way, and the remedy."""

    what: str
    found: str
    is_fine: bool
    remedy: str = ""


def examine(data: Path | None) -> Iterator[Finding]:
    """Look at Python, packages, device, cache, data mirror and hub access. Imports torch when it is there."""
    yield Finding("python", sys.version.split()[0], sys.version_info >= (3, 10), "install Python 3.10 or newer")
    missing = []
    for package in _MEASURE:
        found = _version(package)
        missing += [] if found else [package]
        yield Finding(package, found or "not installed", bool(found), "pip install 'retention-harness[measure]'")
    if "torch" not in missing:
        yield from _device()
    yield from _cache(Store.default().root)
    yield _mirror(data)
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0", "false", "False")
    yield Finding("model hub", "switched off by HF_HUB_OFFLINE" if offline else "allowed; asked only for hub: sources", True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch import", f"fails: {error}", False, "install torch again")
        return
    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    yield Finding("cpu", threads, True)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            name, free_bytes = torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)[0]
            yield Finding(f"cuda:{index}", f"{name}, {free_bytes / 2**30:.1f} GiB free", True)
    else:
        yield Finding("cuda", "none: the profile `embedded` runs here, the profile `gpu` does not", True)


def _cache(root: Path) -> Iterator[Finding]:
    there = next(path for path in (root, *root.parents) if path.exists())
    free_bytes = shutil.disk_usage(there).free
    yield Finding(
        "cache",
        f"{root}, {free_bytes / 2**30:.1f} GiB free",
        free_bytes >= _ENOUGH_BYTES and os.access(there, os.W_OK),
        "about 4 GiB are used by the embedded profile: free some space, or set HARNESS_CACHE to another disk",
    )


def _mirror(data: Path | None) -> Finding:
    if data is None:
        return Finding("data mirror", "none given (--data, HARNESS_DATA): the shipped facts need none", True)
    return Finding("data mirror", str(data), data.is_dir(), "give a folder that exists")
