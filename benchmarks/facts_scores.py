"""Our scores of the facts beside a plain transformers loop, on the same items, in one run: largest difference, time ratio.

    python benchmarks/facts_scores.py [--facts 100]

The loop feeds one item at a time, each of its sentences whole, padded on the right, and makes the logits of every position:
slow, and hard to get wrong. Its softmax is summed in float64, because torch's float32 ``log_softmax`` over 49,152 entries
alone puts a sentence 6e-5 nats too high on average. For the blank it feeds the context once an item.

Both sides run in float32, as the gate does, and in float64, where rounding no longer hides a difference of method.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from harness.execution.matrix import read_matrix
from harness.execution.store import Store
from harness.knowledge import KNOWLEDGE
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.sources import resolve
from harness.scoring import Request
from harness.scoring.decoder import DecoderScorer

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"
TOLERANCE_NATS = 1e-4
T = TypeVar("T")


def main() -> None:
    """Print one row a protocol; exit 1 when a score is off by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", type=int, default=100, help="facts of each protocol (default: 100)")
    n_facts = parser.parse_args().facts
    entry = read_matrix(MATRIX, "embedded").plan("llama_none_none").model
    model = Decoder().load(resolve(entry.source, entry.sha256, Store.default().root).folder, device="cpu", dtype="float32")
    worst = 0.0
    print("protocol     dtype    items  scores  max difference (nats)  mean |score|  loop s  ours s  ratio")
    exact: dict[str, list[float]] = {}
    for dtype in (torch.float64, torch.float32):
        model.module.to(dtype)
        for name in ("facts", "facts_blank"):
            task = KNOWLEDGE.load(name)(limit=n_facts)
            groups = [task.requests(item) for item in task.build(model.tokenizer)[1]]
            scorer = DecoderScorer(model)
            ours, ours_s = timed(lambda groups=groups, scorer=scorer: scorer.score(groups))
            loop, loop_s = timed(lambda groups=groups: [plain(model, group) for group in groups])
            mine, theirs = [score.loglik_nats for row in ours for score in row], [score for row in loop for score in row]
            difference = largest_difference(mine, theirs)
            size = sum(map(abs, theirs)) / len(theirs)
            worst = max(worst, difference)
            row = f"{name:<12} {str(dtype)[6:]:<7} {len(groups):>6} {len(theirs):>7} {difference:>22.2e} {size:>13.1f}"
            print(f"{row} {loop_s:>7.1f} {ours_s:>7.1f} {loop_s / ours_s:>6.1f}", flush=True)
            if dtype == torch.float64:
                exact[name] = theirs
            else:
                ours_off, loop_off = largest_difference(mine, exact[name]), largest_difference(theirs, exact[name])
                print(f"{'':<12} off the float64 loop: ours {ours_off:.2e}, the float32 loop {loop_off:.2e}", flush=True)
    print(f"tolerance {TOLERANCE_NATS:g} nats: {'met' if worst <= TOLERANCE_NATS else 'MISSED'}")
    raise SystemExit(worst > TOLERANCE_NATS)


def largest_difference(some: Sequence[float], others: Sequence[float]) -> float:
    """max |a − b| in nats."""
    return max(abs(a - b) for a, b in zip(some, others, strict=True))


def plain(model: LoadedModel, group: Sequence[Request]) -> list[float]:
    """Σ log p of each continuation's tokens; one forward pass for the group, the last tokens not fed."""
    encoded = [_encode(model, request) for request in group]
    fed = sorted({whole[:-1] for whole, _ in encoded})
    width = max(map(len, fed))
    ids = torch.tensor([[*row, *([0] * (width - len(row)))] for row in fed])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in fed])
    with torch.inference_mode():
        logits = model.module(input_ids=ids, attention_mask=mask).logits
        top = logits.amax(-1, keepdim=True)
        logprobs = (logits - top).double() - (logits - top).exp().sum(-1, keepdim=True, dtype=torch.float64).log()
    sums = []
    for whole, n_context in encoded:
        row = logprobs[fed.index(whole[:-1])]
        sums.append(sum(float(row[i - 1, whole[i]]) for i in range(n_context, len(whole))))
    return sums


def _encode(model: LoadedModel, request: Request) -> tuple[tuple[int, ...], int]:
    encode = model.tokenizer.encode
    if request.reading == "sentence":
        return (model.prefix_token_id, *encode(request.context + request.continuation + request.after)), 1
    return tuple(encode(request.context + request.continuation)), len(encode(request.context))


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What ``run`` gives, and how many seconds it took."""
    started_s = time.perf_counter()
    return run(), time.perf_counter() - started_s


if __name__ == "__main__":
    main()
