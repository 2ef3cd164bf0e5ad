"""What the run store costs and saves: real tasks of a real tokenizer, answered by a stand-in that takes no time.

    python benchmarks/run_store.py [--model dir:suites/models/tiny-t5] [--requests 200000]

For each task: its requests; what keying, storing and looking up adds to a first run, fed in rounds; the blocks' size; the
time to read them back and to answer the whole task from them, and of that the time that making outcomes takes, which every
run needs. The last row is so many made-up requests in one scope. Hold the seconds against those that scoring takes: about 60
for the facts on SmolLM2-135M and two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from harness.core.answer_block import BlockAbout, Circumstances
from harness.core.outcomes import Outcomes
from harness.execution.answers import Answers, Ask, Group
from harness.execution.feed import fed_order
from harness.knowledge.facts import Facts, FactsBlank
from harness.models import MODELS
from harness.models.sources import resolve
from harness.scoring import Request, Score
from harness.stats.sequential import round_ends

T = TypeVar("T")
SCOPE = "0" * 64
ABOUT = BlockAbout(SCOPE, "stand-in", "none/1", Circumstances("", "2026-01-01T00:00:00+00:00", {}, 0.0))


def main() -> None:
    """Print one row a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=f"dir:{Path(__file__).parents[1] / 'suites' / 'models' / 'tiny-t5'}")
    parser.add_argument("--family", default="seq2seq")
    parser.add_argument("--sha256")
    parser.add_argument("--cache", type=Path, help="where the model is, or is to be converted")
    parser.add_argument("--requests", type=int, default=200_000)
    args = parser.parse_args()
    print(
        f"{'task':<12} {'requests':>9} {'first run +':>11} {'size':>8} {'files':>5} {'read':>7} {'answer':>7} {'outcomes':>8}"
    )
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folder = resolve(args.model, args.sha256, args.cache or root / "cache", print).folder
        tokenizer: Any = cast(Any, MODELS.load(args.family))().load_tokenizer(folder)
        for task in (Facts(), FactsBlank()):
            _, items = task.build(tokenizer)
            ordered = fed_order(items, "w")
            rounds = [[task.requests(item) for item in ordered[a:b]] for a, b in _parts(len(items))]
            row(task.name, rounds, root / task.name / SCOPE, lambda answers, t=task, o=ordered: _judge(t, o, answers))
        made = [[(Request("a context", f" {n}"),) for n in range(a, b)] for a, b in _parts(args.requests)]
        row("made up", made, root / "made-up" / SCOPE, lambda _: None)


def row(name: str, rounds: Sequence[Sequence[Group]], folder: Path, outcomes: Callable[[list[Any]], object]) -> None:
    """Measure one scope."""
    first, first_s = _timed(lambda: Answers.load(folder))
    for groups in rounds:
        first_s += _timed(lambda g=groups: first.answer(g, lambda: Ask(_stand_in), ABOUT))[1]
    files = list(folder.iterdir())
    again, read_s = _timed(lambda: Answers.load(folder))
    found, answer_s = _timed(
        lambda: [part for groups in rounds for part in again.answer(groups, lambda: Ask(_stand_in), ABOUT)[0]]
    )
    _, outcomes_s = _timed(lambda: outcomes(found))
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    n = sum(len(group) for groups in rounds for group in groups)
    times = f"{read_s:>6.2f}s {answer_s:>6.2f}s {outcomes_s:>7.2f}s"
    print(f"{name:<12} {n:>9,} {first_s:>10.2f}s {size_mb:>6.1f}MB {len(files):>5} {times}", flush=True)


def _parts(n: int) -> list[tuple[int, int]]:
    ends = round_ends(n)
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _judge(task: Facts | FactsBlank, items: Sequence[Any], answers: Sequence[Any]) -> Outcomes:
    return Outcomes.of(
        tuple(item.digest for item in items), [task.outcome(item, found) for item, found in zip(items, answers, strict=True)]
    )


def _stand_in(groups: Sequence[Group]) -> list[list[Score]]:
    return [[Score(-float(len(group) - i), False, 1) for i in range(len(group))] for group in groups]


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started_s = time.perf_counter()
    made = work()
    return made, time.perf_counter() - started_s


if __name__ == "__main__":
    main()
