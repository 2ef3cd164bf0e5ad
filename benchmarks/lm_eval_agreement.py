"""lm-eval's own evaluation beside ours: same loaded weights, same documents, its task code on both sides.

    python benchmarks/lm_eval_agreement.py --data <mirror> [--tasks arc_easy,sciq:acc_norm] [--items 200] [--batch 8]

The reference is ``lm_eval.evaluator.evaluate`` with its ``hf`` model class around the dense embedded model, its task objects
made by its own TaskManager from the mirror's folders by ``datasets.load_dataset``. Seconds are those of the forward passes:
``HFLM.loglikelihood`` or ``generate_until`` there, the scorer or the generator here. Zero-shot tasks only: with examples,
lm-eval draws others when it is given only some of the documents.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from harness.core.errors import ConfigError
from harness.core.records import Item, ItemOutcome
from harness.execution.matrix import read_matrix
from harness.execution.store import Store
from harness.knowledge.lm_eval import LmEval
from harness.knowledge.task_plan import Plan
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.sources import resolve
from harness.scoring import Answer, Generated
from harness.scoring.decoder import DecoderScorer
from harness.scoring.generate import GreedyGenerator

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"
TOLERANCE_NATS = 1e-3


def main() -> None:
    """Print one row a task; exit 1 when an accuracy differs or a log-likelihood is off by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the offline mirror")
    parser.add_argument("--tasks", default="arc_easy,sciq", help="names, each with :metric where it is not acc or exact_match")
    parser.add_argument("--items", type=int, default=200, help="documents of each task (default: 200)")
    parser.add_argument("--batch", type=int, default=8, help="lm-eval's batch size (default: 8)")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    entry = read_matrix(MATRIX, "embedded").plan("llama_none_none").model
    model = Decoder().load(resolve(entry.source, entry.sha256, Store.default().root).folder, device="cpu", dtype="float32")
    # it sets the tokenizer's padding token: a copy keeps ours as it is
    reference = Timed(pretrained=model.module, tokenizer=copy.deepcopy(model.tokenizer), batch_size=given.batch)
    missed = False
    print("task             metric       items  ours    lm-eval  equal    max diff (nats)  lm-eval s  ours s  ratio")
    for name in given.tasks.split(","):
        task = make_task(*name.split(":"), data=given.data, limit=given.items)
        mine = measure(task, model)
        theirs = lm_eval_side(task, mine.items, reference, given.data)
        same = [a.correct == b for a, b in zip(mine.outcomes, theirs.correct, strict=True)]
        accuracy, reference_accuracy = share(o.correct for o in mine.outcomes), share(theirs.correct)
        off = max(map(difference, mine.answers, theirs.answers))
        missed |= accuracy != reference_accuracy or off > TOLERANCE_NATS
        shown = "-" if task.kind == "generation" else f"{off:.2e}"
        row = (
            f"{task.task:<16} {task.metric:<12} {len(same):>5}  {accuracy:.4f}  {reference_accuracy:.4f}  {share(same):>7.2%}"
        )
        print(
            f"{row}  {shown:>15}  {theirs.wall_s:>9.1f}  {mine.wall_s:>6.1f}  {theirs.wall_s / mine.wall_s:>5.1f}", flush=True
        )
    print(f"same accuracies, tolerance {TOLERANCE_NATS:g} nats: {'MISSED' if missed else 'met'}")
    raise SystemExit(missed)


def make_task(name: str, metric: str | None = None, *, data: Path, limit: int) -> LmEval:
    """Our task; its metric is acc, or exact_match where the task has no acc."""
    task = LmEval(task=name, metric=metric or "acc", data=data, limit=limit)
    try:
        task.kind  # noqa: B018 - asks whether the task can be gated on this metric
    except ConfigError:
        if metric is not None:
            raise
        task = LmEval(task=name, metric="exact_match", data=data, limit=limit)
    return task


@dataclass
class Side:
    """What one side found, item by item."""

    wall_s: float = 0.0
    items: tuple[Item, ...] = ()
    outcomes: list[ItemOutcome] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    answers: list[list[Any]] = field(default_factory=list)


def measure(task: LmEval, model: LoadedModel) -> Side:
    """Our side."""
    _, items = task.build(model.tokenizer)
    engine: Any = GreedyGenerator(model) if task.kind == "generation" else DecoderScorer(model)
    groups = [task.requests(item) for item in items]
    started_s = time.perf_counter()
    answers = engine.generate(groups) if task.kind == "generation" else engine.score(groups)
    wall_s = time.perf_counter() - started_s
    outcomes = [task.outcome(item, row) for item, row in zip(items, answers, strict=True)]
    return Side(wall_s, items, outcomes, [], [list(map(plain, row)) for row in answers])


def lm_eval_side(task: LmEval, items: tuple[Item, ...], lm: Timed, data: Path) -> Side:
    """lm-eval's side, on the documents of our items."""
    numbers: dict[str, list[int]] = {}
    for item in items:
        numbers.setdefault(item.group, []).append(int(item.id.rpartition("/")[2].partition("-")[0]))
    with tempfile.TemporaryDirectory() as folder:
        made = {plan.name: own_task(plan, data, Path(folder)) for plan in task._plans if plan.name in numbers}
        lm.wall_s = 0.0
        found: Any = evaluate(lm, {"tasks": made}, samples=numbers, bootstrap_iters=0, log_samples=True)
    side = Side(lm.wall_s)
    for name in numbers:
        chosen = task.filter or made[name]._filters[0].name
        for row in (row for row in found["samples"][name] if row["filter"] == chosen):
            side.correct.append(bool(row[task.metric]))
            side.answers.append([response[0] for response in row["resps"]])
    return side


def own_task(plan: Plan, data: Path, folder: Path) -> Any:
    """lm-eval's own task object by way of its TaskManager: the installed task file, its data set from the mirror's folder,
    read by the library's own loader."""
    file = folder / f"{plan.name}.yaml"
    dataset = data / plan.leaf.config["dataset_path"]
    changes = {"include": str(plan.leaf.file.path), "dataset_path": str(dataset), "dataset_kwargs": {"cache_dir": str(folder)}}
    file.write_text(json.dumps(changes), encoding="utf-8")
    task = TaskManager(include_defaults=False).load(str(file))["tasks"][plan.name]
    task.set_config("num_fewshot", task.config.num_fewshot or 0)
    task.set_fewshot_seed(seed=1234)
    return task


class Timed(HFLM):  # type: ignore[misc]
    """lm-eval's model class, counting the seconds of its forward passes."""

    wall_s = 0.0

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:  # noqa: ARG002
        """Timed."""
        started_s = time.perf_counter()
        made = super().loglikelihood(requests, disable_tqdm=True)
        self.wall_s += time.perf_counter() - started_s
        return made

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:  # noqa: ARG002
        """Timed."""
        started_s = time.perf_counter()
        made = super().generate_until(requests, disable_tqdm=True)
        self.wall_s += time.perf_counter() - started_s
        return made


def plain(answer: Answer) -> Any:
    """An answer as lm-eval has it."""
    return answer.text if isinstance(answer, Generated) else (answer.loglik_nats, answer.is_greedy)


def difference(ours: list[Any], theirs: list[Any]) -> float:
    """max |a − b| in nats over an item's requests; texts have none, their verdicts are compared."""
    pairs = zip(ours, theirs, strict=True)
    return max((abs(a[0] - b[0]) for a, b in pairs if not isinstance(a, str)), default=0.0)


def share(values: Any) -> float:
    """The share of true values."""
    found = list(values)
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
