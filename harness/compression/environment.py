"""Environments of their own for packages that need other versions than ours: made once in the cache, by name, pinned.

What such a package does, it does in a child process (``compression.child``); nothing of it is ever imported here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from harness.core.digest import digest_json
from harness.core.errors import ConfigError, DownloadError, FileFormatError, MissingDependencyError, StorageError
from harness.core.records import record
from harness.core.serial import read_json, storage_errors, write_json
from harness.core.shelf import unknown_name
from harness.models.cache import cache_root

MANIFEST = "environment.json"


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed, exactly, and the first and last Python (of version 3) that there are files for."""

    name: str
    requirements: tuple[str, ...]
    pythons: tuple[int, int]

    @property
    def folder(self) -> Path:
        """Where it lies: in the cache, named by what it holds."""
        return cache_root() / "environments" / f"{self.name}-{digest_json(self.requirements)[:12]}"

    @property
    def versions(self) -> dict[str, str]:
        """The pinned versions by package: part of the recipe of what runs there."""
        return dict(requirement.split("==") for requirement in self.requirements)


ENVIRONMENTS = {
    "auto-gptq": Environment(
        "auto-gptq",
        (
            "auto-gptq==0.7.1",
            "transformers==4.46.3",
            "datasets==3.1.0",
            "peft==0.13.2",
            "accelerate==1.1.1",
            "torch==2.5.1",
            "numpy==1.26.4",
        ),
        pythons=(9, 11),
    )
}


@record
class _Manifest:
    """A finished environment: ``requirements`` as they were asked for."""

    requirements: tuple[str, ...]
    python: str


def ready(name: str) -> Path:
    """The interpreter of an environment. Raises ConfigError without CUDA, MissingDependencyError where it was not made."""
    check_cuda(name)
    found = ENVIRONMENTS[name]
    if not _is_whole(found):
        raise MissingDependencyError(
            f"{name} runs in an environment of its own, which is not made yet: `harness env {name}` makes it ({found.folder})."
        )
    return _interpreter(found.folder)


def make_environment(name: str, tell: Callable[[str], None], *, python: str | None = None) -> Path:
    """The folder of an environment, made where it is not there; ``python`` is the interpreter to make it with (None: ours).

    Nothing is installed before everything that can be known is known to fit. Raises UnknownNameError, ConfigError (no CUDA, an
    interpreter of another version), DownloadError, StorageError.
    """
    if name not in ENVIRONMENTS:
        raise ConfigError(unknown_name("environment", name, ENVIRONMENTS))
    check_cuda(name)
    environment = ENVIRONMENTS[name]
    chosen = python or sys.executable
    _check_python(environment, chosen)
    folder = environment.folder
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if _is_whole(environment):
                tell(f"{name} is there already: {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
                _install(environment, chosen, tell)
                write_json(folder / MANIFEST, _Manifest(environment.requirements, chosen))
    return folder


def cuda_devices() -> tuple[str, ...]:
    """The CUDA devices that the driver lists, whatever torch is installed here."""
    found = shutil.which("nvidia-smi")
    if found is None:
        return ()
    done = subprocess.run([found, "-L"], capture_output=True, text=True, errors="replace", check=False)
    return tuple(line for line in done.stdout.splitlines() if line.startswith("GPU ")) if done.returncode == 0 else ()


def check_cuda(name: str) -> None:
    """Raise ConfigError on a machine without a CUDA device."""
    if not cuda_devices():
        raise ConfigError(
            f"{name} quantizes on a CUDA device, and this machine has none (nvidia-smi -L): nothing was installed or changed; "
            "run it where there is one, and name the checkpoint here with method = 'artifact', or take "
            "method = 'gptq', which runs anywhere."
        )


def _is_whole(environment: Environment) -> bool:
    try:
        found = read_json(environment.folder / MANIFEST, _Manifest)
    except FileFormatError:
        return False
    return found.requirements == environment.requirements and _interpreter(environment.folder).exists()


def _interpreter(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _check_python(environment: Environment, python: str) -> None:
    first, last = environment.pythons
    wanted = f"expected Python 3.{first} to 3.{last}, for which {environment.name} has files: name one with --python"
    try:
        done = subprocess.run([python, "--version"], capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise ConfigError(f"{python} can't be run ({error.strerror}): {wanted}.") from error
    match = re.search(r"Python 3\.(\d+)", done.stdout + done.stderr)
    if match is None or not first <= int(match[1]) <= last:
        came = (done.stdout + done.stderr).strip() or f"no version, and exit code {done.returncode}"
        raise ConfigError(f"{python} is {came}: {wanted}.")


def _install(environment: Environment, python: str, tell: Callable[[str], None]) -> None:
    folder = environment.folder
    tell(f"making {folder}")
    _run([python, "-m", "venv", str(folder)], StorageError, f"{folder} could not be made")
    tell(f"installing {', '.join(environment.requirements)} (once; several GB)")
    pip = [str(_interpreter(folder)), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-input"]
    _run(
        [*pip, "--only-binary=:all:", *environment.requirements],
        DownloadError,
        f"pip could not install {environment.name} and what it needs",
    )


def _run(command: Sequence[str], failure: type[StorageError | DownloadError], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
        raise failure(f"{what} ({errors[-1]}): check the network, the package index and the free space, and run it again.")
