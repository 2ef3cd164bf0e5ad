"""How long judging and reporting a large run from files takes, and how much memory: 24 cells x 13 tasks, 13,658 items a cell.

    python benchmarks/judge_speed.py [--cells 24] [--flips 0.03]

Writes made-up records and baselines into a temporary folder, then judges them, and judges and reports them, each in a
process of its own on one core. Exit 1 when judging takes more than 2 s or 300 MB, or both together more than 6 s: of wall
time. CPU time beside it tells a busy machine from slow code; on shared cores it grows too, but less.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.baseline.noise import NoiseRun
from harness.baseline.record import make_baseline
from harness.baseline.store import write_baseline
from harness.core.digest import digest_sequence, digest_text
from harness.core.outcomes import Outcomes
from harness.core.records import (
    ENGINE_IDENTITY,
    SCHEMA_VERSION,
    Cell,
    CellRecord,
    CellRun,
    CompressionRecord,
    Item,
    Provenance,
    TaskInfo,
    TaskRun,
)
from harness.core.run_folder import write_cell

TASK_SIZES = (1500, 1172, 900, 1500, 1500, 1500, 1267, 500, 1500, 1221, 447, 500, 151)
POLICY = Path(__file__).parents[1] / "suites" / "policy.toml"
OFF_DENSE = (0.0, 0.01, 0.02, 0.05, 0.2, 0.4)
"""Share of a cell's items that are not as in the dense one: about what SmolLM2 has at 8, 4 and 3 bits, the rest between."""

LIMITS = {"judge": (2.0, 300), "judge and report": (6.0, None)}
BUSY = 1.25
"""Wall over CPU time from which something else had the core."""


def main() -> None:
    """Print one row a step; exit 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--flips", type=float, default=0.03, help="share of items that flip either way (default: 0.03)")
    parser.add_argument("--step", choices=tuple(LIMITS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        run_step(args.step, args.folder)
        return
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_items = write_run(folder, args.cells, args.flips)
        print(f"{args.cells} cells x {len(TASK_SIZES)} tasks, {n_items:,} items a cell, {args.flips:.1%} flips")
        for step, (limit_s, limit_mb) in LIMITS.items():
            wall_s, cpu_s, megabytes = measured(step, folder)
            over = wall_s > limit_s or (limit_mb is not None and megabytes > limit_mb)
            asked = f"at most {limit_s:g} s" + (f" and {limit_mb} MB" if limit_mb else "")
            busy = (
                f" (the core was busy: {wall_s / cpu_s:.1f} s of wall time for a second of CPU)"
                if wall_s > BUSY * cpu_s
                else ""
            )
            said = f"{'MISSED' if over else 'met'}{busy}"
            print(f"{step:<17} {wall_s:5.2f} s wall  {cpu_s:5.2f} s CPU  {megabytes:4.0f} MB   {asked}: {said}", flush=True)
            missed |= over
    raise SystemExit(missed)


def measured(step: str, folder: Path) -> tuple[float, float, float]:
    """Wall and CPU seconds without starting Python, and peak resident megabytes, of one step in a process on one core."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall_s, cpu_s, megabytes = map(float, done.stdout.split()[-3:])
    return wall_s, cpu_s, megabytes


def run_step(step: str, folder: Path) -> None:
    """Judge (and report) the run of a folder; prints wall seconds, CPU seconds and megabytes."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from harness.execution.matrix import read_matrix
    from harness.review import Review

    review = Review(folder / "run", read_matrix(folder / "matrix.toml", "big"), "commit", folder / "baselines")
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    if step == "judge":
        review.judge()
    else:
        now = "2026-01-01T00:00:00+00:00"
        review.write_report(started_at=now, ended_at=now, exit_code=0, command="benchmark")
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    print(wall_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


# ------------------------------------------------------------------------------------------------ a made-up run


def write_run(folder: Path, n_cells: int, flips: float) -> int:
    """A run, its baselines, matrix and policy under ``folder``; gives back the number of items a cell."""
    names = [f"task{index:02}" for index in range(len(TASK_SIZES))]
    items = {name: make_items(name, n) for name, n in zip(names, TASK_SIZES, strict=True)}
    random = np.random.default_rng(1)
    cells = [
        Cell(f"model{index // 6}", f"{8 - index % 6}bit-rtn" if index % 6 else "none", "none") for index in range(n_cells)
    ]
    dense: dict[str, np.ndarray] = {}
    for index, cell in enumerate(cells):
        if cell.is_dense:
            dense = {name: random.random(len(items[name])) < 0.6 for name in names}
        apart = OFF_DENSE[index % 6]
        before = {name: np.where(random.random(len(right)) < apart, ~right, right) for name, right in dense.items()}
        now = {name: np.where(random.random(len(right)) < flips, ~right, right) for name, right in before.items()}
        write_cell(folder / "run", make_run(cell, "candidate", items, now))
        noise = tuple(
            NoiseRun(f"run {k}", None, 1, None, dict.fromkeys(names, 0.6), dict.fromkeys(names, 0)) for k in range(3)
        )
        made = make_baseline(make_run(cell, "baseline", items, before), "benchmark", noise)
        write_baseline(folder / "baselines" / "big" / cell.id, made)
    write_matrix(folder / "matrix.toml", cells, names)
    (folder / "policy.toml").write_text(POLICY.read_text(encoding="utf-8"), encoding="utf-8")
    return sum(TASK_SIZES)


def make_items(name: str, n: int) -> tuple[Item, ...]:
    """``n`` items with four options of a few words."""
    options = ("the first of the options", "the second one", "a third one that is longer", "none of these")
    return tuple(
        Item(f"{name}-{i}", f"group {i % 9}", f"Question {i} of {name}: which? [Y]", options, (i % 4,)) for i in range(n)
    )


def make_run(cell: Cell, weights: str, items: dict[str, tuple[Item, ...]], right: dict[str, np.ndarray]) -> CellRun:
    """A measured cell whose answers are right where ``right`` says so."""
    runs = {name: make_task(cell, name, items[name], right[name], weights) for name in items}
    compression = CompressionRecord("rtn", {"bits": 4}, digest_text("rtn"), "stable", 4.25, 10**8, 9, 10, 1.0)
    digests = {
        key: digest_text(f"{key} {weights} {cell.id}") for key in ("dense", "weights", "config", "tokenizer", "recovery")
    }
    engine = {**dict.fromkeys(ENGINE_IDENTITY, "1"), "threads": "1"}
    provenance = Provenance(
        "dir:x", *digests.values(), engine=engine, harness_version="0", commit="0", measured_at="2026-01-01T00:00:00+00:00"
    )
    record = CellRecord(
        schema_version=SCHEMA_VERSION,
        cell=cell,
        profile="big",
        family="decoder",
        compression=compression,
        provenance=provenance,
        tasks={name: run.info for name, run in runs.items()},
        scorers={name: run.scorer for name, run in runs.items()},
        origins={name: run.origin for name, run in runs.items()},
        wall_s=dict.fromkeys(runs, 1.0),
    )
    return CellRun(record, runs)


def make_task(cell: Cell, name: str, items: tuple[Item, ...], right: np.ndarray, weights: str) -> TaskRun:
    """One task in the order in which these weights would feed it: of every cell, and of its baseline, another one."""
    order = sorted(range(len(items)), key=lambda i: digest_text(f"{weights} {cell.id} {items[i].id}"))
    fed, correct = tuple(items[i] for i in order), right[order]
    n = len(fed)
    gold = np.array([item.gold[0] for item in fed], dtype=np.int32)
    logliks = np.full((n, 4), -9.0)
    logliks[np.arange(n), np.where(correct, gold, (gold + 1) % 4)] = -7.5
    outcomes = Outcomes(
        digests=tuple(item.digest for item in fed),
        correct=correct,
        answers=np.where(correct, gold, (gold + 1) % 4).astype(np.int32),
        ranks=np.where(correct, 1, 2).astype(np.int32),
        margins_nats=np.where(correct, 1.5, -1.5),
        near_ties=np.zeros(n, dtype=np.bool_),
        option_logliks_nats=tuple(map(tuple, logliks.tolist())),
    )
    info = TaskInfo(
        name=name,
        protocol="made up",
        score_class="log_likelihood",
        pooled=True,
        tie_rule="first",
        data_version="1",
        spec_digest=digest_text(name),
        items_digest=digest_sequence(item.digest for item in items),
        n_items=n,
        chance=0.25,
        majority=0.26,
        excluded={},
    )
    return TaskRun(cell.id, info, fed, outcomes, "made up/1", "measured")


def write_matrix(path: Path, cells: list[Cell], tasks: list[str]) -> None:
    """A matrix that declares exactly these cells and tasks."""
    models = sorted({cell.model for cell in cells})
    compressions = sorted({cell.compression for cell in cells})
    lines = [f'[profiles.big.models.{model}]\nfamily = "decoder"\nsource = "dir:x"' for model in models]
    methods = [
        'method = "none"' if name == "none" else f'method = "rtn"\nbits = {name[0]}\ngroup_size = 64' for name in compressions
    ]
    lines += [f"[compressions.{name}]\n{method}" for name, method in zip(compressions, methods, strict=True)]
    lines += ['[recoveries.none]\nmethod = "none"', *(f'[tasks.{task}]\nsuite = "facts"' for task in tasks)]
    for model in models:
        mine = [cell.compression for cell in cells if cell.model == model]
        lines.append(
            f'[[grid]]\nprofiles = ["big"]\nmodels = ["{model}"]\n'
            f'compressions = {mine!r}\nrecoveries = ["none"]\ntasks = {tasks!r}'
        )
    path.write_text("\n\n".join(lines).replace("'", '"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
