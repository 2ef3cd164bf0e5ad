"""A job done by another interpreter, in a child process: files in, files out, an exit code, and its stderr where it failed.

The job is a folder. ``job.json`` says what to do, tensors lie beside it as safetensors, and so does what comes back: nothing
is pickled, and the child imports nothing of this package.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.core.errors import CompressionError, MissingDependencyError

EXIT_NOT_INSTALLED = 20
EXIT_NO_CUDA = 21
"""What a child ends with where its environment is at fault; every other code but 0 is a job that failed."""

_SHOWN_LINES = 12
_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")


def run_job(name: str, python: Path, script: Path, folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run ``script`` on the job in ``folder`` until it ends. ``environment`` is added to ours, without what names packages.

    The hub is switched off: all that a job needs lies in its folder. Raises CompressionError with the last lines of the
    child's stderr, MissingDependencyError where its environment is at fault.
    """
    passed = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON}
    passed |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **(environment or {})}
    command = [str(python), "-I", str(script), str(folder)]
    try:
        done = subprocess.run(
            command, env=passed, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise MissingDependencyError(
            f"{name}: {python} can't be run ({error.strerror}): make its environment again with `harness env {name}`."
        ) from error
    if done.returncode == 0:
        return
    lines = [line.rstrip() for line in done.stderr.splitlines() if line.strip()][-_SHOWN_LINES:]
    said = "\n  ".join(lines or ["(it wrote nothing to stderr)"])
    if done.returncode in (EXIT_NOT_INSTALLED, EXIT_NO_CUDA):
        cause = "lacks packages" if done.returncode == EXIT_NOT_INSTALLED else "finds no CUDA device"
        raise MissingDependencyError(
            f"{name}: its environment {cause}: remove {python.parent.parent}, and make it again with `harness env {name}`. "
            f"It said:\n  {said}"
        )
    ended = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
    raise CompressionError(f"{name} failed in its child process ({ended}): nothing was changed. It said:\n  {said}")
