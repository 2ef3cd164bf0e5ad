"""Our greedy generation beside lm-eval's ``hf`` model class: the same prompts, one process, both sides in turn.

    python benchmarks/generation.py --data <mirror> [--tasks triviaqa:5:32,gsm8k:5:8:64] [--batches 1,4,8,16]

For each task: the seconds of ``HFLM.generate_until`` at its best batch size over ours, tokens fed and made, and how many texts
are equal. Every batch size is tried on all prompts, and given up once it takes longer than the best so far: with several stop
strings a batch of lm-eval's often runs on to the most new tokens, because it ends only where one of them is in every row.
Where texts are not equal, both sides part at a near-tie: the margin is what the plain model sees between its two likeliest
tokens there, in nats. A multiple-choice task lends its contexts; their answers end as TriviaQA's do.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness.core.errors import ConfigError
from harness.execution.matrix import read_matrix
from harness.execution.store import Store
from harness.knowledge.lm_eval import LmEval
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.sources import resolve
from harness.scoring import NEAR_TIE_NATS, Generated, Prompt, Request
from harness.scoring.generate import GreedyGenerator

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"
TASKS = "triviaqa:5:32,webqs:0:40,gsm8k:5:8:64,gsm8k_cot:8:8:64"
STOP, MOST_NEW = ("\n", ".", ","), 256


@dataclass(frozen=True, slots=True)
class Row:
    """What one task took on each side."""

    task: str
    n_items: int
    tokens_prompts: int
    tokens_fed: int
    tokens_made: int
    batch: int
    lm_eval_s: float
    ours_s: float
    n_equal: int
    margin_nats: float

    def line(self) -> str:
        """The row as printed."""
        return (
            f"{self.task:<12} {self.n_items:>5} {self.tokens_prompts:>9,} {self.tokens_fed:>8,} {self.tokens_made:>7,}"
            f" {self.lm_eval_s:>9.1f} {self.batch:>5} {self.ours_s:>7.1f} {self.lm_eval_s / self.ours_s:>6.2f}"
            f" {self.n_equal:>6} {self.margin_nats:>9.1e}"
        )


HEAD = (
    f"{'task':<12} {'items':>5} {'in asked':>9} {'fed':>8} {'made':>7} {'lm-eval s':>9} {'batch':>5} {'ours s':>7}"
    f" {'ratio':>6} {'equal':>6} {'margin':>9}"
)


def main() -> None:
    """Print one row a task and the geometric mean; exit 1 where texts part at more than a near-tie."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the offline mirror")
    parser.add_argument("--tasks", default=TASKS, help="name:examples:items[:most new tokens], separated by commas")
    parser.add_argument("--batches", default="1,4,8,16", help="batch sizes of lm-eval's to choose from")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    entry = read_matrix(MATRIX, "embedded").plan("llama_none_none").model
    model = Decoder().load(resolve(entry.source, entry.sha256, Store.default().root).folder, device="cpu", dtype="float32")
    # it sets the tokenizer's padding token: a copy keeps ours as it is
    reference = HFLM(pretrained=model.module, tokenizer=copy.deepcopy(model.tokenizer), batch_size=1)
    print(f"{torch.get_num_threads()} threads; path: {GreedyGenerator(model).path}")
    print(HEAD, flush=True)
    rows = []
    for named in given.tasks.split(","):
        name, shots, n_items, *most = named.split(":")
        prompts = read_prompts(name, int(shots), int(n_items), data=given.data, model=model)
        if most:
            prompts = [replace(prompt, max_new_tokens=int(most[0])) for prompt in prompts]
        rows.append(compare(name, prompts, model=model, reference=reference, batches=list(map(int, given.batches.split(",")))))
        print(rows[-1].line(), flush=True)
    logs = [math.log(row.lm_eval_s / row.ours_s) for row in rows]
    print(f"geometric mean of lm-eval's time over ours: {math.exp(sum(logs) / len(logs)):.2f}")
    missed = [row.task for row in rows if not row.margin_nats <= NEAR_TIE_NATS]
    print(f"texts part at near-ties ({NEAR_TIE_NATS:g} nats) only: {'MISSED by ' + ', '.join(missed) if missed else 'met'}")
    raise SystemExit(bool(missed))


def read_prompts(name: str, shots: int, n_items: int, *, data: Path, model: LoadedModel) -> list[Prompt]:
    """The prompts of a task's first items in a stable order."""
    try:
        task = LmEval(task=name, metric="exact_match", data=data, limit=n_items, num_fewshot=shots)
        _, items = task.build(model.tokenizer)
    except ConfigError:
        task = LmEval(task=name, metric="acc", data=data, limit=n_items, num_fewshot=shots)
        _, items = task.build(model.tokenizer)
    asked = [task.requests(item)[0] for item in items]
    return [Prompt(each.context, STOP, MOST_NEW) if isinstance(each, Request) else each for each in asked]


def compare(name: str, prompts: Sequence[Prompt], *, model: LoadedModel, reference: HFLM, batches: Sequence[int]) -> Row:
    """Both sides on one task's prompts."""
    generator = GreedyGenerator(model)
    fed_before = generator.tokens_fed
    groups = [[prompt] for prompt in prompts]
    ours, ours_s = timed(lambda: [made for [made] in generator.generate(groups)])
    fed = generator.tokens_fed - fed_before
    theirs, lm_eval_s, batch = best_of_lm_eval(reference, prompts, batches)
    parted = [
        margin(model, prompt, mine, other)
        for prompt, mine, other in zip(prompts, ours, theirs, strict=True)
        if mine.text != other
    ]
    return Row(
        task=name,
        n_items=len(prompts),
        tokens_prompts=sum(len(model.tokenizer.encode(prompt.context)) for prompt in prompts),
        tokens_fed=fed,
        tokens_made=sum(made.n_tokens for made in ours),
        batch=batch,
        lm_eval_s=lm_eval_s,
        ours_s=ours_s,
        n_equal=len(prompts) - len(parted),
        margin_nats=max(parted, default=0.0),
    )


class TooSlowError(Exception):
    """A batch size takes longer than the best so far."""


def best_of_lm_eval(reference: HFLM, prompts: Sequence[Prompt], batches: Sequence[int]) -> tuple[list[str], float, int]:
    """lm-eval's texts, its seconds and its batch size where these were fewest."""
    best: tuple[list[str], float, int] | None = None
    for batch in batches:
        until_s = time.perf_counter() + (best[1] if best else math.inf)

        def watch(_module: object, _given: object, until_s: float = until_s) -> None:
            if time.perf_counter() > until_s:
                raise TooSlowError

        hook = reference.model.register_forward_pre_hook(watch)
        try:
            texts, spent_s = timed(partial(lm_eval_texts, reference, prompts, batch))
            best = texts, spent_s, batch
        except TooSlowError:
            continue
        finally:
            hook.remove()
    if best is None:
        raise SystemExit("no batch size was given")
    return best


def lm_eval_texts(reference: HFLM, prompts: Sequence[Prompt], batch: int) -> list[str]:
    """lm-eval's texts of the prompts."""
    reference.batch_size_per_gpu = batch
    made = [
        Instance("generate_until", {}, (p.context, {"until": list(p.stop), "max_gen_toks": p.max_new_tokens}), i)
        for i, p in enumerate(prompts)
    ]
    texts: list[str] = reference.generate_until(made, disable_tqdm=True)
    return texts


def margin(model: LoadedModel, prompt: Prompt, mine: Generated, other: str) -> float:
    """What the model, fed one prompt without a cache, sees between its two likeliest tokens where two texts part."""
    before = model.tokenizer.encode(prompt.context)[-(model.module.config.max_position_embeddings - prompt.max_new_tokens) :]  # type: ignore[union-attr,operator]
    a, b = (model.tokenizer.encode(text, add_special_tokens=False) for text in (mine.text, other))
    n_same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    module: Any = model.module
    with torch.inference_mode():
        logits = module(input_ids=torch.tensor([[*before, *a[:n_same]]]), use_cache=False).logits[0, -1]
    first, second = logits.float().log_softmax(-1).topk(2).values.tolist()
    return float(first - second)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What ``run`` gives, and how many seconds it took."""
    started_s = time.perf_counter()
    return run(), time.perf_counter() - started_s


if __name__ == "__main__":
    main()
