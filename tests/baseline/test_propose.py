"""Measuring for a proposal: which A/A runs are made, what is said meanwhile, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.baseline import INFORMATIVE_AS_SHIPPED, load_baseline, load_proposal
from harness.core.errors import EXIT_USAGE, ConfigError, EvidenceError
from harness.core.records import Cell, CellRun
from harness.execution import propose as propose_module
from harness.execution.candidate import Variant
from harness.execution.local import MeasureOptions
from harness.execution.matrix import CellPlan, Matrix, ModelEntry, TaskEntry
from harness.execution.progress import Progress
from harness.execution.propose import Measuring, propose, propose_baseline, propose_noise
from harness.execution.store import Store

CELL = Cell("llama", "4bit-rtn", "none")


@dataclass
class Bench:
    """Stands in for measuring: ``answer`` gives a run for each variant; what was asked and said is kept."""

    root: Path
    answer: Callable[[Variant | None], CellRun]
    recipe: dict[str, Any] = field(default_factory=dict)
    asked: list[Variant | None] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def measure(self, matrix: Matrix, plan: CellPlan, tasks: Sequence[str], *, options: MeasureOptions, **_: Any) -> CellRun:
        assert tuple(tasks) == ("facts",)
        self.asked.append(options.variant)
        return self.answer(options.variant)

    def measuring(self, **options: Any) -> Measuring:
        plan = CellPlan(
            cell=CELL,
            profile="embedded",
            model=ModelEntry("dir:tiny", "decoder"),
            compression=("rtn", self.recipe),
            recovery=("none", {}),
            tasks={"facts": TaskEntry("facts", {})},
        )
        matrix = Matrix(self.root / "matrix.toml", "embedded", {CELL.id: plan})
        progress = Progress(write=lambda text: self.said.append(text.strip()), is_tty=False)
        return Measuring(matrix, plan, MeasureOptions(**options), Store(self.root / "store"), progress)

    def propose(self, n_runs: int = 3, reason: str = "first", **options: Any) -> Any:
        return propose_baseline(
            self.measuring(**options), root=self.root, reason=reason, n_runs=n_runs, informative=INFORMATIVE_AS_SHIPPED
        )

    def noise(self, n_runs: int = 3) -> Any:
        return propose_noise(self.measuring(), root=self.root, n_runs=n_runs, informative=INFORMATIVE_AS_SHIPPED)

    def settle(self, mode: Any, reason: str = "first", **options: Any) -> str:
        made = self.measuring(**options)
        return propose(
            made.matrix,
            made.plan,
            options=made.options,
            store=made.store,
            progress=made.progress,
            root=self.root,
            mode=mode,
            reason=reason,
        )

    def n_right(self) -> int:
        found = load_baseline(self.root, "embedded", CELL)
        assert found is not None
        return found.record.tasks["facts"].n_correct


@pytest.fixture
def bench(tmp_path: Path, build: Any, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, lambda variant: build.one(200, 120))
    monkeypatch.setattr(propose_module, "measure_cell", made.measure)
    return made


def recompressed(build: Any, variant: Variant | None) -> CellRun:
    tasks = {"facts": build.task("facts", build.right(200, 120))}
    made: CellRun = build.run(tasks, weights=str(variant), stability="re-compressed")
    return made


def test_stable_weights_are_scored_with_other_batches_and_threads(bench: Bench) -> None:
    made = bench.propose(n_runs=4)
    assert bench.asked == [
        None,
        Variant("batches of 256 tokens, 1 thread", None, 1, 256),
        Variant("batches of 512 tokens, 2 threads", None, 2, 512),
        Variant("batches of 768 tokens, 1 thread", None, 1, 768),
    ]
    noise = made.baseline.record.noise
    assert [(run.label, run.seed, run.threads, run.batch_tokens) for run in noise.runs[:2]] == [
        ("as declared", None, 2, None),
        ("batches of 256 tokens, 1 thread", None, 1, 256),
    ]


def test_a_recompressed_cell_is_compressed_again_with_other_samples_and_threads(bench: Bench, build: Any) -> None:
    bench.answer, bench.recipe = (lambda variant: recompressed(build, variant)), {"seed": 7}
    made = bench.propose()
    assert bench.asked == [
        None,
        Variant("calibration sample 8, 1 thread", 8, 1),
        Variant("calibration sample 9, 2 threads", 9, 2),
    ]
    assert [run.seed for run in made.baseline.record.noise.runs] == [7, 8, 9]


def test_every_run_is_announced_with_its_number(bench: Bench) -> None:
    bench.propose()
    assert bench.said == [
        f"{CELL.id}: A/A run 1 of 3, as declared",
        f"{CELL.id}: A/A run 2 of 3, batches of 256 tokens, 1 thread",
        f"{CELL.id}: A/A run 3 of 3, batches of 512 tokens, 2 threads",
    ]


def test_the_run_of_median_accuracy_is_proposed(bench: Bench, build: Any) -> None:
    n_right = {None: 118, 256: 124, 512: 121}
    bench.answer = lambda variant: build.one(200, n_right[variant and variant.batch_tokens])
    assert bench.propose().baseline.record.tasks["facts"].n_correct == 121


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"n_runs": 2}, ConfigError, "--runs expects at least 3 A/A runs, got 2"),
        ({"limit": 50}, EvidenceError, "measure it without --limit"),
        ({"reason": " "}, EvidenceError, "needs a reason"),
    ],
)
def test_what_can_not_become_evidence_is_refused_before_anything_is_measured(
    bench: Bench, said: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        bench.propose(**said)
    assert bench.asked == []


def test_a_method_that_says_it_is_stable_and_is_not_is_found_out(bench: Bench, build: Any) -> None:
    bench.answer = lambda variant: build.one(200, 120, weights=str(variant))
    with pytest.raises(EvidenceError, match="must declare itself re-compressed"):
        bench.propose()


# ------------------------------------------------------------------------------------------------ noise


def test_noise_counts_the_accepted_run_and_measures_the_others(bench: Bench, build: Any) -> None:
    bench.settle("add-new")
    bench.asked.clear()
    bench.said.clear()
    base = build.one(200, 120)
    bench.answer = lambda variant: build.flipped(base, lost=1)
    renewed, made = bench.noise(n_runs=4)
    assert [variant.batch_tokens for variant in bench.asked if variant] == [256, 512, 768]
    assert bench.said[0].startswith(f"{CELL.id}: A/A run 2 of 4")
    assert [run.n_flips["facts"] for run in renewed.record.noise.runs] == [0, 1, 1, 1]
    assert made.record.kind == "noise"
    assert load_proposal(bench.root, "embedded", CELL).record == made.record


def test_where_a_variant_was_stored_the_run_as_declared_is_one_of_the_others(bench: Bench, build: Any) -> None:
    n_right = {None: 118, 256: 120, 512: 124}
    bench.answer = lambda variant: build.one(200, n_right[variant and variant.batch_tokens])
    bench.settle("add-new")
    bench.asked.clear()
    bench.noise()
    assert [variant and variant.batch_tokens for variant in bench.asked] == [None, 512]


def test_the_same_noise_again_needs_no_proposal(bench: Bench) -> None:
    bench.settle("add-new")
    renewed, made = bench.noise()
    assert made is None
    assert renewed.record == load_baseline(bench.root, "embedded", CELL).record
    assert load_proposal(bench.root, "embedded", CELL) is None


def test_noise_needs_an_accepted_baseline(bench: Bench) -> None:
    with pytest.raises(EvidenceError, match="no accepted baseline whose noise could be measured"):
        bench.noise()
    assert bench.asked == []


# ------------------------------------------------------------------------------------------------ pytest's modes


def test_check_never_measures_nor_writes(bench: Bench) -> None:
    assert bench.settle("check") == "not written"
    assert bench.asked == []
    assert list(bench.root.iterdir()) == []


def test_add_new_adds_what_is_missing_and_never_overwrites(bench: Bench, build: Any) -> None:
    assert bench.settle("add-new") == "added"
    bench.asked.clear()
    bench.answer = lambda variant: build.one(200, 130)
    assert bench.settle("add-new") == "kept"
    assert bench.asked == []
    assert bench.n_right() == 120


def test_add_new_leaves_a_baseline_that_came_meanwhile(bench: Bench, build: Any) -> None:
    def added_meanwhile(variant: Variant | None) -> CellRun:
        if variant is None:
            other = Bench(bench.root, lambda variant: build.one(200, 130))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(propose_module, "measure_cell", other.measure)
                other.settle("add-new")
        run: CellRun = build.one(200, 140)
        return run

    bench.answer = added_meanwhile
    assert bench.settle("add-new") == "kept"
    assert bench.n_right() == 130
    assert load_proposal(bench.root, "embedded", CELL) is None


def test_update_replaces_what_it_does_not_loosen(bench: Bench, build: Any) -> None:
    bench.settle("add-new")
    bench.answer = lambda variant: build.one(200, 130)
    assert bench.settle("update", reason="the new kernel is meant") == "updated"
    assert bench.n_right() == 130


def test_update_refuses_to_loosen_and_names_the_commands_to_use_instead(bench: Bench, build: Any) -> None:
    bench.settle("add-new")
    bench.answer = lambda variant: build.one(200, 110)
    with pytest.raises(EvidenceError) as raised:
        bench.settle("update", reason="two bits now")
    text = str(raised.value)
    assert raised.value.exit_code == EXIT_USAGE
    assert "the accuracy of facts falls by 5 pt" in text
    assert f"`harness baseline diff {CELL.id}`" in text
    assert f'`harness baseline accept {CELL.id} --allow-loosening "why"`' in text
    assert bench.n_right() == 120
    assert load_proposal(bench.root, "embedded", CELL).baseline.record.reason == "two bits now"


def test_threads_of_the_declared_run_are_what_the_variants_turn_around(bench: Bench, build: Any) -> None:
    def one_thread(variant: Variant | None) -> CellRun:
        run = build.one(200, 120)
        engine = {**run.record.provenance.engine, "threads": "1"}
        return CellRun(replace(run.record, provenance=replace(run.record.provenance, engine=engine)), run.runs)

    bench.answer = one_thread
    bench.propose()
    assert [variant.threads for variant in bench.asked if variant] == [2, 1]
