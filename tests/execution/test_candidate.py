"""A candidate that comes back from the store is the one that was made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.columns import write_outcomes
from harness.core.errors import ConfigError
from harness.core.records import CellRun
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import Matrix, read_matrix
from harness.execution.progress import Progress
from harness.execution.store import Store
from harness.knowledge.lama_items import BEYOND_WINDOW
from harness.models import MODELS
from harness.models.tiny import make_tiny
from tests.execution.conftest import TEXT

PRUNED_AND_ROUNDED = '[{method = "magnitude", sparsity = 0.2}, {method = "int8_dynamic"}]'


@pytest.fixture
def measure(matrix: Matrix, progress: Progress, tmp_path: Path) -> Callable[[str], CellRun]:
    def run(recipe: str) -> CellRun:
        text = matrix.path.read_text()
        text = text.replace("[compressions.none]", f"[compressions.tried]\n{recipe}\n[compressions.none]")
        (tmp_path / "tried.toml").write_text(text.replace('["none", "4bit-rtn"', '["tried", "none", "4bit-rtn"'))
        found = read_matrix(tmp_path / "tried.toml", "embedded")
        store = Store(tmp_path / "store")
        plan = found.plan("tiny_tried_none")
        return measure_cell(found, plan, tuple(plan.tasks), options=MeasureOptions(), store=store, progress=progress)

    return run


def outcomes(run: CellRun, path: Path) -> bytes:
    write_outcomes(path, run.runs["facts"].outcomes)
    return path.read_bytes()


def test_layers_that_round_their_inputs_do_so_again_when_they_come_from_the_store(measure, tmp_path: Path) -> None:
    first = measure(f'method = "steps"\nscope = "attention"\nsteps = {PRUNED_AND_ROUNDED}')
    shutil.rmtree(tmp_path / "store" / "results")
    again = measure(f'method = "steps"\nscope = "attention"\nsteps = {PRUNED_AND_ROUNDED}')
    assert again.record.compression == first.record.compression  # made once: its wall time too
    assert outcomes(again, tmp_path / "a") == outcomes(first, tmp_path / "b")


def test_weights_alike_are_not_the_same_candidate_where_inputs_are_rounded_otherwise(measure) -> None:
    found = {
        measure(f'method = "int8_dynamic"\nper = "{per}"').record.provenance.weights_digest for per in ("token", "tensor")
    }
    assert len(found) == 2


def test_weights_that_were_calibrated_on_other_tokens_are_not_served(measure, tmp_path: Path) -> None:
    """The same weights and text under another tokenizer are another calibration sample."""
    calibrated = 'method = "gptq"\nbits = 2\ngroup_size = 16\nn_samples = 4\nsample_tokens = 32\ncalibration = "text.txt"'
    first = measure(calibrated)
    tokenizer = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:1]
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(tokenizer))
    again = measure(calibrated)
    assert again.record.provenance.tokenizer_digest != first.record.provenance.tokenizer_digest
    assert again.record.provenance.weights_digest != first.record.provenance.weights_digest


def test_documents_are_left_out_of_a_calibration_and_only_of_one(measure, tmp_path: Path) -> None:
    calibrated = 'method = "gptq"\nbits = 2\ngroup_size = 16\nn_samples = 4\nsample_tokens = 32\ncalibration = "text.txt"'
    texts = (tmp_path / "text.txt").read_text().split("\n\n")
    whole = measure(calibrated)
    left_out = measure(f"{calibrated}\nleave_out_documents = [1]")
    assert left_out.record.provenance.weights_digest != whole.record.provenance.weights_digest
    (tmp_path / "text.txt").write_text("\n\n".join(texts[1:]))
    assert measure(calibrated).record.provenance.weights_digest == left_out.record.provenance.weights_digest
    with pytest.raises(ConfigError, match=r"leave_out_documents = \['1'\] is not possible: expected the numbers of documents"):
        measure(f"{calibrated}\nleave_out_documents = ['1']")
    for line in ("leave_out_documents = [1]", 'calibration = "text.txt"'):
        with pytest.raises(ConfigError, match="'rtn' is not calibrated, so it has no text"):
            measure(f'method = "rtn"\nbits = 4\ngroup_size = 16\n{line}')


def test_an_artifact_brings_all_of_its_weights_also_from_the_store(measure, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tmp_path / "model", tmp_path / "release")
    tensors = load_file(tmp_path / "release" / "model.safetensors")
    tensors["model.norm.weight"] *= 2  # a norm that carries a scale, as AWQ leaves them
    save_file(tensors, tmp_path / "release" / "model.safetensors", metadata={"format": "pt"})
    first = measure('method = "artifact"\nfolder = "release"')
    shutil.rmtree(tmp_path / "store" / "results")
    again = measure('method = "artifact"\nfolder = "release"')
    assert outcomes(again, tmp_path / "a") == outcomes(first, tmp_path / "b")
    assert first.record.provenance.weights_digest != first.record.provenance.dense_digest


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (
            'method = "rtn"\nbits = 4\ngroup_size = 16\nscope = "mlp"',
            "rtn: scope = 'mlp' is not possible: expected one of all,",
        ),
        ('method = "magnitude"\nsparsity = 1.5', r"sparsity = 1.5 is not possible: expected a share in \[0, 1\)"),
        ('method = "magnitude"\nshare = 0.5', "'tried' of the matrix: unknown field 'share'.* Known: .*sparsity"),
    ],
)
def test_a_recipe_that_can_not_be_is_one_sentence(measure, recipe: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        measure(recipe)


@pytest.mark.parametrize("architecture", ["roberta", "bert"])
def test_a_sentence_longer_than_the_models_window_is_left_out_also_where_the_tokenizer_does_not_know_it(
    architecture: str, tmp_path: Path, progress: Progress
) -> None:
    """RoBERTa's own table has two places that no token gets."""
    folder = make_tiny(tmp_path / "model", architecture)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, "model_max_length": 10**30}))
    tokenizer = MODELS.load("encoder")().load_tokenizer(folder)
    assert tokenizer.model_max_length == 10**30

    def long(n_tokens: int) -> str:
        """A subject whose sentence has so many tokens, in few words."""
        tried = (("xq " * n + "a " * more).strip() for n in range(1, 60) for more in range(20))
        return next(name for name in tried if len(tokenizer.encode(f"{name} is in Asia .")) == n_tokens)

    rows = [
        {"predicate_id": "P30", "sub_label": name, "obj_label": answer, "template": "[X] is in [Y] ."}
        for name, answer in (("a", "Asia"), ("is", "a"), (long(128), "Asia"), (long(129), "Asia"))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = '[tasks.lama]\nsuite = "lama"\nfile = "rows.jsonl"\nwhole_sentence = true'
    text = TEXT.replace('family = "decoder"', 'family = "encoder"')
    text = text.replace('[tasks.facts]\nsuite = "facts"\nfolder = "facts"', task).replace('["facts"]', '["lama"]')
    (tmp_path / "matrix.toml").write_text(text)
    found = read_matrix(tmp_path / "matrix.toml", "embedded")
    plan = found.plan("tiny_none_none")
    run = measure_cell(found, plan, ("lama",), options=MeasureOptions(), store=Store(tmp_path / "s"), progress=progress)
    assert run.runs["lama"].info.excluded == {BEYOND_WINDOW: 1}
