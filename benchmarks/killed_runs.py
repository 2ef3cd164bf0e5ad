"""Runs that are killed at random moments and resumed must leave the records of an undisturbed run, to the byte.

    python benchmarks/killed_runs.py [--runs 50] [--seed 0] [--cell tiny-bert_4bit-rtn_none] [--profile tiny] [--limit N]

Each run measures all tasks of a cell into a store and a record folder of its own, in a child process. The child is killed
(SIGKILL) at a moment drawn evenly between its start and the time that an undisturbed run took, then started again; up to
``--kills`` times, until one comes to its end. Children are forks of this process, which has imported everything, and use one
thread.

Compared: every file of items and outcomes, and cell.json without the circumstances of its measurement (``CIRCUMSTANCES``):
when, how long, and which part came from the store. Exit code 1 where a run differs.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).parents[1]

CIRCUMSTANCES = (
    ("provenance", "measured_at"),
    ("compression", "wall_s"),
    ("compression", "cost", "peak_memory_bytes"),
    ("wall_s",),
    ("origins",),
)
"""What a record tells of its measurement and no verdict's evidence comes from, as paths into cell.json."""

PHASES = ("starting", "compressing", "storing weights", "feeding", "storing answers", "storing a result", "writing the record")


@dataclass(frozen=True, slots=True)
class Child:
    """Measures one cell in forks of this process; ``phase`` is shared with them."""

    measure: Callable[[Path], None]
    phase: mmap.mmap

    def run(self, home: Path, kill_after_s: float | None) -> str | None:
        """Measure into a folder; the phase in which the child was killed, None where it came to its end."""
        self.phase[0] = 0
        child = os.fork()
        if child == 0:
            self._end(home)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)  # does nothing to one that has ended and is not yet waited for
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return PHASES[self.phase[0]]
        if status:
            raise SystemExit(f"a child failed with status {status}: see above")
        return None

    def _end(self, home: Path) -> None:
        code = 1
        try:
            self.measure(home)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)


def main() -> None:
    """Run all, and tell how many were identical."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--kills", type=int, default=3, help="most kills of one run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--cell", default="tiny-bert_4bit-rtn_none")
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    child = Child(_measuring(args.profile, args.cell, args.limit), mmap.mmap(-1, 1))
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        with _phases(child.phase):
            child.run(root / "warm", None)  # what the first run of all reads from the disk
            started_s = time.perf_counter()
            child.run(root / "undisturbed", None)
            undisturbed_s = time.perf_counter() - started_s
            print(f"{args.cell}: an undisturbed run takes {undisturbed_s:.2f} s", flush=True)
            expected = compared(root / "undisturbed")
            killed, n_kills, n_identical = Counter[str](), Counter[int](), 0
            for number in range(args.runs):
                home, phases = root / f"run-{number}", list[str]()
                while not phases:  # one that was quicker than its first moment shows nothing
                    shutil.rmtree(home, ignore_errors=True)
                    phases = list(_until_done(child, home, rng.uniform(0, undisturbed_s, args.kills)))
                killed.update(phases)
                n_kills[len(phases)] += 1
                same = compared(home) == expected
                n_identical += same
                print(
                    f"run {number + 1:>3}: {'identical' if same else 'DIFFERENT':<9}  killed while {', '.join(phases)}",
                    flush=True,
                )
                if same:
                    shutil.rmtree(home)
    print("kills by phase: " + ", ".join(f"{phase} {killed[phase]}" for phase in PHASES))
    print("runs by kills: " + ", ".join(f"{n} kills: {n_kills[n]}" for n in sorted(n_kills)))
    print(f"{n_identical} of {args.runs} identical")
    sys.exit(0 if n_identical == args.runs else 1)


def _until_done(child: Child, home: Path, moments: np.ndarray) -> Iterator[str]:
    """The phases in which a run was killed, until it came to its end."""
    for moment_s in moments.tolist():
        phase = child.run(home, moment_s)
        if phase is None:
            return
        yield phase
    child.run(home, None)


def compared(home: Path) -> dict[str, Any]:
    """The files of a record that verdicts come from, and its cell.json without circumstances."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in sorted((home / "report").rglob("*.parquet"))}
    record = json.loads(next((home / "report").rglob("cell.json")).read_bytes())
    for *way, last in CIRCUMSTANCES:
        part = record
        for key in way:
            part = part[key]
        del part[last]
    return found | {"cell.json": record}


def _measuring(profile: str, cell: str, limit: int | None) -> Callable[[Path], None]:
    import torch

    from harness.core.run_folder import write_cell
    from harness.execution.local import MeasureOptions, measure_cell
    from harness.execution.matrix import read_matrix
    from harness.execution.progress import Progress
    from harness.execution.store import Store
    from harness.models import MODELS
    from harness.scoring import SCORERS

    torch.set_num_threads(1)  # a fork has none of its parent's threads
    matrix = read_matrix(REPOSITORY / "suites" / "matrix.toml", profile)
    plan = matrix.plan(cell)
    MODELS.load(plan.model.family), SCORERS.load(plan.model.family)  # imported before any fork
    progress = Progress(write=lambda _: None, is_tty=False)

    def measure(home: Path) -> None:
        options, store = MeasureOptions(limit=limit), Store(home / "store")
        write_cell(
            home / "report", measure_cell(matrix, plan, tuple(plan.tasks), options=options, store=store, progress=progress)
        )

    return measure


@contextmanager
def _phases(shared: mmap.mmap) -> Iterator[None]:
    """Have what runs tell where it is."""
    from harness.core import run_folder
    from harness.execution import answers
    from harness.execution.candidate import Candidate
    from harness.execution.store import Store

    places: tuple[tuple[Any, str, str], ...] = (
        (Candidate, "_compress", "compressing"),
        (Candidate, "_save", "storing weights"),
        (answers.Answers, "answer", "feeding"),
        (answers, "write_atomic", "storing answers"),
        (Store, "put_result", "storing a result"),
        (run_folder, "write_items", "writing the record"),
    )
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, phase in places:
        setattr(owner, name, _telling(getattr(owner, name), shared, PHASES.index(phase)))
    try:
        yield
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)


def _telling(function: Callable[..., Any], shared: mmap.mmap, phase: int) -> Callable[..., Any]:
    def told(*args: Any, **kwargs: Any) -> Any:
        before, shared[0] = shared[0], phase
        made = function(*args, **kwargs)
        if PHASES[phase] != "writing the record":
            shared[0] = before
        return made

    return told


if __name__ == "__main__":
    main()
