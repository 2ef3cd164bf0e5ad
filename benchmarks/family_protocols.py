"""The project's own facts asked of the tiny encoder and encoder-decoder by every protocol that their family has.

    python benchmarks/family_protocols.py [--compressions none,4bit-rtn]

It writes the facts in LAMA's and in BEAR's layout into a temporary folder beside a matrix of its own, measures every cell with
`harness measure`, and prints one row a cell and protocol: how many are asked, macro P@1 over relations with its cluster-robust
interval, P@10 and the mean reciprocal rank likewise, and what was left out. LAMA and BEAR have one right object a fact,
so facts with several answers are left out there. Both models were trained on these very facts (suites/models/*/README.md):
the numbers show that a protocol reads a family as it was taught, and what compression takes; nothing about language models.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.cli import main as harness
from harness.core.records import CellRun
from harness.core.run_folder import read_run
from harness.core.verdicts import Estimate, NotEstimable
from harness.knowledge.factbook import FactBook, load_facts
from harness.stats.intervals import wilson
from harness.stats.macro import macro_mean

LEVEL = 0.95
SUITES = Path(__file__).parents[1] / "suites"
TASKS = """
[tasks.own_lama] # at the blank, every word that the model has as one token
suite = "lama"
file = "facts.jsonl"

[tasks.own_lama_objects] # at the blank, every object of one token
suite = "lama"
file = "facts.jsonl"
candidates = "objects"

[tasks.own_lama_sentence] # the sentence with each object of the relation: many sentences a fact, so a fixed sample
suite = "lama"
file = "facts.jsonl"
whole_sentence = true
per_relation = 20

[tasks.own_bear] # the sentence with each answer of the relation's closed set
suite = "bear"
folder = "bear"
n_facts = 200
"""
OWN = ("own_lama", "own_lama_objects", "own_lama_sentence", "own_bear")
MODELS = {
    "tiny-bert": ("encoder", ("facts", "facts_blank", *OWN)),
    "tiny-t5": ("seq2seq", ("facts", "facts_blank", *OWN, "facts_choice")),
}
"""Family and tasks. An encoder has no continuation, so lm-eval's tasks can't be put to it."""


def main() -> None:
    """Print the table; the exit code is that of measuring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compressions", default="none,4bit-rtn", help="names of suites/matrix.toml (default: none,4bit-rtn)")
    compressions = parser.parse_args().compressions.split(",")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_facts(load_facts(), folder)
        shutil.copytree(SUITES / "models", folder / "models")
        shutil.copy(SUITES / "policy.toml", folder)
        matrix = folder / "matrix.toml"
        matrix.write_text((SUITES / "matrix.toml").read_text(encoding="utf-8") + own_profile(compressions), encoding="utf-8")
        where = ["--profile", "protocols", "--matrix", str(matrix), "--run", str(folder / "run")]
        cells = [f"{model}_{compression}_none" for model in MODELS for compression in compressions]
        code = harness(["measure", *where, *cells])
        if code == 0:
            print_table([run for run in read_run(folder / "run") if isinstance(run, CellRun)])
    raise SystemExit(code)


def print_table(cells: Sequence[CellRun]) -> None:
    """In Markdown."""
    print("| cell | task | protocol | facts | P@1, macro | P@10 | MRR | chance | left out |")
    print("|---|---|---|---:|---:|---:|---:|---:|---|")
    for cell in cells:
        for name, run in cell.runs.items():
            relations = np.unique([item.group for item in run.items], return_inverse=True)[1]
            ranks, right = run.outcomes.ranks, run.outcomes.correct
            means = [macro_mean(np.asarray(v, dtype=np.float64), relations, LEVEL) for v in (right, ranks <= 10, 1 / ranks)]
            if isinstance(means[0], NotEstimable):  # no relations there: the share of all
                means[0] = wilson(int(right.sum()), len(right), LEVEL)
            told = [shown(mean) for mean in means]
            left_out = "; ".join(f"{n} {reason}" for reason, n in run.info.excluded.items() if n) or "–"
            row = (f"`{run.cell}`", name, run.info.protocol, str(run.info.n_items), *told, f"{run.info.chance:.1%}", left_out)
            print(f"| {' | '.join(row)} |")


def shown(mean: Estimate | NotEstimable) -> str:
    """In percent, with its interval."""
    if isinstance(mean, NotEstimable):
        return "–"
    return f"{100 * mean.value:.1f} % [{100 * mean.low:.1f}, {100 * mean.high:.1f}]"


def own_profile(compressions: Sequence[str]) -> str:
    """What stands behind the shipped matrix: a profile, its tasks, and a grid for each model."""
    lines = ["", "[profiles.protocols]", 'about = "every protocol"', TASKS]
    for model, (family, tasks) in MODELS.items():
        lines += [f"[profiles.protocols.models.{model}]", f'family = "{family}"', f'source = "dir:models/{model}"']
        lines += ["[[grid]]", 'profiles = ["protocols"]', f'models = ["{model}"]', 'recoveries = ["none"]']
        lines += [f"compressions = {json.dumps(compressions)}", f"tasks = {json.dumps(tasks)}"]
    return "\n".join(lines)


def write_facts(book: FactBook, folder: Path) -> None:
    """``facts.jsonl`` as LAMA has it, and ``bear/`` as BEAR's authors have it."""
    single = [fact for fact in book.facts if len(fact.answers) == 1]
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for fact in single:
        rows[fact.relation].append({"sub_label": fact.subject, "obj_label": fact.answers[0]})
    with (folder / "facts.jsonl").open("w", encoding="utf-8") as file:
        for relation, facts in rows.items():
            for fact in facts:
                row = {"predicate_id": relation, **fact, "template": book.relations[relation].template}
                file.write(json.dumps(row) + "\n")
    bear = folder / "bear"
    bear.mkdir()
    metadata = {
        name: {"templates": [book.relations[name].template], "answer_space_labels": list(book.relations[name].answers)}
        for name in rows
    }
    (bear / "metadata_relations.json").write_text(json.dumps(metadata), encoding="utf-8")
    for relation, facts in rows.items():
        (bear / f"{relation}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in facts), encoding="utf-8")


if __name__ == "__main__":
    main()
