"""The matrix file: every mistake is one sentence with the file in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import ConfigError, UnknownNameError
from harness.execution.matrix import TaskEntry, read_matrix
from harness.execution.tasks import make_task

SHIPPED = Path(__file__).parents[2] / "suites" / "matrix.toml"


def test_the_shipped_matrix_declares_the_cells_that_the_readme_names() -> None:
    matrix = read_matrix(SHIPPED, "embedded")
    assert list(matrix.cells) == [
        "llama_none_none",
        "llama_8bit-rtn_none",
        "llama_4bit-rtn_none",
        "llama_3bit-rtn_none",
        "llama_4bit-gptq_none",
    ]
    assert matrix.n_tasks == 11
    assert list(matrix.plan("llama_4bit-rtn_none").tasks) == ["facts", "facts_blank", "facts_choice"]


def test_every_profile_of_the_shipped_matrix_reads() -> None:
    families = [plan.model.family for plan in read_matrix(SHIPPED, "tiny").cells.values()]
    assert families == ["encoder", "encoder", "seq2seq", "seq2seq"]
    assert read_matrix(SHIPPED, "gpu").plan("llama_none_none").model.source.startswith("hub:")


def test_the_dense_cell_of_a_compressed_one_is_found() -> None:
    matrix = read_matrix(SHIPPED, "embedded")
    dense = matrix.dense_of(matrix.plan("llama_4bit-gptq_none"))
    assert dense is not None
    assert dense.cell.is_dense


@pytest.mark.parametrize(
    ("profile", "cell", "sentence"),
    [("embeded", None, "did you mean 'embedded'"), ("embedded", "llama_4bit-rtm_none", "did you mean 'llama_4bit-rtn_none'")],
)
def test_an_unknown_name_is_answered_with_the_nearest(profile: str, cell: str | None, sentence: str) -> None:
    with pytest.raises(UnknownNameError, match=sentence):
        read_matrix(SHIPPED, profile).plan(cell or "")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('family = "decoder"', 'family = "decodr"', "did you mean 'decoder'"),
        ('suite = "facts"', 'suite = "factz"', "did you mean 'facts'"),
        ('method = "rtn"\nbits = 8', "bits = 8", "has no `method`"),
        ("[tasks.facts]", "[tasks.pooled]", "unknown task|can't be called 'pooled'"),
        ('"embedded"', '"gpu"', "has no cells"),
        ("models = [", "model = [", r"matrix\.toml:\d+: unknown key 'grid.0.model'"),
        ("[[grid]]", "[[grid", "not valid TOML"),
        ('compressions = ["none", "8bit-rtn"', 'compressions = ["none", "8bit_rtn"', "did you mean '8bit-rtn'"),
    ],
)
def test_a_wrong_matrix_is_refused_with_its_file(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = tmp_path / "matrix.toml"
    text = SHIPPED.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_matrix(path, "embedded")
    assert "matrix.toml" in str(caught.value)


def test_a_cell_name_with_path_characters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(
        SHIPPED.read_text().replace("4bit-gptq", "../4bit-gptq").replace("[compressions.../4", '[compressions."../4')
    )
    with pytest.raises(ConfigError):
        read_matrix(path, "embedded")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            TaskEntry("facts", {"folde": "x"}),
            "task 't' of the matrix: unknown field 'folde': did you mean 'folder'? Known: folder.",
        ),
        (TaskEntry("facts", {"limit": 5}), "task 't' of the matrix: unknown field 'limit': Known: folder."),
        (
            TaskEntry("lm_eval", {"task": "sciq"}),
            "task 't' of the matrix has no metric: add it; its fields are: metric, task, ",
        ),
    ],
)
def test_fields_that_a_suite_does_not_have_or_needs_are_named(entry: TaskEntry, said: str) -> None:
    """How many items a run asks is an option of the run: written in the matrix, it was silently left aside."""
    with pytest.raises(ConfigError) as raised:
        make_task("t", entry, Path())
    assert str(raised.value).startswith(said)


def test_a_grid_may_ask_a_fixed_sample_of_each_task() -> None:
    quick, whole = (read_matrix(SHIPPED, name).plan("llama_none_none").tasks for name in ("knowledge-quick", "knowledge"))
    assert quick["arc_easy"].options == {**whole["arc_easy"].options, "n_items": 200}
    assert "n_items" not in quick["bear"].options
    assert make_task("arc_easy", quick["arc_easy"], SHIPPED.parent).n_items == 200  # type: ignore[attr-defined]
