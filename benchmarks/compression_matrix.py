"""Every compression × scope on real items, the dense model first: what each keeps, and whether the second paper is seen again.

    python benchmarks/compression_matrix.py --results FILE [--data DIR] [--only WORDS] [--cells N] [--part K/N] [--show]

Measured are the embedded model (facts, LAMA's T-REx among its own objects, ARC-easy) and the two tiny models that this project
trained on its own facts (facts as sentences and at the blank). A cell is one line of JSON at the end of ``--results``, a file
outside of this repository: a run that was stopped goes on behind the last line. ``--part 1/2`` and ``--part 2/2`` share the
cells between two runs with a file each, which one behind the other are those of one run. ``--show`` measures nothing and
prints what the file holds.

Accuracies have Wilson's interval; retention, flips and every comparison are paired by item. LAMA's relations are clusters. The
findings of Namburi et al. 2023 (arXiv 2312.00960) are tested two-sided, and p-values adjusted (Holm) over all tests of one
finding. Equal sparsity is the same share of a scope's own weights: "all" loses more weights than either of its parts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.digest import digest_json
from harness.core.errors import CompressionError, ConfigError
from harness.core.records import Cell, CellRun
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import CellPlan, Matrix, ModelEntry, TaskEntry, read_matrix
from harness.execution.progress import Progress
from harness.execution.store import Store

SUITES = Path(__file__).parents[1] / "suites"
MATRIX = SUITES / "matrix.toml"
SCOPES = {"": "all", "attention-": "attention", "feed-forward-": "feed_forward"}
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A task and how many of its items: a stable sample of ``limit``, or as many as its own fields leave."""

    entry: TaskEntry
    limit: int | None = None


FACTS = {name: Asked(TaskEntry(name, {}), 400) for name in ("facts", "facts_blank")}
TASKS = {
    "llama": {
        "facts": FACTS["facts"],
        "lama_trex": Asked(TaskEntry("lama", {"part": "trex", "candidates": "objects", "per_relation": 6})),
        "arc_easy": Asked(TaskEntry("lm_eval", {"task": "arc_easy", "metric": "acc_norm"}), 150),
    },
    "tiny-bert": FACTS,
    "tiny-t5": FACTS,
}
PROFILES = {"llama": "embedded", "tiny-bert": "tiny", "tiny-t5": "tiny"}
NEED_DATA = ("lama_trex", "arc_easy")


def recipes() -> dict[str, tuple[str, dict[str, Any]]]:
    """By name, method and fields; first what the paper asks, in rising order of what it costs."""
    made: dict[str, tuple[str, dict[str, Any]]] = {"none": ("none", {})}

    def add(name: str, method: str, scopes: Sequence[str] = ("all",), **fields: Any) -> None:
        share, _, stem = name.partition("-")
        for words, scope in SCOPES.items():
            if scope in scopes:
                made[f"{share}-{words}{stem}"] = (method, fields if scope == "all" else {**fields, "scope": scope})

    every = tuple(SCOPES.values())
    for share in (0.3, 0.5, 0.7, 0.1):
        add(f"{share:.0%}-magnitude".replace("%", "pct"), "magnitude", every, sparsity=share)
    add("8bit-int8-dynamic", "int8_dynamic", every)
    for bits in (4, 3, 2, 8):
        add(f"{bits}bit-rtn", "rtn", every if bits in (3, 4) else ("all",), bits=bits, group_size=64)
    text = {"leave_out_documents": [267, 285]}  # they name a film that T-REx asks about
    for bits in (4, 3, 2, 8):
        add(f"{bits}bit-gptq", "gptq", bits=bits, group_size=64, **text)
    add("4bit-awq", "awq", bits=4, group_size=64, **text)
    for method in ("sparsegpt", "wanda"):
        add(f"50pct-{method}", method, sparsity=0.5, **text)
        add(f"2of4-{method}", method, sparsity=0.5, pattern="2:4", **text)
    for share in (0.2, 0.4):
        chain = [{"method": "magnitude", "sparsity": share}, {"method": "int8_dynamic"}]
        add(f"{share:.0%}.8bit-steps".replace("%", "pct"), "steps", every, steps=chain)
    add("90pct-magnitude", "magnitude", every, sparsity=0.9)
    for criterion, unit in (("l1", "weight"), ("random", "weight"), ("l1", "row"), ("random", "row")):
        add(f"50pct-last-dense-{criterion}-{unit}", "last_dense", sparsity=0.5, criterion=criterion, unit=unit)
    add("5pct-noise", "noise", share=0.05)
    return made


def plans(data: Path | None) -> Iterator[tuple[CellPlan, str]]:
    """Every cell, with the digest of all that its line depends on; without a mirror of the data, only what needs none."""
    entries = {name: _entry(name) for name in PROFILES}
    for compression, (method, fields) in recipes().items():
        for model, entry in entries.items():
            is_short = model != "llama" and "leave_out_documents" in fields
            given = {**fields, "sample_tokens": 64} if is_short else fields  # all that the tiny models have positions for
            asked = {name: one for name, one in TASKS[model].items() if data is not None or name not in NEED_DATA}
            plan = CellPlan(
                cell=Cell(model, compression, "none"),
                profile=PROFILES[model],
                model=entry,
                compression=(method, given),
                recovery=("none", {}),
                tasks={name: one.entry for name, one in asked.items()},
            )
            sizes = {name: [one.entry.suite, dict(one.entry.options), one.limit] for name, one in asked.items()}
            yield plan, digest_json([model, entry.source, entry.sha256, method, given, sizes])


def _entry(model: str) -> ModelEntry:
    return read_matrix(MATRIX, PROFILES[model]).plan(f"{model}_none_none").model


# ------------------------------------------------------------------------------------------------ measuring


def measure(plan: CellPlan, key: str, data: Path | None) -> dict[str, Any]:
    """A cell's line: what it was made with and cost, and of every task which items were right, in the order of their digests.

    The weights go when the cell is done; models are those of the cache. What a method refuses is a line with its sentence.
    """
    models = Store.default().root / "models"
    models.mkdir(parents=True, exist_ok=True)
    matrix = Matrix(MATRIX, plan.profile, {plan.cell.id: plan})
    row: dict[str, Any] = {"key": key, "model": plan.cell.model, "compression": plan.cell.compression, "refused": None}
    runs: dict[str, CellRun] = {}
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "models").symlink_to(models)
        for name in plan.tasks:
            options = MeasureOptions(device="cpu", data=data, limit=TASKS[plan.cell.model][name].limit)
            progress = Progress(write=sys.stderr.write, is_tty=False)
            try:
                runs[name] = measure_cell(matrix, plan, [name], options=options, store=Store(Path(scratch)), progress=progress)
            except (CompressionError, ConfigError) as error:
                return {**row, "refused": str(error), "tasks": {}}
    record = next(iter(runs.values())).record
    made, cost = record.compression, record.compression.cost
    return {
        **row,
        "recipe": made.recipe,
        "engine": record.provenance.engine,
        "weights_digest": record.provenance.weights_digest,
        "bits": made.effective_bits,
        "size_bytes": made.size_bytes,
        "wall_s": made.wall_s,
        "sparsity": None if cost is None else cost.sparsity,
        "error_mean": None if cost is None else cost.error_mean,
        "peak_memory_bytes": None if cost is None else cost.peak_memory_bytes,
        "tasks": {name: _right(run, name) for name, run in runs.items()},
    }


def _right(run: CellRun, name: str) -> dict[str, Any]:
    outcomes, items = run.runs[name].outcomes, run.runs[name].items
    order = sorted(range(len(outcomes)), key=outcomes.digests.__getitem__)
    return {
        "items": digest_json([outcomes.digests[i] for i in order]),
        "groups": [items[i].group for i in order],
        "right": "".join("01"[int(outcomes.correct[i])] for i in order),
        "wall_s": run.record.wall_s[name],
    }


def read_rows(path: Path, keys: Sequence[str]) -> list[Row]:
    """The lines of these keys, in their order; a last line that was cut off is not there."""
    found: dict[str, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["key"]] = row
    return [found[key] for key in keys if key in found]


def _part(text: str) -> tuple[int, int]:
    first, _, of = text.partition("/")
    if not (first.isdecimal() and of.isdecimal() and 1 <= int(first) <= int(of)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, got {text!r}")
    return int(first), int(of)


def main() -> None:
    """Measure what is missing, then print the table and what it says about the paper."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="JSON lines; what is there is not measured again")
    parser.add_argument("--data", type=Path, help="an offline mirror; without it, only the facts are asked")
    parser.add_argument("--only", default="", metavar="WORDS", help="only the cells whose ids hold these words; dense always")
    parser.add_argument("--cells", type=int, help="measure at most so many cells, then print")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="K/N", help="only every Nth cell, from the Kth on")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    asked = list(plans(chosen.data))
    done = {row["key"] for row in read_rows(chosen.results, [key for _, key in asked])}
    first, step = chosen.part
    missing = [
        one
        for one in asked[first - 1 :: step]
        if one[1] not in done and (chosen.only in one[0].cell.id or one[0].cell.is_dense)
    ]
    for plan, key in [] if chosen.show else missing[: chosen.cells]:
        row = measure(plan, key, chosen.data)
        with chosen.results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{plan.cell.id}: {row['refused'] or 'measured'}", file=sys.stderr, flush=True)
    from compression_findings import show_findings, show_table  # beside this file

    rows = read_rows(chosen.results, [key for _, key in asked])
    print(f"{len(rows)} of {len(asked)} cells\n")
    show_table(rows)
    show_findings(rows)


if __name__ == "__main__":
    main()
