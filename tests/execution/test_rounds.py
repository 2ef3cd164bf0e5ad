"""A cell is fed in rounds of a fixed order, and no further than it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from harness.core.records import CellRun, Item
from harness.execution.candidate import Variant
from harness.execution.feed import fed_order
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import Matrix
from harness.execution.progress import Progress
from harness.execution.store import Store
from harness.scoring.decoder import DecoderScorer
from harness.stats.sequential import round_ends


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def measure(matrix: Matrix, tmp_path: Path, said: list[str]):
    def run(undecided: Callable[[CellRun], Collection[str]] | None = None, **asked) -> CellRun:
        plan = matrix.plan("tiny_4bit-rtn_none")
        progress = Progress(write=said.append, is_tty=False)
        store, options = Store(tmp_path / "store"), MeasureOptions(**asked)
        tasks = tuple(plan.tasks)
        return measure_cell(matrix, plan, tasks, options=options, store=store, progress=progress, undecided=undecided)

    return run


def items(n: int) -> tuple[Item, ...]:
    return tuple(Item(f"i{k}", "g", f"item {k} is [Y]", ("a", "b"), (0,)) for k in range(n))


def test_the_order_is_fixed_by_weights_and_items_and_by_nothing_else() -> None:
    some = items(50)
    order = [item.id for item in fed_order(some, "w")]
    assert order == [item.id for item in fed_order(tuple(reversed(some)), "w")]
    assert sorted(order) == sorted(item.id for item in some)
    assert [item.id for item in fed_order(some, "v")] != order
    assert [item.id for item in fed_order(some[:20], "w")] == [name for name in order if int(name[1:]) < 20]


def test_a_decided_cell_is_fed_no_further_and_says_how_far(measure, said: list[str]) -> None:
    seen: list[int] = []

    def decided_at_ten(run: CellRun) -> tuple[str, ...]:
        seen.append(len(run.runs["facts"].outcomes))
        return ("facts",) if seen[-1] < 10 else ()

    run = measure(decided_at_ten)
    ends = round_ends(40)
    assert seen == [end for index, end in enumerate(ends) if end < 10 or ends[index - 1] < 10]
    assert len(run.runs["facts"].outcomes) == len(run.runs["facts"].items) == seen[-1]
    assert run.record.tasks["facts"].n_items == 40
    assert any(f"decided after {seen[-1]} of 40 items" in line for line in said)


def test_what_was_fed_early_is_not_fed_again_when_all_is_asked_for(measure, monkeypatch: pytest.MonkeyPatch) -> None:
    part = measure(lambda run: () if len(run.runs["facts"].outcomes) >= 8 else ("facts",))
    n_fed = len(part.runs["facts"].outcomes)
    fed: list[int] = []
    score = DecoderScorer.score
    monkeypatch.setattr(DecoderScorer, "score", lambda scorer, groups: fed.append(len(groups)) or score(scorer, groups))
    whole = measure()
    assert sum(fed) == 40 - n_fed
    assert whole.runs["facts"].outcomes.digests[:n_fed] == part.runs["facts"].outcomes.digests
    assert whole.record.origins == {"facts": "measured"}
    fed.clear()
    assert measure().record.origins == {"facts": "stored"}
    assert fed == []


def test_a_part_that_is_stored_is_handed_back_without_feeding(measure, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_eight(run: CellRun) -> tuple[str, ...]:
        return () if len(run.runs["facts"].outcomes) >= 8 else ("facts",)

    first = measure(at_eight)
    monkeypatch.setattr(DecoderScorer, "score", lambda *_: pytest.fail("fed again"))
    again = measure(at_eight)
    assert again.record.origins == {"facts": "stored"}
    assert again.runs["facts"].outcomes.digests == first.runs["facts"].outcomes.digests


def test_a_variant_is_measured_by_itself_and_changes_no_answer(measure) -> None:
    plain = measure()
    varied = measure(variant=Variant("64-token batches, 1 thread", None, 1, 64))
    assert varied.record.origins == {"facts": "measured"}
    assert varied.record.provenance.weights_digest == plain.record.provenance.weights_digest
    assert varied.record.provenance.engine["threads"] == "1"
    assert varied.runs["facts"].outcomes.correct.tolist() == plain.runs["facts"].outcomes.correct.tolist()
