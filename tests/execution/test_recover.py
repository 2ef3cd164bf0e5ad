"""`harness recover` and what a cell does with what it leaves: trained once, checked always, never at the gate."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import main
from harness.core.errors import ConfigError, ContaminationError, RecoveryError
from harness.core.records import CellRun
from harness.core.run_folder import read_run, write_cell
from harness.execution.inventory import entries
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import Matrix, read_matrix
from harness.execution.progress import Progress
from harness.execution.recover import Recovered, train_recovery
from harness.execution.store import Store

TRAINING = """training = {{ steps = {steps}, batch_blocks = 2, block_tokens = 16, validation_blocks = 2, validate_every = 2 }}
training_text = "{text}"
"""


@pytest.fixture
def project(matrix: Matrix, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny matrix with a trained recovery, two choices of one artifact, and a control."""
    root = matrix.path.parent
    write(root)
    monkeypatch.setenv("HARNESS_CACHE", str(root / "cache"))
    return root


def write(root: Path, *, steps: int = 4, n_tokens: int = 5, text: str = "text.txt", bits: int = 4) -> None:
    from tests.execution.conftest import TEXT

    training = TRAINING.format(steps=steps, text=text)
    added = f"""
[recoveries.p5]
method = "prompt"
n_tokens = {n_tokens}
{training}
[recoveries.idp]
method = "idp"
lengths = [3, 6]
{training}
[recoveries.idp-0]
method = "idp"
lengths = [3, 6]
choice = 0
{training}
[recoveries.random5]
method = "random_prompt"
n_tokens = 5

[tasks.facts]"""
    made = TEXT.replace("[tasks.facts]", added).replace("bits = 4", f"bits = {bits}")
    (root / "matrix.toml").write_text(
        made.replace('recoveries = ["none"]', 'recoveries = ["none", "p5", "idp", "idp-0", "random5"]')
    )


def options(root: Path, **asked: Any) -> MeasureOptions:
    return MeasureOptions(device="cpu", baseline_dir=root / "baselines", **asked)


def train(root: Path, cell: str = "tiny_4bit-rtn_p5", **asked: Any) -> Recovered:
    matrix = read_matrix(root / "matrix.toml", "embedded")
    told = Progress(write=lambda _: None, is_tty=False)
    return train_recovery(
        matrix, matrix.plan(cell), options=options(root, **asked), store=Store(root / "cache"), progress=told
    )


def measure(root: Path, cell: str = "tiny_4bit-rtn_p5") -> CellRun:
    matrix = read_matrix(root / "matrix.toml", "embedded")
    told = Progress(write=lambda _: None, is_tty=False)
    return measure_cell(
        matrix, matrix.plan(cell), ("facts",), options=options(root), store=Store(root / "cache"), progress=told
    )


def test_training_and_measuring_from_the_command_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    matrix = ["--matrix", "matrix.toml", "--device", "cpu"]
    assert main(["recover", "tiny_4bit-rtn_p5", *matrix]) == 0
    told = capsys.readouterr()
    assert "training: 4/4" in told.err
    assert "nats a token, best validation perplexity" in told.err
    assert "160 numbers, 4 steps" in told.out
    assert "next: `harness measure tiny_4bit-rtn_p5 --matrix matrix.toml --device cpu`" in told.out
    (folder,) = (project / "baselines/embedded/artifacts").iterdir()
    assert {path.name for path in folder.iterdir()} == {"recipe.json", "tensors.safetensors"}
    assert json.loads((folder / "recipe.json").read_text())["cell"] == "tiny_4bit-rtn_p5"
    assert main(["measure", "tiny_4bit-rtn_p5", *matrix]) == 0
    assert main(["recover", "tiny_4bit-rtn_p5", *matrix]) == 0
    assert "trained already" in capsys.readouterr().out
    assert main(["recover", "tiny_4bit-rtn_none", *matrix]) == 4
    assert "recovery 'none' is not trained" in capsys.readouterr().err


def test_a_recovered_cell_is_another_measurement_and_its_digest_covers_the_tensors(project: Path) -> None:
    train(project)
    plain, recovered, control = (measure(project, f"tiny_4bit-rtn_{name}") for name in ("none", "p5", "random5"))
    assert plain.record.provenance.weights_digest == recovered.record.provenance.weights_digest
    margins = [run.runs["facts"].outcomes.margins_nats for run in (plain, recovered, control)]
    assert not np.array_equal(margins[0], margins[1])
    assert not np.array_equal(margins[1], margins[2])
    again = train(project, fresh=True)
    assert not again.was_there
    assert measure(project).record.provenance.recovery_digest == recovered.record.provenance.recovery_digest  # the same bits
    write(project, steps=6)
    train(project)
    assert measure(project).record.provenance.recovery_digest != recovered.record.provenance.recovery_digest


def test_choices_share_one_artifact(project: Path) -> None:
    made = train(project, "tiny_4bit-rtn_idp")
    assert len(made.record.trainings) == 2
    assert train(project, "tiny_4bit-rtn_idp-0").was_there
    dynamic, fixed = measure(project, "tiny_4bit-rtn_idp"), measure(project, "tiny_4bit-rtn_idp-0")
    assert dynamic.record.provenance.recovery_digest != fixed.record.provenance.recovery_digest
    assert dynamic.record.recovery_tensors == fixed.record.recovery_tensors == made.record.files["tensors.safetensors"]
    assert (dynamic.record.recovery_recipe["choice"], fixed.record.recovery_recipe["choice"]) == ("attention", 0)


def test_the_record_tells_which_prompt_each_item_was_asked_behind(project: Path) -> None:
    train(project, "tiny_4bit-rtn_idp")
    first = measure(project, "tiny_4bit-rtn_idp")
    again = measure(project, "tiny_4bit-rtn_idp")  # from the run store
    fixed = measure(project, "tiny_4bit-rtn_idp-0")
    choices = first.runs["facts"].outcomes.choices
    assert choices is not None
    assert again.runs["facts"].origin == "stored"
    assert again.runs["facts"].outcomes.choices == choices
    assert fixed.runs["facts"].outcomes.choices is None
    # the options of an item are asked behind one prompt, whichever relation stands between
    assert {len(row) for row in choices} == {1}
    assert {choice for (choice,) in choices} <= {0, 1}
    write_cell(project / "run", first)
    (kept,) = (cell for cell in read_run(project / "run") if isinstance(cell, CellRun))
    assert kept.runs["facts"].outcomes.choices == choices
    store = Store(project / "cache")
    shutil.rmtree(store.root / "results")  # what is left are the answers, request by request
    assert measure(project, "tiny_4bit-rtn_idp").runs["facts"].outcomes.choices == choices


def test_the_dense_model_gets_the_same_recovery_as_a_control(project: Path) -> None:
    compressed, dense = train(project), train(project, "tiny_none_p5")
    assert compressed.folder != dense.folder
    assert measure(project, "tiny_none_p5").record.cell.is_dense is False


def test_measuring_never_trains(project: Path) -> None:
    with pytest.raises(RecoveryError, match=r"tiny_4bit-rtn_p5 has no trained artifact .* `harness recover tiny_4bit-rtn_p5`"):
        measure(project)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n_tokens": 6}, r"another recipe of the recovery \(n_tokens = 5, not 6\)"),
        ({"bits": 8}, "another compression recipe"),
        ({"text": "other.txt"}, "another training text"),
    ],
)
def test_an_artifact_for_something_else_is_refused(project: Path, changes: dict[str, Any], told: str) -> None:
    train(project)
    (project / "other.txt").write_text((project / "text.txt").read_text() + " more")
    write(project, **changes)
    with pytest.raises(RecoveryError, match=f"was trained for {told}"):
        measure(project)


def test_one_for_another_base_model_is_refused(project: Path) -> None:
    from harness.models.tiny import make_tiny

    train(project)
    make_tiny(project / "model", seed=1)
    with pytest.raises(RecoveryError, match="was trained for another base model"):
        measure(project)


def test_one_that_was_edited_is_refused(project: Path) -> None:
    path = train(project).folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RecoveryError, match="is not the file that training wrote"):
        measure(project)


def test_text_with_a_probe_is_refused_when_training_and_when_measuring(project: Path) -> None:
    train(project)
    text = (project / "text.txt").read_text()
    (project / "bad.txt").write_text(text + "\n\nThe capital of Land3 is Dol.")
    write(project, text="bad.txt")
    with pytest.raises(ContaminationError, match=r"training text bad.txt: document 8 holds .* 'the capital of land3 is'"):
        train(project)
    path = project / "matrix.toml"
    path.write_text(
        path.read_text().replace('training_text = "bad.txt"', 'training_text = "bad.txt"\nleave_out_documents = [8]')
    )
    train(project)
    path.write_text(path.read_text().replace("leave_out_documents = [8]", "leave_out_documents = 8"))
    with pytest.raises(ConfigError, match="leave_out_documents = 8 is not possible"):
        train(project)
    write(project)
    # other facts came after the training: the artifact is there, and its text now holds a probe
    shutil.copytree(project / "facts", project / "more")
    table = project / "more" / "relations.json"
    table.write_text(table.read_text().replace("The capital of [X] is [Y].", "word0 word1 word2 word3 word4 [X] [Y]."))
    write(project)
    path = project / "matrix.toml"
    path.write_text(path.read_text().replace('folder = "facts"', 'folder = "more"'))
    with pytest.raises(ContaminationError, match=r"training text text\.txt"):
        measure(project)


def test_a_text_for_what_is_not_trained_is_refused(project: Path) -> None:
    path = project / "matrix.toml"
    path.write_text(
        path.read_text().replace('method = "random_prompt"', 'method = "random_prompt"\ntraining_text = "text.txt"')
    )
    with pytest.raises(ConfigError, match="'random_prompt' is not trained, so it has no text"):
        measure(project, "tiny_4bit-rtn_random5")


def test_a_killed_training_stays_in_the_store_and_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.execution import recover

    whole = train(project)

    def kill(self: Any, step: Any) -> None:
        if step.number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recover._Telling, "__call__", kill)
        with pytest.raises(KeyboardInterrupt):
            train(project, fresh=True)
    left = [entry for entry in entries(Store(project / "cache")) if entry.about == "training of a recovery"]
    assert [entry.kind for entry in left] == ["unfinished"]
    (whole.folder / "recipe.json").unlink()
    again = train(project)
    assert not again.was_there
    assert again.record.files == whole.record.files
    assert not left[0].folder.exists()
    assert replace(again.record, trainings=(), digest="") == replace(whole.record, trainings=(), digest="")
