"""Our scoring beside lm-eval's ``hf`` model class and beside the floor: the same items, one process, both sides in turn.

    python benchmarks/scoring.py --data <mirror> [--tasks sciq,mmlu:5] [--items 60] [--batches 1,4,8,16]
    python benchmarks/scoring.py --data <mirror> --growth arc_easy --sizes 100,400,1500

For each task: the seconds of ``HFLM.loglikelihood`` at its best batch size (found on some of the items) over ours (the mean
of a run before it and a run after it), tokens fed, the largest difference of a log-likelihood, whether every item's metric
is equal, and how much memory each side took beyond the model. The floor is what cannot be avoided: each distinct token once
through the body, the output layer where a score is read, and attention to what came before, in FLOPs, over the rate of plain
matrix products at the body's shapes, the median of what was measured around each run: torch's own products, and those of the
fastest library that torch has. The table's floor is the second.

Where the two sides are more than the tolerance apart, both are compared with the same model in float64, fed one request at a
time: what then counts is how far ours is from that.

``--growth`` takes one task at several sizes instead: our time an item, and how long the task takes to set up again.
"""

from __future__ import annotations

import argparse
import copy
import gc
import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import nn

from harness.execution.matrix import read_matrix
from harness.execution.store import Store
from harness.knowledge.lm_eval import LmEval
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.sources import resolve
from harness.scoring import Request, Score
from harness.scoring.decoder import DecoderScorer
from harness.scoring.encode import encode_groups, window_tokens

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"
TASKS = "arc_easy,sciq,piqa,hellaswag,openbookqa,winogrande,boolq,lambada_openai,arc_challenge:25,mmlu:5"
FEW = {"arc_challenge": 20}
"""Items of tasks whose lm-eval side takes minutes."""

LITTLE_TO_SHARE = {"boolq", "lambada_openai"}
TUNED_ON_ITEMS = 8
TOLERANCE_NATS = 1e-3
GEMM_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """What one task took on each side."""

    task: str
    n_items: int
    tokens_fed: int
    tokens_distinct: int
    tokens_lm_eval: int
    batch: int
    lm_eval_s: float
    ours_s: float
    floor_s: float
    torch_floor_s: float
    difference_nats: float
    metrics_equal: bool
    lm_eval_mb: float
    ours_mb: float
    off_float64_nats: tuple[float, float] | None = None
    """How far ours and theirs are from float64, at most, where they are too far apart."""

    @property
    def agrees(self) -> bool:
        """Whether the log-likelihoods are the same, or ours are the right ones."""
        near = self.difference_nats if self.off_float64_nats is None else self.off_float64_nats[0]
        return near <= TOLERANCE_NATS

    def line(self) -> str:
        """The row as printed."""
        return (
            f"{self.task:<15} {self.n_items:>5} {self.tokens_fed:>8,} {self.tokens_distinct:>8,} {self.tokens_lm_eval:>9,}"
            f" {self.lm_eval_s:>9.1f} {self.batch:>5} {self.ours_s:>7.1f} {self.floor_s:>7.1f}"
            f" {self.lm_eval_s / self.ours_s:>9.2f} {self.ours_s / self.floor_s:>8.2f}"
            f" {self.difference_nats:>9.1e} {'yes' if self.metrics_equal else 'NO':>6}"
            f" {self.lm_eval_mb:>7.0f} {self.ours_mb:>7.0f}"
        )


HEAD = (
    f"{'task':<15} {'items':>5} {'fed':>8} {'distinct':>8} {'lm-eval':>9} {'lm-eval s':>9} {'batch':>5} {'ours s':>7}"
    f" {'floor s':>7} {'ratio':>9} {'of floor':>8} {'nats off':>9} {'equal':>6} {'lm MB':>7} {'our MB':>7}"
)


def main() -> None:
    """Print one row a task and the geometric means; exit 1 where a score or a metric differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the offline mirror")
    parser.add_argument("--tasks", default=TASKS, help="names, each with :examples where not zero-shot")
    parser.add_argument("--items", type=int, default=60, help="items of each task (default: 60; arc_challenge at most 20)")
    parser.add_argument("--batches", default="1,4,8,16", help="batch sizes of lm-eval's to choose from")
    parser.add_argument("--growth", metavar="TASK", help="one task at several sizes instead of the comparison")
    parser.add_argument("--sizes", default="100,400,1500", help="numbers of items for --growth")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    entry = read_matrix(MATRIX, "embedded").plan("llama_none_none").model
    model = Decoder().load(resolve(entry.source, entry.sha256, Store.default().root).folder, device="cpu", dtype="float32")
    told = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in gemm_rates(model).items())
    print(f"{torch.get_num_threads()} threads, matrix products at the body's shapes, GFLOP/s: {told}")
    if given.growth:
        growth(given.growth, [int(size) for size in given.sizes.split(",")], given.data, model)
        return
    # it sets the tokenizer's padding token: a copy keeps ours as it is
    reference = HFLM(pretrained=model.module, tokenizer=copy.deepcopy(model.tokenizer), batch_size=1)
    print(HEAD, flush=True)
    batches = [int(size) for size in given.batches.split(",")]
    rows = []
    for named in given.tasks.split(","):
        name, _, shots = named.partition(":")
        limit = min(given.items, FEW.get(name, given.items))
        task = LmEval(task=name, metric="acc", data=given.data, limit=limit, num_fewshot=int(shots or 0))
        rows.append(compare(name, task, model=model, reference=reference, batches=batches))
        print(rows[-1].line(), flush=True)
    raise SystemExit(summary(rows))


def compare(name: str, task: LmEval, *, model: LoadedModel, reference: HFLM, batches: Sequence[int]) -> Row:
    """Both sides on one task's items."""
    _, items = task.build(model.tokenizer)
    groups: list[tuple[Request, ...]] = [task.requests(item) for item in items]  # type: ignore[misc] # none is generated
    tuned = groups[: min(TUNED_ON_ITEMS, len(groups))]
    spent = {size: timed(partial(lm_eval_scores, reference, tuned, size))[1] for size in batches}
    batch = min(spent, key=spent.__getitem__)
    scorer = DecoderScorer(model)
    scorer.score(tuned)
    rates = [gemm_rates(model)]
    fed_before = scorer.tokens_fed
    (ours, before_s), ours_mb = peak_mb(lambda: timed(lambda: scorer.score(groups)))
    tokens_fed = scorer.tokens_fed - fed_before
    rates.append(gemm_rates(model))
    (theirs, lm_eval_s), lm_eval_mb = peak_mb(lambda: timed(lambda: lm_eval_scores(reference, groups, batch)))
    rates.append(gemm_rates(model))
    _, after_s = timed(lambda: scorer.score(groups))
    rates.append(gemm_rates(model))
    pairs = [(a, b) for mine, others in zip(ours, theirs, strict=True) for a, b in zip(mine, others, strict=True)]
    verdicts = [
        task.outcome(item, mine).correct == task.outcome(item, others).correct
        for item, mine, others in zip(items, ours, theirs, strict=True)
    ]
    floor = Floor.of(model, groups)
    requests = [request for group in groups for request in group]
    apart = [i for i, (a, b) in enumerate(pairs) if abs(a.loglik_nats - b.loglik_nats) > TOLERANCE_NATS]
    exact = float64_nats(model, [requests[i] for i in apart])
    off = [[abs(pairs[i][side].loglik_nats - nats) for i, nats in zip(apart, exact, strict=True)] for side in (0, 1)]
    return Row(
        off_float64_nats=(max(off[0]), max(off[1])) if apart else None,
        task=name,
        n_items=len(items),
        tokens_fed=tokens_fed,
        tokens_distinct=floor.n_tokens,
        tokens_lm_eval=floor.n_tokens_apart,
        batch=batch,
        lm_eval_s=lm_eval_s,
        ours_s=(before_s + after_s) / 2,
        floor_s=floor.flops / statistics.median(max(rate.values()) for rate in rates),
        torch_floor_s=floor.flops / statistics.median(rate["torch"] for rate in rates),
        difference_nats=max(abs(a.loglik_nats - b.loglik_nats) for a, b in pairs),
        metrics_equal=all(verdicts),
        lm_eval_mb=lm_eval_mb,
        ours_mb=ours_mb,
    )


def float64_nats(model: LoadedModel, requests: Sequence[Request]) -> list[float]:
    """The log-likelihoods of requests by the model in float64, one forward pass each."""
    if not requests:
        return []
    module: Any = copy.deepcopy(model.module).double()
    window = window_tokens(module.config, model.tokenizer)
    found = []
    with torch.inference_mode():
        for encoded in encode_groups([requests], model, window)[0]:
            logits = module(torch.tensor([encoded.tokens[:-1]])).logits[0, -encoded.n_scored :]
            targets = torch.tensor(encoded.tokens[-encoded.n_scored :])
            found.append(float(logits.log_softmax(-1).gather(1, targets[:, None]).sum()))
    return found


def growth(name: str, sizes: Sequence[int], data: Path, model: LoadedModel) -> None:
    """Print what an item costs at several sizes of one task, over the floor's FLOPs, and what setting the task up costs."""
    print(f"{'items':>6} {'set up s':>9} {'ours s':>8} {'ms an item':>11} {'distinct':>9} {'of floor':>9}", flush=True)
    for size in sizes:
        task = LmEval(task=name, metric="acc", data=data, limit=size)
        (_, items), setup_s = timed(lambda task=task: task.build(model.tokenizer))  # type: ignore[misc]
        groups = [task.requests(item) for item in items]
        scorer = DecoderScorer(model)
        before = gemm_rate(model)
        _, spent_s = timed(lambda scorer=scorer, groups=groups: scorer.score(groups))  # type: ignore[misc]
        floor = Floor.of(model, groups)  # type: ignore[arg-type]
        floor_s = floor.flops / statistics.mean([before, gemm_rate(model)])
        print(
            f"{len(items):>6} {setup_s:>9.2f} {spent_s:>8.2f} {1000 * spent_s / len(items):>11.2f} {floor.n_tokens:>9,}"
            f" {spent_s / floor_s:>9.2f}",
            flush=True,
        )


def peak_mb(run: Callable[[], Any]) -> tuple[Any, float]:
    """What ``run`` gives, and by how much resident memory rose above what it was before, at its highest (Linux; else NaN)."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not refs.exists():
        return run(), math.nan
    gc.collect()
    refs.write_text("5")  # the highest mark starts anew
    before_kb = _kilobytes(status.read_text(), "VmRSS")
    made = run()
    return made, (_kilobytes(status.read_text(), "VmHWM") - before_kb) / 1024


def _kilobytes(status: str, key: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key))


def lm_eval_scores(reference: HFLM, groups: Sequence[Sequence[Request]], batch: int) -> list[list[Score]]:
    """lm-eval's log-likelihoods of the requests, as ours are given."""
    reference.batch_size_per_gpu = batch
    flat = [Instance("loglikelihood", {}, (r.context, r.continuation), i) for group in groups for i, r in enumerate(group)]
    found = iter(reference.loglikelihood(flat, disable_tqdm=True))
    scores: list[list[Score]] = []
    for group in groups:
        told = [next(found) for _ in group]
        n_tokens = [len(reference.tok_encode(r.continuation, add_special_tokens=False)) for r in group]
        scores.append([Score(float(nats), bool(greedy), n) for (nats, greedy), n in zip(told, n_tokens, strict=True)])
    return scores


@dataclass(frozen=True, slots=True)
class Floor:
    """What must be computed at least: ``flops``, ``n_tokens`` distinct tokens; ``n_tokens_apart`` when each request is fed."""

    flops: float
    n_tokens: int
    n_tokens_apart: int

    @classmethod
    def of(cls, model: LoadedModel, groups: Sequence[Sequence[Request]]) -> Floor:
        """Over all requests: a token after the same tokens is one, wherever it stands; so is a position that is read."""
        config: Any = model.module.config
        encoded = [e for row in encode_groups(groups, model, window_tokens(config, model.tokenizer)) for e in row]
        nodes: dict[tuple[int, int], int] = {}
        depth_sum, read = 0, set()
        for request in encoded:
            node = 0
            for depth, token in enumerate(request.tokens[:-1], start=1):
                known = len(nodes)
                node = nodes.setdefault((node, token), known + 1)
                depth_sum += depth * (len(nodes) > known)
                if depth >= len(request.tokens) - request.n_scored:
                    read.add(node)
        width = config.num_attention_heads * (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        attention = 4 * width * config.num_hidden_layers * depth_sum
        output = 2 * config.vocab_size * config.hidden_size * len(read)
        flops = 2 * sum(layer.weight.numel() for layer in body_layers(model)) * len(nodes) + attention + output
        return cls(float(flops), len(nodes), sum(len(request.tokens) - 1 for request in encoded))


def body_layers(model: LoadedModel) -> list[nn.Linear]:
    """The linear layers that every fed token passes."""
    head = model.module.get_output_embeddings()  # type: ignore[operator]
    return [layer for layer in model.module.modules() if isinstance(layer, nn.Linear) and layer is not head]


def gemm_rate(model: LoadedModel, repeats: int = 15) -> float:
    """FLOPs a second of matrix products at the shapes of one block: the faster library's, the median of some repeats."""
    return max(gemm_rates(model, repeats).values())


def gemm_rates(model: LoadedModel, repeats: int = 15) -> dict[str, float]:
    """The same by library: what torch takes by itself, and oneDNN, where torch has its operator."""
    shapes = [tuple(layer.weight.shape) for layer in body_layers(model)]
    weights = [torch.randn(shape) for shape in shapes[: len(shapes) // model.module.config.num_hidden_layers]]  # type: ignore[operator,union-attr]
    inputs = [torch.randn(GEMM_ROWS, weight.shape[1]) for weight in weights]
    flops = sum(2 * GEMM_ROWS * weight.numel() for weight in weights)
    ways: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"torch": lambda x, weight: torch.mm(x, weight.T)}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        ways["oneDNN"] = lambda x, weight: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    def seconds(way: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
        return timed(lambda: [way(x, weight) for x, weight in zip(inputs, weights, strict=True)])[1]

    for way in ways.values():
        seconds(way)
    return {name: flops / statistics.median(seconds(way) for _ in range(repeats)) for name, way in ways.items()}


def summary(rows: Sequence[Row]) -> int:
    """Print the geometric means; 1 where the sides disagree."""
    of_floor = geometric_mean(row.ours_s / row.floor_s for row in rows)
    of_torch = geometric_mean(row.ours_s / row.torch_floor_s for row in rows)
    print(
        f"geometric mean of the time over the floor: {of_torch:.2f} by the products that torch takes (aim: at most 1.4),"
        f" {of_floor:.2f} by the fastest library"
    )
    ratio = geometric_mean(row.lm_eval_s / row.ours_s for row in rows)
    print(f"geometric mean of lm-eval's time over ours: {ratio:.2f} (aim: at least 3)")
    sharing = [row.lm_eval_s / row.ours_s for row in rows if row.task not in LITTLE_TO_SHARE]
    if sharing:
        print(f"the same without tasks that have little to share: {geometric_mean(sharing):.2f}")
    for row in rows:
        if row.task in LITTLE_TO_SHARE:
            print(f"{row.task}: {row.lm_eval_s / row.ours_s:.2f} (aim: at least 1.1)")
    heavier = [row.task for row in rows if row.ours_mb > row.lm_eval_mb]
    print(f"peak memory not above lm-eval's: {'MISSED by ' + ', '.join(heavier) if heavier else 'met'}")
    for row in rows:
        if row.off_float64_nats is not None:
            ours, theirs = row.off_float64_nats
            print(f"{row.task}: where they are apart, ours is {ours:.1e} nats off float64 at most, lm-eval {theirs:.1e}")
    off = [row.task for row in rows if not (row.agrees and row.metrics_equal)]
    print(
        f"log-likelihoods within {TOLERANCE_NATS:g} nats and equal metrics: {'MISSED by ' + ', '.join(off) if off else 'met'}"
    )
    return int(bool(off))


def geometric_mean(values: Any) -> float:
    """exp of the mean logarithm."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What ``run`` gives, and how many seconds it took."""
    started_s = time.perf_counter()
    return run(), time.perf_counter() - started_s


if __name__ == "__main__":
    main()
