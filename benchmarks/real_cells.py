"""The gate on the real embedded model: what is red, what is not, and what share of the items that took.

    python benchmarks/real_cells.py [--text ../shared/data/text/wikipedia_sample.jsonl.gz] [--only WORDS]

Each row is one `pytest suites/` on a copy of the matrix with one change, measured anew against the committed baselines:

- the same 4-bit weights again, with one thread: must pass;
- 3 bits, and 2 bits, in the 4-bit cell's place: must be red;
- GPTQ again with one thread, with another sample of its calibration text, with other text (``--text``): must not be red;
- GPTQ with 3 bits in the place of 4: must be red.

``fed`` counts items whose forward passes were run, of all that the cell plans; the rest is what stopping early saved. A
re-compressed cell is decided by all of its items only. Exit code 1 when a row is not what it must be.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.execution.store import Store

REPOSITORY = Path(__file__).parents[1]
SUITES = REPOSITORY / "suites"
PASSES, RED, NOT_RED = "passes", "red", "not red"
RTN, GPTQ = "4bit-rtn", "4bit-gptq"


@dataclass(frozen=True, slots=True)
class Case:
    """One change: ``fields`` of the recipe, as TOML writes them, and the environment; ``must`` be this."""

    name: str
    compression: str
    must: str
    fields: Mapping[str, str] = field(default_factory=dict)
    one_thread: bool = False


def cases(text: Path | None) -> list[Case]:
    """What is shown, in the order of what it costs."""
    shown = [
        Case("the same weights, one thread", RTN, PASSES, one_thread=True),
        Case("3 bits in the place of 4", RTN, RED, {"bits": "3"}),
        Case("2 bits in the place of 4", RTN, RED, {"bits": "2"}),
        Case("GPTQ again, one thread", GPTQ, NOT_RED, one_thread=True),
        Case("GPTQ again, another sample of its text", GPTQ, NOT_RED, {"seed": "1001"}),
        Case("GPTQ with 3 bits in the place of 4", GPTQ, RED, {"bits": "3"}),
    ]
    if text is not None:
        other = Case("GPTQ again, other calibration text", GPTQ, NOT_RED, {"calibration": json.dumps(str(text.resolve()))})
        shown.insert(5, other)
    return shown


def changed_matrix(text: str, compression: str, fields: Mapping[str, str]) -> str:
    """The matrix with fields of one compression set; paths of models stay those of the repository."""
    head = f"[compressions.{compression}]\n"
    before, after = text.split(head)
    table, gap, rest = after.partition("\n\n")
    for name, value in fields.items():
        table = re.sub(rf"^{name} = .*\n?", "", table, flags=re.MULTILINE).rstrip("\n") + f"\n{name} = {value}"
    return (before + head + table + gap + rest).replace('"dir:', f'"dir:{SUITES}/')


def main() -> None:
    """Print a row a case; exit 1 when one is not what it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, help="other calibration text, .txt or .jsonl, also with .gz")
    parser.add_argument("--only", default="", metavar="WORDS", help="only the cases whose names hold these words")
    chosen = parser.parse_args()
    missed = False
    print(f"{'case':<40} {'must be':<8} {'verdict':<18} {'loss (pt) and interval':<24} {'fed':>13} {'share':>6} {'wall s':>7}")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        cache.mkdir()
        shutil.copy(SUITES / "policy.toml", folder)  # it lies beside its matrix
        (cache / "models").symlink_to(Store.default().root / "models")  # the download is shared, weights and results are not
        for case in cases(chosen.text):
            if chosen.only in case.name:
                missed |= not show(case, Path(folder), cache)
    raise SystemExit(missed)


def show(case: Case, folder: Path, cache: Path) -> bool:
    """Run one case and print its row; whether it is what it must be."""
    report = folder / re.sub(r"\W+", "-", case.name)
    report.mkdir()
    matrix = folder / "matrix.toml"
    matrix.write_text(changed_matrix((SUITES / "matrix.toml").read_text(), case.compression, case.fields))
    environment = {**os.environ, "HARNESS_CACHE": str(cache), **({"OMP_NUM_THREADS": "1"} if case.one_thread else {})}
    options = [f"--harness-matrix={matrix}", f"--harness-report-dir={report}"]
    started_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "suites", "-k", f"llama_{case.compression}", "--harness-fresh", *options],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall_s = time.perf_counter() - started_s
    try:
        (cell,) = json.loads((report / "report.json").read_text())["run"]["cells"]
    except (OSError, ValueError):
        sys.exit(f"{case.name}: no report came (exit code {done.returncode})\n{done.stdout}{done.stderr}")
    evidence = [task["evidence"] for task in cell["verdict"]["tasks"]]
    fed = sum(sum(unit["counts"].values()) for unit in evidence)
    planned = sum(unit["n_planned"] for unit in evidence)
    loss = cell["verdict"]["pooled"]["evidence"]["loss"]
    interval = f"{100 * loss['value']:+.2f} [{100 * loss['low']:+.2f}, {100 * loss['high']:+.2f}]"
    told = f"{case.name:<40} {case.must:<8} {cell['status']:<18} {interval:<24}"
    print(f"{told} {f'{fed:,}/{planned:,}':>13} {fed / planned:>6.1%} {wall_s:>7.1f}", flush=True)
    passes = done.returncode == 0 and cell["status"].startswith("PASS")
    return {PASSES: passes, RED: done.returncode == 1, NOT_RED: done.returncode in {0, 10}}[case.must]


if __name__ == "__main__":
    main()
