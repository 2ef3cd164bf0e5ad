"""BEAR by its authors' package beside ours: the same loaded weights, the same facts, the same closed answer sets.

    pip install lm-pub-quiz          # into the environment of measuring, or one of its own that sees it
    python benchmarks/bear_parity.py --data <mirror> [--relations P36,P30,P1376,P37] [--template 0] [--facts 60]
    python benchmarks/bear_parity.py --data <mirror> --profile tiny --model tiny-bert

The authors' folder layout is written to a temporary folder from the mirror; our side reads it from there, too. Their
evaluator of decoders scores a sentence by the sum of its tokens' log-probabilities behind BOS, without special tokens; that of
encoders by the pseudo-log-likelihood, within-word left to right. Exit code 1 when fewer than 99.5 % of the predictions are the
same.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from harness.execution.matrix import read_matrix
from harness.execution.store import Store
from harness.knowledge.bear import Bear
from harness.models import MODELS
from harness.models.loaded import LoadedModel
from harness.models.sources import anchored, resolve
from harness.scoring import SCORERS

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"
LEAST_SAME = 0.995
REFERENCE: dict[str, dict[str, Any]] = {
    "decoder": {"model_type": "CLM", "ensure_bos_token_added": True},
    "encoder": {"model_type": "MLM", "pll_metric": "within_word_l2r"},
}
"""How the package is asked about a model of each family that it has."""


def main() -> None:
    """Print a row a relation, then every fact on which the two differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the offline mirror")
    parser.add_argument("--relations", default="P36,P30,P1376,P37")
    parser.add_argument("--template", type=int, default=0)
    parser.add_argument("--profile", default="embedded", help="of suites/matrix.toml (default: embedded)")
    parser.add_argument("--model", default="llama", help="a decoder or encoder of the profile (default: llama)")
    parser.add_argument("--facts", type=int, default=60, help="facts of each relation at most (default: 60)")
    given = parser.parse_args()
    entry = read_matrix(MATRIX, given.profile).plan(f"{given.model}_none_none").model
    folder_of = resolve(anchored(entry.source, MATRIX.parent), entry.sha256, Store.default().root).folder
    model = MODELS.load(entry.family)().load(folder_of, device="cpu", dtype="float32")
    n_facts = n_same = 0
    largest_nats = 0.0
    differing: list[str] = []
    print("relation  facts  answers  same  P@1 theirs  P@1 ours  max difference (nats)  theirs s  ours s")
    with tempfile.TemporaryDirectory() as folder:
        relations = given.relations.split(",")
        write_folder(given.data, Path(folder), relations, given.facts)
        for relation in relations:
            theirs, theirs_s = reference(model, Path(folder), relation, given.template)
            ours, gold, ours_s = own(model, Path(folder), relation, given.template)
            picked, mine = theirs.argmax(1), ours.argmax(1)
            same = picked == mine
            off = float(np.abs(theirs - ours).max())
            n_facts, n_same, largest_nats = n_facts + len(same), n_same + int(same.sum()), max(largest_nats, off)
            row = f"{relation:<8} {len(same):>6} {ours.shape[1]:>8} {same.sum():>5} {(picked == gold).mean():>11.3f}"
            print(f"{row} {(mine == gold).mean():>9.3f} {off:>22.2e} {theirs_s:>9.1f} {ours_s:>7.1f}", flush=True)
            for i in np.flatnonzero(~same):
                lead = theirs[i, picked[i]] - theirs[i, mine[i]]
                differing.append(
                    f"{relation}, fact {i}: answer {picked[i]} there, {mine[i]} here; its lead there {lead:.2e} nats"
                )
    print(*differing, sep="\n")
    share = n_same / n_facts
    print(f"{n_same} of {n_facts} predictions are the same ({share:.1%}); largest difference {largest_nats:.2e} nats")
    raise SystemExit(share < LEAST_SAME)


def write_folder(data: Path, folder: Path, relations: list[str], n_facts: int) -> None:
    """The authors' layout, from the mirror's two tables."""
    source = data / "lm-pub-quiz" / "BEAR"
    tables = {row["predicate_id"]: row for row in pq.read_table(source / "relations" / "test.parquet").to_pylist()}
    metadata = {
        code: {
            "templates": tables[code]["templates"],
            "answer_space_labels": tables[code]["answer_space_labels"],
            "answer_space_ids": [f"{code}-{i}" for i in range(len(tables[code]["answer_space_labels"]))],
        }
        for code in relations
    }
    (folder / "metadata_relations.json").write_text(json.dumps(metadata), encoding="utf-8")
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in pq.read_table(source / "BEAR" / "test.parquet").to_pylist():
        if len(rows[row["predicate_id"]]) < n_facts:
            kept = {key: row[key] for key in ("sub_id", "sub_label", "obj_label", "answer_idx")}
            rows[row["predicate_id"]].append({**kept, "obj_id": f"{row['predicate_id']}-{row['answer_idx']}"})
    for code in relations:
        lines = "".join(json.dumps(row) + "\n" for row in rows[code])
        (folder / f"{code}.jsonl").write_text(lines, encoding="utf-8")


def reference(model: LoadedModel, folder: Path, relation: str, template: int) -> tuple[np.ndarray, float]:
    """The package's scores [facts, answers], and the seconds that they took."""
    from lm_pub_quiz import Dataset, Evaluator

    logging.getLogger("lm_pub_quiz").setLevel(logging.ERROR)
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    evaluator = Evaluator.from_model(model.module, tokenizer=tokenizer, device="cpu", **REFERENCE[model.family])
    table = next(one for one in Dataset.from_path(folder) if one.relation_code == relation)
    started_s = time.perf_counter()
    found = evaluator.evaluate_relation(table, template_index=template, batch_size=32)
    return np.array(found.instance_table["pll_scores"].tolist()), time.perf_counter() - started_s


def own(model: LoadedModel, folder: Path, relation: str, template: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Our scores [facts, answers], the right answers, and the seconds that they took."""
    task = Bear(folder=folder, relations=[relation], template=template, family=model.family)
    _, items = task.build(model.tokenizer)
    started_s = time.perf_counter()
    scores = SCORERS.load(model.family)(model).score([task.requests(item) for item in items])
    took_s = time.perf_counter() - started_s
    return np.array([[s.loglik_nats for s in row] for row in scores]), np.array([item.gold[0] for item in items]), took_s


if __name__ == "__main__":
    main()
