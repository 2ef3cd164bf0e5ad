"""What was asked once of the same weights is not fed again, whichever task asks; what is broken is said and never served."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core import serial
from harness.core.columns import write_outcomes
from harness.core.errors import ScoreError, StorageError
from harness.core.records import CellRun
from harness.execution import answers as answers_module
from harness.execution import candidate
from harness.execution.answers import Answers, Ask, request_key
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import Matrix, read_matrix
from harness.execution.progress import Progress
from harness.execution.store import Store
from harness.knowledge import facts
from harness.knowledge.sentences import BEYOND_WINDOW
from harness.scoring import NEAR_TIE_NATS, Generated, Prompt, Request, Score
from harness.scoring.decoder import DecoderScorer

CELL = "tiny_4bit-rtn_none"
PLAIN = Request("The capital of", " Land1")

MORE_TASKS = """
[tasks.again]
suite = "facts"
folder = "facts"
[tasks.some]
suite = "facts"
folder = "some"
"""


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that is really scored."""
    seen: list[Request] = []
    score = DecoderScorer.score

    def counted(scorer, groups):
        seen.extend(request for group in groups for request in group)
        return score(scorer, groups)

    monkeypatch.setattr(DecoderScorer, "score", counted)
    return seen


@pytest.fixture
def three_tasks(matrix: Matrix) -> Matrix:
    """``facts``, the same under the name ``again``, and a part of it, ``some``."""
    base = matrix.path.parent
    shutil.copytree(base / "facts", base / "some")
    rows = (base / "facts" / "facts.jsonl").read_text().splitlines(keepends=True)
    (base / "some" / "facts.jsonl").write_text("".join(rows[:25]))
    text = matrix.path.read_text().replace("[[grid]]", MORE_TASKS + "[[grid]]")
    matrix.path.write_text(text.replace('tasks = ["facts"]', 'tasks = ["facts", "again", "some"]'))
    return read_matrix(matrix.path, "embedded")


def measure(matrix: Matrix, store: Path, *tasks: str, **options) -> CellRun:
    plan, progress = matrix.plan(CELL), Progress(write=lambda _: None, is_tty=False)
    asked = MeasureOptions(**options)
    return measure_cell(matrix, plan, tasks or tuple(plan.tasks), options=asked, store=Store(store), progress=progress)


def the_bytes(run: CellRun, task: str, folder: Path) -> bytes:
    write_outcomes(folder / "compared.parquet", run.runs[task].outcomes)
    return (folder / "compared.parquet").read_bytes()


# ------------------------------------------------------------------------------------------------ what a request is


@pytest.mark.parametrize(
    "other",
    [
        Request("The capital of", " Land2"),
        Request("The capital o", " Land1"),
        Request("The capital of L", "and1"),
        Request("The capital of", " Land", after="1"),
        Request("The capital of", " Land1", reading="sentence"),
        Prompt("The capital of", (" Land1",), 5),
    ],
)
def test_any_difference_of_a_request_is_another_key(other: Request | Prompt) -> None:
    assert request_key(PLAIN) != request_key(other)
    assert request_key(PLAIN) == request_key(Request("The capital of", " Land1"))


def test_stops_and_length_are_part_of_a_prompt() -> None:
    keys = [
        request_key(Prompt("a", stop, n)) for stop, n in (((), 5), (("b",), 5), (("b", "c"), 5), (("bc",), 5), (("b",), 6))
    ]
    assert len(set(keys)) == len(keys)


# ------------------------------------------------------------------------------------------------ nothing is fed twice


def test_tasks_that_ask_the_same_are_fed_once_and_each_as_if_it_were_alone(
    three_tasks: Matrix, fed: list[Request], tmp_path: Path
) -> None:
    together = measure(three_tasks, tmp_path / "together", "facts", "again")
    assert len(fed) == len(set(fed)) == 40 * 4
    assert together.record.origins == {"facts": "measured", "again": "stored"}
    alone = {name: measure(three_tasks, tmp_path / name, name) for name in ("facts", "again")}
    for name, run in alone.items():
        assert the_bytes(together, name, tmp_path) == the_bytes(run, name, tmp_path)


def test_a_task_that_overlaps_is_fed_once_and_moves_scores_by_rounding_only(
    three_tasks: Matrix, fed: list[Request], tmp_path: Path
) -> None:
    """It asks between the other's rounds, so that fewer items are fed side by side: sums of floats end in other digits."""
    together = measure(three_tasks, tmp_path / "together")
    assert len(fed) == len(set(fed)) == 40 * 4
    assert together.record.origins["again"] == "stored"
    whole, some = together.runs["facts"].outcomes, together.runs["some"].outcomes
    of_all = dict(zip(whole.digests, whole.margins_nats, strict=True))
    assert [of_all[digest] for digest in some.digests] == some.margins_nats.tolist()
    alone = measure(three_tasks, tmp_path / "alone", "facts").runs["facts"].outcomes
    assert whole.digests == alone.digests
    assert whole.answers.tolist() == alone.answers.tolist()
    assert whole.margins_nats == pytest.approx(alone.margins_nats, abs=NEAR_TIE_NATS / 10)


def test_a_task_of_another_run_that_overlaps_is_fed_what_is_new_only(
    three_tasks: Matrix, fed: list[Request], tmp_path: Path
) -> None:
    some = measure(three_tasks, tmp_path / "store", "some")
    assert len(fed) == 25 * 4
    whole = measure(three_tasks, tmp_path / "store", "facts")
    assert len(fed) == len(set(fed)) == 40 * 4
    assert whole.record.origins["facts"] == "measured"
    right = dict(zip(whole.runs["facts"].outcomes.digests, whole.runs["facts"].outcomes.margins_nats, strict=True))
    assert [right[digest] for digest in some.runs["some"].outcomes.digests] == some.runs["some"].outcomes.margins_nats.tolist()


def test_a_limited_run_is_part_of_the_whole(matrix: Matrix, fed: list[Request], tmp_path: Path) -> None:
    measure(matrix, tmp_path, limit=10)
    measure(matrix, tmp_path)
    assert len(fed) == len(set(fed)) == 40 * 4


def test_another_outcome_rule_needs_no_forward_pass(
    matrix: Matrix, fed: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(matrix, tmp_path)
    fed.clear()
    monkeypatch.setattr(facts, "TIE_RULE", "another")
    monkeypatch.setattr(
        facts.Facts, "outcome", lambda task, item, found, **_: replace(facts.rank_options(item, [-1.0, -2, -3, -4]), answer=3)
    )
    again = measure(matrix, tmp_path)
    assert fed == []
    assert set(again.runs["facts"].outcomes.answers.tolist()) == {3}
    assert again.record.origins == {"facts": "stored"}
    assert again.record.provenance.measured_at == first.record.provenance.measured_at
    assert again.record.wall_s["facts"] == pytest.approx(first.record.wall_s["facts"])


def test_lm_eval_metrics_of_one_task_share_their_requests(matrix: Matrix, fed: list[Request], tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    entries = "".join(
        f'[tasks.{metric}]\nsuite = "lm_eval"\ntask = "facts_choice"\nmetric = "{metric}"\n' for metric in ("acc", "acc_norm")
    )
    text = matrix.path.read_text().replace("[[grid]]", entries + "[[grid]]")
    matrix.path.write_text(text.replace('tasks = ["facts"]', 'tasks = ["acc", "acc_norm"]'))
    run = measure(read_matrix(matrix.path, "embedded"), tmp_path / "store", limit=6)
    assert run.record.origins == {"acc": "measured", "acc_norm": "stored"}
    assert len(fed) == len(set(fed)) == sum(len(item.options) for item in run.runs["acc"].items)


def test_fresh_takes_no_stored_answer(matrix: Matrix, fed: list[Request], tmp_path: Path) -> None:
    measure(matrix, tmp_path)
    measure(matrix, tmp_path, fresh=True)
    assert len(fed) == 2 * 40 * 4
    measure(matrix, tmp_path)
    assert len(fed) == 2 * 40 * 4


# ------------------------------------------------------------------------------------------------ never another's


@pytest.mark.parametrize("what", ["scorer", "recovery", "weights"])
def test_answers_of_another_scorer_recovery_or_weights_are_never_served(
    matrix: Matrix, fed: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    measure(matrix, tmp_path)
    if what == "scorer":
        monkeypatch.setitem(DecoderScorer.identities, "sentence", "loglikelihood/other")
    elif what == "recovery":
        monkeypatch.setattr(candidate, "recipe_digest", lambda method: "another")
    else:
        changed = matrix.path.read_text().replace("bits = 4\ngroup_size = 16\n[", "bits = 3\ngroup_size = 16\n[", 1)
        matrix.path.write_text(changed)
        matrix = read_matrix(matrix.path, "embedded")
    measure(matrix, tmp_path)
    assert len(fed) == 2 * 40 * 4


def test_a_block_in_another_scopes_folder_is_not_served(matrix: Matrix, tmp_path: Path, caplog) -> None:
    measure(matrix, tmp_path)
    (scope,) = (tmp_path / "answers").iterdir()
    other = tmp_path / "answers" / ("0" * 64)
    shutil.copytree(scope, other)
    assert Answers.load(other).blocks == []
    assert "another scope" in caplog.text
    assert not list(other.glob("*.parquet"))


def test_a_scorer_that_loses_an_answer_stores_nothing(tmp_path: Path) -> None:
    about = answers_module.BlockAbout("s", "c", "x", answers_module.Circumstances("", "", {}, 0.0))
    for lost in ([[]], [[Score(float("nan"), True, 1)]], [[Score(-1.0, True, 1), Generated("a", 1)]]):
        with pytest.raises(ScoreError):
            Answers(tmp_path).answer([[PLAIN]], lambda lost=lost: Ask(lambda groups: lost), about)
    assert not list(tmp_path.iterdir())


def test_a_request_that_can_not_be_asked_is_told_with_its_task(
    matrix: Matrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "at_blank", lambda item, reading: (Request("", "", reading=reading),))
    monkeypatch.setattr(facts, "askable_sentences", lambda items, *_, **__: list(items))
    with pytest.raises(ScoreError, match=r"^facts: continuation '' has 0 tokens"):
        measure(matrix, tmp_path / "store", "facts")


def test_one_fact_that_does_not_fit_into_the_window_costs_the_cell_nothing_else(matrix: Matrix, tmp_path: Path) -> None:
    rows = matrix.path.parent / "facts" / "facts.jsonl"
    first = json.loads(rows.read_text().splitlines()[0])
    long = {**first, "id": "capital:long", "subject": " ".join(["Land"] * 400)}
    rows.write_text(rows.read_text() + json.dumps(long) + "\n")
    info = measure(matrix, tmp_path / "store", "facts").runs["facts"].info
    assert (info.n_items, info.excluded) == (40, {BEYOND_WINDOW: 1})


def test_generated_texts_come_back_as_they_were(tmp_path: Path) -> None:
    scope = tmp_path / "s"
    about = answers_module.BlockAbout("s", "c", "x", answers_module.Circumstances("", "", {}, 0.0))
    asked, made = Prompt("q", (".",), 4), Generated("é\0 text", 4, is_ended=False, n_cut=2)
    Answers(scope).answer([[asked]], lambda: Ask(lambda groups: [[made]]), about)
    found, _, n_asked = Answers.load(scope).answer([[asked]], lambda: pytest.fail("asked again"), about)
    assert (found, n_asked) == ([[made]], 0)


# ------------------------------------------------------------------------------------------------ damage


def test_a_changed_byte_in_any_file_is_said_and_changes_nothing(
    matrix: Matrix, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each file of the store in turn, with and without the results above the answers."""
    store = tmp_path / "store"
    first = the_bytes(measure(matrix, store, limit=6), "facts", tmp_path)
    shutil.copytree(store, tmp_path / "whole")
    files = [path.relative_to(store) for path in store.rglob("*") if path.is_file() and path.stat().st_size]
    assert {path.parts[0] for path in files} == {"models", "weights", "answers", "results"}
    for path in files:
        for damage in (
            lambda raw: raw[:-3],
            lambda raw: raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :],
        ):
            shutil.rmtree(store)
            shutil.copytree(tmp_path / "whole", store)
            (store / path).write_bytes(damage((store / path).read_bytes()))
            if path.parts[0] != "results":
                shutil.rmtree(store / "results")
            caplog.clear()
            assert the_bytes(measure(matrix, store, limit=6), "facts", tmp_path) == first, path
            assert "broken" in caplog.text, path


def test_a_full_disk_is_one_sentence_and_keeps_what_was_stored(
    matrix: Matrix, fed: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_flushed = 0
    flush = serial._flush

    def full(path: Path) -> None:
        nonlocal n_flushed
        n_flushed += 1
        if n_flushed > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(serial, "_flush", full)
        with pytest.raises(StorageError, match="the disk is full"):
            measure(matrix, tmp_path / "store")
    n_stored = sum(
        len(block.keys) for folder in (tmp_path / "store" / "answers").iterdir() for block in Answers.load(folder).blocks
    )
    assert 0 < n_stored < len(fed)
    assert not list((tmp_path / "store").rglob("*.part"))
    n_lost = len(fed) - n_stored
    resumed = measure(matrix, tmp_path / "store")
    assert len(fed) == 40 * 4 + n_lost
    assert the_bytes(resumed, "facts", tmp_path) == the_bytes(measure(matrix, tmp_path / "other"), "facts", tmp_path)


def test_the_store_tells_what_each_block_is(matrix: Matrix, tmp_path: Path) -> None:
    measure(matrix, tmp_path)
    (scope,) = (tmp_path / "answers").iterdir()
    about = Answers.load(scope).blocks[0].about
    assert (about.scope, about.cell, about.scorer) == (scope.name, CELL, "loglikelihood/1")
    json.dumps(about.circumstances.engine)


def test_the_record_tells_by_which_path_the_model_was_fed(matrix: Matrix, tmp_path: Path) -> None:
    first = measure(matrix, tmp_path / "store")
    assert first.record.provenance.engine["path"] == "packed"
    again = measure(matrix, tmp_path / "store")  # from the store: what its answers were made by
    assert again.record.provenance.engine == first.record.provenance.engine
