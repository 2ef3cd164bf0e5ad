"""Measuring: what is stored is not fed again, what was cut off goes on, what is broken is said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.core.columns import write_outcomes
from harness.core.errors import ConfigError, ContaminationError, ModelError, ScoreError
from harness.core.records import CellRun
from harness.execution import answers
from harness.execution.candidate import Variant
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import Matrix
from harness.execution.progress import Progress
from harness.execution.store import Store
from harness.scoring.decoder import DecoderScorer


class Feeding:
    """Counts the groups that are really scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_groups = 0
        score = DecoderScorer.score

        def counted(scorer, groups):
            self.n_groups += len(groups)
            return score(scorer, groups)

        monkeypatch.setattr(DecoderScorer, "score", counted)


@pytest.fixture
def feeding(monkeypatch: pytest.MonkeyPatch) -> Feeding:
    return Feeding(monkeypatch)


@pytest.fixture
def measure(matrix: Matrix, progress: Progress, tmp_path: Path):
    def run(cell: str = "tiny_4bit-rtn_none", store: str = "store", **asked) -> CellRun:
        plan = matrix.plan(cell)
        return measure_cell(
            matrix,
            plan,
            tuple(plan.tasks),
            options=MeasureOptions(**asked),
            store=Store(tmp_path / store),
            progress=progress,
        )

    return run


def the_bytes(run: CellRun, path: Path) -> bytes:
    write_outcomes(path, run.runs["facts"].outcomes)
    return path.read_bytes()


def test_a_second_run_feeds_nothing_and_says_so(measure, feeding: Feeding) -> None:
    first = measure()
    assert (feeding.n_groups, first.record.origins) == (40, {"facts": "measured"})
    second = measure()
    assert (feeding.n_groups, second.record.origins) == (40, {"facts": "stored"})
    np.testing.assert_array_equal(first.runs["facts"].outcomes.correct, second.runs["facts"].outcomes.correct)


def test_a_claim_about_too_few_relations_is_said_to_have_no_effect(matrix: Matrix, tmp_path: Path) -> None:
    said: list[str] = []
    progress = Progress(write=said.append, is_tty=False)

    def warnings(clusters: bool | None, **asked) -> list[str]:
        said.clear()
        plan = matrix.plan("tiny_none_none")
        plan = replace(plan, tasks={"facts": replace(plan.tasks["facts"], clusters=clusters)})
        store, options = Store(tmp_path / "store"), MeasureOptions(**asked)
        made = measure_cell(matrix, plan, ("facts",), options=options, store=store, progress=progress)
        assert made.runs["facts"].info.n_clusters == (1 if clusters else None)
        return [line for line in said if "clusters" in line]

    assert warnings(None) == warnings(False) == warnings(True, limit=20) == []
    (line,) = warnings(True)
    assert line == (
        "tiny_none_none-facts: `clusters = true` has no effect, as 1 relation is too few to stand for others (at least 10 are "
        "needed) and items are tested one by one: ask more relations, or take the line out.\n"
    )
    assert warnings(True, variant=Variant("batches of 512 tokens", None, 1, 512)) == [], "said once a cell"


def test_a_killed_run_goes_on_after_its_last_round_and_gives_the_same_bytes(
    measure, feeding: Feeding, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undisturbed = measure(store="other")
    feeding.n_groups = 0
    write_atomic, n_written = answers.write_atomic, 0

    def interrupted(path: Path, data: bytes) -> None:
        nonlocal n_written
        n_written += 1
        if n_written == 8:  # each round so far had one item
            raise KeyboardInterrupt
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(answers, "write_atomic", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measure()
    assert feeding.n_groups == 8
    resumed = measure()
    assert feeding.n_groups == 8 + 33
    assert the_bytes(resumed, tmp_path / "a.parquet") == the_bytes(undisturbed, tmp_path / "b.parquet")


def test_fresh_feeds_everything_again(measure, feeding: Feeding) -> None:
    measure()
    measure(fresh=True)
    assert feeding.n_groups == 80


def test_a_changed_recipe_never_gets_the_old_result(measure, feeding: Feeding, matrix: Matrix, tmp_path: Path) -> None:
    first = measure()
    text = matrix.path.read_text().replace("bits = 4\ngroup_size = 16\n[", "bits = 3\ngroup_size = 16\n[", 1)
    matrix.path.write_text(text)
    from harness.execution.matrix import read_matrix

    changed = read_matrix(matrix.path, "embedded")
    plan = changed.plan("tiny_4bit-rtn_none")
    store, progress = Store(tmp_path / "store"), Progress(write=lambda _: None, is_tty=False)
    second = measure_cell(changed, plan, ("facts",), options=MeasureOptions(), store=store, progress=progress)
    assert first.record.provenance.weights_digest != second.record.provenance.weights_digest
    assert feeding.n_groups == 80


def test_stored_weights_give_the_scores_of_fresh_ones(measure, feeding: Feeding, tmp_path: Path) -> None:
    first = measure()
    shutil.rmtree(tmp_path / "store" / "results")
    shutil.rmtree(tmp_path / "store" / "answers")
    again = measure()
    assert feeding.n_groups == 80
    np.testing.assert_array_equal(first.runs["facts"].outcomes.margins_nats, again.runs["facts"].outcomes.margins_nats)


def test_damaged_stored_weights_are_made_again(measure, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = measure()
    path = next((tmp_path / "store" / "weights").rglob("weights.safetensors"))
    path.write_bytes(path.read_bytes()[:-50])
    assert measure().record.provenance.weights_digest == first.record.provenance.weights_digest
    assert "made again" in caplog.text


def test_broken_weights_are_a_score_error_and_no_result(measure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from harness.models.decoder import Decoder

    load = Decoder.load

    def broken(family, folder, **where):
        model = load(family, folder, **where)
        model.module.get_parameter("model.norm.weight").data[0] = float("nan")
        return model

    monkeypatch.setattr(Decoder, "load", broken)
    with pytest.raises(ScoreError, match="nan"):
        measure("tiny_none_none")
    assert not list((tmp_path / "store").rglob("manifest.json"))[1:]  # the weights' own is all
    assert not list((tmp_path / "store" / "answers").rglob("*.parquet"))


def test_calibration_text_that_holds_a_probe_is_refused(measure, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Listen: the capital of Land3 is Dol, they say.\n\n" + "word " * 500)
    with pytest.raises(ContaminationError, match="document 1"):
        measure("tiny_4bit-gptq_none")


def test_a_recompressed_cell_is_stored_under_its_text_and_seed(measure, feeding: Feeding, tmp_path: Path) -> None:
    first = measure("tiny_4bit-gptq_none")
    assert first.record.compression.stability == "re-compressed"
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(f"w{i * k % 37}" for i in range(150)) for k in range(1, 8)))
    second = measure("tiny_4bit-gptq_none")
    assert first.record.provenance.weights_digest != second.record.provenance.weights_digest


def test_a_missing_model_folder_is_one_sentence(matrix: Matrix, measure, tmp_path: Path) -> None:
    (tmp_path / "model").rename(tmp_path / "gone")
    with pytest.raises((ConfigError, ModelError), match="there is no such folder"):
        measure()


def test_an_unknown_device_is_one_sentence(measure) -> None:
    with pytest.raises(ConfigError, match="device 'cudax'"):
        measure(device="cudax")


def test_whether_relations_stand_for_others_is_the_matrixs_to_say_and_measures_nothing_anew(
    measure, feeding: Feeding, matrix: Matrix
) -> None:
    """The stored result is the same one; only what its record says of its relations changes."""
    assert measure().runs["facts"].info.n_clusters is None, "the shipped facts stand for themselves"
    plan = matrix.plan("tiny_4bit-rtn_none")
    entry = plan.tasks["facts"]
    for said, n_clusters in ((True, 1), (False, None)):
        plan.tasks["facts"] = replace(entry, clusters=said)  # type: ignore[index]
        run = measure()
        assert (run.runs["facts"].info.n_clusters, run.record.tasks["facts"].n_clusters) == (n_clusters, n_clusters)
        assert run.record.origins == {"facts": "stored"}
    assert feeding.n_groups == 40
