"""What choosing among prompts adds to reading a context: IDP's selection as a share of prefill behind one prompt.

    python benchmarks/idp_overhead.py [--mode continue] [--tokens 16,64,256] [--prompts 2,4,8] [--layers 0,15,29] [--rounds 9]

Each round times one prefill and every way to choose once, in an order of its own; printed are ratios of medians in percent,
with 95 % intervals over rounds, for the first, the middle and the last layer as selection layer. Exit 1 where choosing in
layer 0 takes more than 3 % of prefill at 64 tokens or more.

A mode is what stands in ``MODES``: it makes, of a model, its prompts and a selection layer, all that reading a context [1,
tokens] takes, and what of it a prefill behind one prompt would take, too. "exact" chooses, then starts anew behind the chosen
prompt, so that choosing is timed alone and all of it is extra. "continue" here chooses as "exact" does and then reads the
context behind all prompts up to the selection layer (decision 0031): both are timed, and the prefill behind one is taken off,
which leaves wider intervals: take more rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.analysis.sides import PROMPT_TOKENS, Bench, chooser_of
from harness.analysis.timing import Rounds, contexts
from harness.core.latency import Side, Timing
from harness.core.verdicts import Estimate, NotEstimable
from harness.execution.matrix import read_matrix
from harness.execution.store import Store
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.sources import resolve
from harness.recovery.soft import Rows, as_root, continued_roots, seeded, vocabulary_rows
from harness.scoring.rooted import body, calling_behind, keep_root
from harness.stats.latency import time_ratio

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"
MOST, FROM_TOKENS = 0.03, 64
PREFILL = "prefill"

Timed = Callable[[Tensor], object]


@dataclass(frozen=True, slots=True)
class Mode:
    """What is timed, and whether a prefill is part of it."""

    make: Callable[[LoadedModel, Sequence[Rows], int], Timed]
    reads: bool


def choosing_and_going_on(model: LoadedModel, prompts: Sequence[Rows], layer: int) -> Timed:
    """Chooses, then reads the context behind the root that the choice leaves."""
    choose, roots = chooser_of(model, prompts, layer), continued_roots(model, prompts, layer)

    def run(ids: Tensor) -> None:
        with torch.inference_mode(), calling_behind(model.module, ids, roots[int(choose(ids)[0])]) as (asked, _):
            made = body(model)(**asked)
            model.module.get_output_embeddings()(made.last_hidden_state[:, -1])  # type: ignore[operator]

    return run


MODES = {"exact": Mode(chooser_of, reads=False), "continue": Mode(choosing_and_going_on, reads=True)}


def main() -> None:
    """Print one row a number of tokens and selection layer; exit 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=tuple(MODES), default="exact")
    parser.add_argument("--tokens", default="16,64,256,512", help="lengths of contexts, separated by commas")
    parser.add_argument("--prompts", default="2,4,8", help="numbers of prompts, separated by commas")
    parser.add_argument("--layers", help="selection layers, separated by commas (default: first, middle, last)")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    entry = read_matrix(MATRIX, "embedded").plan("llama_none_none").model
    model = Decoder().load(resolve(entry.source, entry.sha256, Store.default().root).folder, device="cpu", dtype="float32")
    n_layers = int(model.module.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    layers = [int(layer) for layer in given.layers.split(",")] if given.layers else [0, n_layers // 2, n_layers - 1]
    counts = [int(count) for count in given.prompts.split(",")]
    print(f"{torch.get_num_threads()} threads, mode {given.mode}, prompts of {PROMPT_TOKENS} positions, {given.rounds} rounds")
    print(
        f"{'tokens':>6} {'layer':>5} {'prefill ms':>10}" + "".join(f"{f'{count} prompts':>24}" for count in counts), flush=True
    )
    missed = False
    for n_tokens in map(int, given.tokens.split(",")):
        missed |= measure(model, n_tokens, counts, layers, MODES[given.mode], given.rounds)
    print(f"at most {MOST:.0%} in layer 0 at {FROM_TOKENS} tokens or more: {'MISSED' if missed else 'met'}")
    raise SystemExit(missed)


def measure(  # noqa: PLR0917
    model: LoadedModel,
    n_tokens: int,
    counts: Sequence[int],
    layers: Sequence[int],
    mode: Mode,
    n_rounds: int,
) -> bool:
    """Time and print one length; whether it misses the aim."""
    prompts = [vocabulary_rows(model, PROMPT_TOKENS, seeded(number)) for number in range(max(counts))]
    kept = keep_root(body(model), as_root(model, prompts[0]))
    plain = Bench(Side("prompt", "prompt", 0, 1), model, () if kept is None else (kept,))
    rng = np.random.default_rng(n_tokens)
    ids = contexts(1, n_tokens, model.module.get_input_embeddings().num_embeddings, rng, model.device)  # type: ignore[operator]
    work: dict[str, Callable[[], object]] = {PREFILL: lambda: plain.prefill(ids)}
    for layer in layers:
        for count in counts:
            timed = mode.make(model, prompts[:count], layer)
            work[f"{layer} {count}"] = lambda timed=timed: timed(ids)
    rounds = Rounds(work, rng)
    rounds()  # warms up, and makes the prompts' keys and values
    rounds.forget()
    for _ in range(n_rounds):
        rounds()
    timing = Timing("prefill", 1, {name: tuple(seconds) for name, seconds in rounds.seconds.items()})
    missed = False
    for layer in layers:
        shares = [_extra(time_ratio(timing, f"{layer} {count}", PREFILL), mode) for count in counts]
        told = "".join(f"{_percent(share):>24}" for share in shares)
        print(f"{n_tokens:>6} {layer:>5} {1000 * np.median(timing.seconds[PREFILL]):>10.1f}{told}", flush=True)
        if layer == 0 and n_tokens >= FROM_TOKENS:
            missed |= any(not isinstance(share, Estimate) or share.value > MOST for share in shares)
    return missed


def _extra(ratio: Estimate | NotEstimable, mode: Mode) -> Estimate | NotEstimable:
    """What comes to a prefill, as a share of one."""
    if not mode.reads or isinstance(ratio, NotEstimable):
        return ratio
    return replace(ratio, value=ratio.value - 1, low=ratio.low - 1, high=ratio.high - 1)


def _percent(share: object) -> str:
    if not isinstance(share, Estimate):
        return "undefined"
    return f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


if __name__ == "__main__":
    main()
