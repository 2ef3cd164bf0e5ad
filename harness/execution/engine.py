"""What the numbers were computed with: versions, device, dtype, threads, kind of processor, commit."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ATTENTION = "sdpa"


def describe_engine(device: str, dtype: str, *, scores: bool = True) -> dict[str, str]:
    """The engine of a run as names and values; ``core.records.ENGINE_IDENTITY`` says which of them identify it.

    ``device`` and ``dtype`` are as ``models.device`` picked them. ``scores``: whether the scorers do the work, which may
    multiply by another library than torch takes by itself; what calls the model's own code does not.
    """
    import torch

    from harness.scoring.products import multiplies_by_onednn

    on_gpu = device.startswith("cuda")
    told = {
        "torch": version("torch").partition("+")[0],
        "transformers": version("transformers"),
        "device": device.partition(":")[0],
        "dtype": dtype,
        "attention": ATTENTION,
        "threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "hardware": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "python": platform.python_version(),
    }
    return {**told, "products": "oneDNN"} if scores and multiplies_by_onednn(device, dtype) else told


def harness_version() -> str:
    """The installed version, or "unknown" when it runs uninstalled."""
    try:
        return version("retention-harness")
    except PackageNotFoundError:
        return "unknown"


def read_commit(folder: Path) -> str:
    """The git commit of a folder, with "+changes" where tracked files differ from it; "unknown" outside of git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    return f"{commit}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@contextmanager
def limit_threads(n_threads: int | None) -> Iterator[None]:
    """Run torch on so many threads inside; None leaves the number as it is."""
    if n_threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
