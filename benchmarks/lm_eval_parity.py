"""Every lm-eval task of the matrix by lm-eval's own evaluation beside ours: the same loaded weights, the same documents.

    python benchmarks/lm_eval_parity.py --data <mirror> [--tasks arc_easy,mmlu] [--items 100] [--batch 8]
        [--softmax-dtype float64] [--out FILE] [--print]

The reference is ``lm_eval.evaluator.evaluate`` with its ``hf`` model class around the dense embedded model, its task objects
made by its own TaskManager from the mirror's folders by ``datasets.load_dataset``. Seconds are those of the forward passes.
A finished task is appended to FILE, and a run that was stopped goes on behind it; ``--print`` only shows what FILE has.

Where the two differ most, the request is scored once more by lm-eval's class with the weights in float64: how far each side is
off says whose rounding it is. torch's float32 log-softmax over a large vocabulary is a little too high at every token, which
adds up over a long text; ``--softmax-dtype float64`` takes that out of lm-eval's side. A batch of whole windows and its
logits is large: 24 GiB hold wikitext with ``--batch 1``. Of texts that are not equal, the margin is what the model sees
between its two likeliest tokens where they part. Exit code 1 when a metric's value, a verdict or a text differs by more than
that explains: 1e-3 nats a request (of a long text, a window), 1e-4 nats at a parting.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from harness.core.outcomes import Outcomes
from harness.core.records import Item, ItemOutcome
from harness.execution.matrix import CellPlan, read_matrix
from harness.execution.store import Store
from harness.execution.tasks import make_task
from harness.knowledge.lm_eval import LmEval
from harness.knowledge.task_plan import Plan
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.sources import resolve
from harness.report.sections.perplexity import perplexity
from harness.scoring import NEAR_TIE_NATS, Answer, Generated, Request
from harness.scoring.decoder import DecoderScorer
from harness.scoring.generate import GreedyGenerator

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"
TOLERANCE_NATS = 1e-3


@dataclass(frozen=True, slots=True)
class Row:
    """What both sides found on one task. ``key`` is what was asked of what; ``off_nats`` the largest difference of a request,
    ``ours_off_nats`` and ``theirs_off_nats`` how far each side is from float64 there; ``parting_nats`` the largest margin at
    which two texts part. None: there is no such thing in this task."""

    key: str
    task: str
    metric: str
    n_items: int
    n_requests: int
    n_windows: int
    ours: float
    theirs: float
    n_same_verdicts: int
    n_same_texts: int | None
    off_nats: float | None
    ours_off_nats: float | None
    theirs_off_nats: float | None
    parting_nats: float | None
    ours_s: float
    theirs_s: float

    @property
    def is_met(self) -> bool:
        """Whether both sides found the same."""
        if self.parting_nats is not None:
            return self.parting_nats <= NEAR_TIE_NATS
        near = self.off_nats is not None and self.off_nats <= TOLERANCE_NATS * max(1, self.n_windows)
        # perplexities are rounded on their way; a group's mean is a sum of its parts' means, in another order
        same = math.isclose(self.ours, self.theirs, rel_tol=1e-6 if self.n_windows else 1e-12)
        return near and same and self.n_same_verdicts == self.n_items


def main() -> None:
    """Measure what FILE does not have, print one row a task; exit 1 where both sides differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the offline mirror")
    parser.add_argument("--tasks", help="names of the matrix (default: every lm-eval task of the profile `knowledge`)")
    parser.add_argument("--items", type=int, default=100, help="documents of each task, a stable sample (default: 100)")
    parser.add_argument("--batch", type=int, default=8, help="lm-eval's batch size (default: 8)")
    parser.add_argument(
        "--softmax-dtype", metavar="DTYPE", help="lm-eval's `softmax_dtype` (default: its default, the logits')"
    )
    parser.add_argument("--out", type=Path, default=Path("lm_eval_parity.jsonl"), metavar="FILE", help="results, one a line")
    parser.add_argument("--print", action="store_true", help="measure nothing: the table of FILE")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    rows = {row.key: row for row in read_rows(given.out)}
    if not given.print:
        plan = read_matrix(MATRIX, "knowledge").plan("llama_none_none")
        names = given.tasks.split(",") if given.tasks else [n for n, e in plan.tasks.items() if e.suite == "lm_eval"]
        sides = Sides(plan, given.batch, given.softmax_dtype)
        told = f", lm-eval's softmax in {given.softmax_dtype}" if given.softmax_dtype else ""
        for name in names:
            task = make_task(name, plan.tasks[name], MATRIX.parent, limit=given.items, data=given.data, family="decoder")
            if not isinstance(task, LmEval):
                raise SystemExit(f"{name} is no task of lm-eval's")
            info, items = task.build(sides.model.tokenizer)
            key = f"{name} {info.spec_digest[:16]} {info.items_digest[:16]} {sides.model.weights_digest[:16]}{told}"
            if key not in rows:
                rows[key] = sides.compare(key, name + told, task, items, given.data)
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(rows[key])) + "\n")
                print(rows[key].task, "as lm-eval has it" if rows[key].is_met else "DIFFERS", file=sys.stderr, flush=True)
    print(table(rows.values()))
    raise SystemExit(not all(row.is_met for row in rows.values()))


def read_rows(path: Path) -> list[Row]:
    """What was found before."""
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    head = ("task", "metric", "items", "ours", "lm-eval", "same verdicts", "same texts", "max difference (nats)")
    head += ("ours / lm-eval off float64 there", "max margin at a parting (nats)", "ours s", "lm-eval s", "met")
    lines = [head, ("---",) * 3 + ("---:",) * 9 + ("---",)]
    for row in rows:
        exact = f"{shown(row.ours_off_nats)} / {shown(row.theirs_off_nats)}"
        value = ".4f" if row.n_windows == 0 else ".6f"
        cells = (row.task, row.metric, row.n_items, f"{row.ours:{value}}", f"{row.theirs:{value}}", row.n_same_verdicts)
        cells += ("–" if row.n_same_texts is None else row.n_same_texts, shown(row.off_nats), exact, shown(row.parting_nats))
        lines.append(tuple(map(str, (*cells, f"{row.ours_s:.0f}", f"{row.theirs_s:.0f}", "yes" if row.is_met else "**no**"))))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(nats: float | None) -> str:
    """A difference, if there is one."""
    return "–" if nats is None else f"{nats:.1e}"


# ------------------------------------------------------------------------------------------------ both sides


@dataclass
class Theirs:
    """What lm-eval found: its metric's value, and item by item its verdict and its answers (log-likelihood and greedy, a
    log-likelihood, or a text)."""

    value: float = 0.0
    correct: list[bool] = field(default_factory=list)
    answers: list[list[Any]] = field(default_factory=list)


class Sides:
    """The dense model, by our engine and by lm-eval's class."""

    def __init__(self, plan: CellPlan, batch: int, softmax_dtype: str | None) -> None:
        folder = resolve(plan.model.source, plan.model.sha256, Store.default().root).folder
        self.model = Decoder().load(folder, device="cpu", dtype="float32")
        # it sets the tokenizer's padding token: copies keep ours as it is
        tokenizer = copy.deepcopy(self.model.tokenizer)
        self.lm = Timed(pretrained=self.model.module, tokenizer=tokenizer, batch_size=batch, softmax_dtype=softmax_dtype)
        wide: Any = copy.deepcopy(self.model.module).double()
        self.wide = HFLM(pretrained=wide, tokenizer=copy.deepcopy(self.model.tokenizer), batch_size=1)

    def compare(self, key: str, name: str, task: LmEval, items: Sequence[Item], data: Path) -> Row:
        """One task's items on both sides."""
        groups: Any = [task.requests(item) for item in items]
        engine: Any = GreedyGenerator(self.model) if task.kind == "generation" else DecoderScorer(self.model)
        started_s = time.perf_counter()
        answers = engine.generate(groups) if task.kind == "generation" else engine.score(groups)
        ours_s = time.perf_counter() - started_s
        outcomes = [task.outcome(item, row) for item, row in zip(items, answers, strict=True)]
        theirs = self.reference(task, items, data)
        found = [list(map(plain, row)) for row in answers]
        pairs = [
            (request, mine, other if isinstance(mine, str) else other[0] if isinstance(other, tuple | list) else other)
            for asked, ours, others in zip(groups, found, theirs.answers, strict=True)
            for request, mine, other in zip(asked, ours, others, strict=True)
        ]
        texts = task.kind == "generation"
        worst = None if texts else max(pairs, key=lambda pair: abs(pair[1] - pair[2]))
        exact = None if worst is None else self.exact(worst[0])
        parted = [margin(self.model, request, mine, other) for request, mine, other in pairs if texts and mine != other]
        is_rolling = task.kind == "rolling"
        window = self.lm.max_length
        return Row(
            key=key,
            task=name,
            metric=task.metric,
            n_items=len(items),
            n_requests=len(pairs),
            n_windows=max(-(-answer.n_tokens // window) for [answer] in answers) if is_rolling else 0,
            ours=perplexity(Outcomes.of(tuple(item.digest for item in items), outcomes))
            if is_rolling
            else sum(o.correct for o in outcomes) / len(outcomes),
            theirs=theirs.value,
            n_same_verdicts=sum(is_same(a, b, is_rolling) for a, b in zip(outcomes, theirs.correct, strict=True)),
            n_same_texts=len(pairs) - len(parted) if texts else None,
            off_nats=None if worst is None else abs(worst[1] - worst[2]),
            ours_off_nats=None if worst is None or exact is None else abs(worst[1] - exact),
            theirs_off_nats=None if worst is None or exact is None else abs(worst[2] - exact),
            parting_nats=max(parted, default=0.0) if texts else None,
            ours_s=ours_s,
            theirs_s=self.lm.wall_s,
        )

    def reference(self, task: LmEval, items: Sequence[Item], data: Path) -> Theirs:
        """lm-eval's side, on the documents of our items."""
        numbers: dict[str, list[int]] = {}
        for item in items:
            numbers.setdefault(item.group, []).append(int(item.id.rpartition("/")[2].partition("-")[0]))
        plans = {plan.name: plan for plan in task._plans if plan.name in numbers}
        with tempfile.TemporaryDirectory() as folder:
            made = {name: own_task(plan, data, Path(folder)) for name, plan in plans.items()}
            self.lm.wall_s = 0.0
            found: Any = evaluate(self.lm, {"tasks": made}, samples=numbers, bootstrap_iters=0, log_samples=True)
        side = Theirs()
        for name, plan in plans.items():
            side.value += found["results"][name][f"{task.metric},{plan.filter}"] * len(numbers[name]) / len(items)
            rows = {row["doc_id"]: row for row in found["samples"][name] if row["filter"] == plan.filter}
            for number in numbers[name]:
                side.correct.append(rows[number][task.metric] == 1)
                side.answers.append([response[0] for response in rows[number]["resps"]])
        return side

    def exact(self, request: Request) -> float:
        """The request's log-likelihood by lm-eval's class, the weights in float64."""
        if request.reading == "rolling":
            made: Any = self.wide.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (request.continuation,), 0)])
            return float(made[0])
        asked = (request.context, request.continuation)
        made = self.wide.loglikelihood([Instance("loglikelihood", {}, asked, 0)], disable_tqdm=True)
        return float(made[0][0])


def own_task(plan: Plan, data: Path, folder: Path) -> Any:
    """lm-eval's own task object by way of its TaskManager: the installed task file, its data set from the mirror's folder,
    read by the library's own loader."""
    config, file = plan.leaf.config, folder / f"{plan.name}.yaml"
    if plan.n_shots and (config.get("fewshot_config") or {}).get("sampler") != "first_n":
        raise SystemExit(f"{plan.name}: lm-eval draws other examples when it is given only some of the documents")
    changes = {"include": str(plan.leaf.file.path), "dataset_path": str(data / config["dataset_path"])}
    changes |= {"task": plan.name, "dataset_kwargs": {"cache_dir": str(folder)}}
    file.write_text(json.dumps(changes), encoding="utf-8")
    task = TaskManager(include_defaults=False).load(str(file))["tasks"][plan.name]
    task.set_config("num_fewshot", plan.n_shots)
    task.set_fewshot_seed(seed=1234)
    return task


class Timed(HFLM):  # type: ignore[misc]
    """lm-eval's model class, counting the seconds of its forward passes."""

    wall_s = 0.0

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:  # noqa: ARG002
        """Timed."""
        return self._timed(super().loglikelihood, requests)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:  # noqa: ARG002
        """Timed."""
        return self._timed(super().loglikelihood_rolling, requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> Any:  # noqa: ARG002
        """Timed."""
        return self._timed(super().generate_until, requests)

    def _timed(self, run: Any, requests: list[Instance]) -> Any:
        started_s = time.perf_counter()
        made = run(requests, disable_tqdm=True)
        self.wall_s += time.perf_counter() - started_s
        return made


def plain(answer: Answer) -> Any:
    """An answer's text or log-likelihood."""
    return answer.text if isinstance(answer, Generated) else answer.loglik_nats


def is_same(ours: ItemOutcome, theirs: bool, is_rolling: bool) -> bool:
    """Whether both sides' verdicts are the same; a text of its own has none."""
    return is_rolling or ours.correct == theirs


def margin(model: LoadedModel, prompt: Any, mine: str, other: str) -> float:
    """What the model, fed one prompt without a cache, sees between its two likeliest tokens where two texts part."""
    module: Any = model.module
    before = model.tokenizer.encode(prompt.context)[-(module.config.max_position_embeddings - prompt.max_new_tokens) :]
    a, b = (model.tokenizer.encode(text, add_special_tokens=False) for text in (mine, other))
    n_same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    with torch.inference_mode():
        logits = module(input_ids=torch.tensor([[*before, *a[:n_same]]]), use_cache=False).logits[0, -1]
    first, second = logits.float().log_softmax(-1).topk(2).values.tolist()
    return float(first - second)


if __name__ == "__main__":
    main()
