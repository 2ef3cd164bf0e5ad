"""What can't be compressed ends `harness measure` with one sentence and the code of whose fault it is: 4 for what was asked
for, 11 for what a model or checkpoint turns out to be."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.execution.matrix import Matrix

torch = pytest.importorskip("torch")

RTN = 'method = "rtn"\nbits = 4\ngroup_size = 16'
ARTIFACT = 'method = "artifact"\nfolder = "release"'
NONE = 'method = "none"'
LAYER = "model.layers.1.mlp.up_proj"


class Matching(str):
    """Equal to every text in which it is found as a pattern."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.search(self, other) is not None

    __hash__ = str.__hash__


Measure = Callable[[str], tuple[int, str]]


@pytest.fixture
def measure(matrix: Matrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Measure:
    """Measures a cell of a recipe as the command line does; gives the exit code and all that it said of an error."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))

    def run(recipe: str) -> tuple[int, str]:
        text = matrix.path.read_text().replace("[compressions.none]", f"[compressions.tried]\n{recipe}\n[compressions.none]")
        (tmp_path / "tried.toml").write_text(text.replace('["none", "4bit-rtn"', '["tried", "none", "4bit-rtn"'))
        code = main(["measure", "tiny_tried_none", "--matrix", str(tmp_path / "tried.toml"), "--run", str(tmp_path / "run")])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        (line,) = [line for line in said.splitlines() if line.startswith("harness: ")]
        assert line.endswith(".")
        return code, line

    return run


@pytest.fixture
def release(tmp_path: Path, matrix: Matrix, save_gptq: Callable[[Path, Path], Path]) -> Path:
    """The model of the matrix, packed to 4 bits by another tool."""
    assert matrix.cells
    return save_gptq(tmp_path / "model", tmp_path / "release")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def say(folder: Path, **changes: Any) -> None:
    """Change a folder's config; ``packing`` is of what it says of its quantization."""
    said = json.loads((folder / "config.json").read_text())
    said.get("quantization_config", {}).update(changes.pop("packing", {}))
    (folder / "config.json").write_text(json.dumps({**said, **changes}))


def cut(folder: Path) -> None:
    """A folder of two shards, of which one is gone."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def another_base(folder: Path) -> None:
    rewrite(
        folder, lambda tensors: tensors.update({"model.embed_tokens.weight": tensors["model.embed_tokens.weight"].flip(0)})
    )


@pytest.mark.parametrize(
    ("recipe", "code", "sentence"),
    [
        ('method = "rtm"\nbits = 4', 4, "unknown compression method 'rtm'.* did you mean 'rtn'"),
        (f'{RTN}\nscope = "mlp"', 4, "scope = 'mlp' is not possible: expected one of all, attention, feed_forward"),
        ('method = "rtn"\nbits = 5', 4, "bits = 5 is not possible: expected one of 2, 3, 4, 8"),
        ('method = "rtn"\nbits = "4"', 4, "bits = '4' is not possible: expected one of 2, 3, 4, 8"),
        (
            'method = "rtn"\nbits = 4\ngroup_size = -1',
            4,
            "group_size = -1 is not possible: expected a whole number of at least",
        ),
        (
            'method = "rtn"\nbits = 4\ngroup_size = 24',
            11,
            "group_size = 24 does not divide the 32 input features .*: take one of",
        ),
        ('method = "magnitude"\nsparsity = 1', 4, r"sparsity = 1 is not possible: expected a share in \[0, 1\)"),
        ('method = "wanda"\nsparsity = -0.1', 4, r"sparsity = -0.1 is not possible: expected a share in \[0, 1\)"),
        ('method = "sparsegpt"\nsparsity = nan', 4, r"sparsity = nan is not possible: expected a share in \[0, 1\)"),
        (
            'method = "sparsegpt"\nsparsity = 0.4\npattern = "2:4"',
            4,
            "sparsity = 0.4 is not possible with pattern = '2:4': exp",
        ),
        ('method = "rtn"', 4, "'tried' of the matrix has no bits: add it"),
        ('method = "artifact"\nfolder = "gone"', 4, "artifact:.*gone: there is no such folder"),
        ('method = "gptq"\nbits = 4\ngroup_size = 16\ncalibration = "gone.txt"', 11, "gone.txt"),
        (
            'method = "gptq"\nbits = 4\ngroup_size = 16\ncalibration = "text.docx"',
            4,
            "of an unknown kind: expected .txt or .jsonl",
        ),
    ],
)
def test_a_recipe_that_can_not_be(measure: Measure, recipe: str, code: int, sentence: str) -> None:
    assert measure(recipe) == (code, Matching(sentence))


@pytest.mark.parametrize(
    ("change", "recipe", "sentence"),
    [
        (cut, RTN, r"lacks 1 of its 2 shards \(first: model-00002-of-00002.safetensors\)"),
        (empty, RTN, "model.safetensors is not a readable safetensors file"),
        (
            lambda folder: say(folder, hidden_size=64),
            RTN,
            r"in another shape than its config says \(first: .*, expected \(.*64",
        ),
        (
            lambda folder: say(folder, num_hidden_layers=3),
            RTN,
            r"lacks 9 of the model's weights \(first: model.layers.2",
        ),
        (
            lambda folder: rewrite(folder, lambda t: t[f"{LAYER}.weight"].fill_(float("nan"))),
            RTN,
            "2048 NaN or infinite weights",
        ),
        (
            lambda folder: rewrite(folder, lambda t: t[f"{LAYER}.weight"].fill_(float("nan"))),
            NONE,
            "is nan: the weights of LlamaForCausalLM or its",
        ),
        (
            lambda folder: rewrite(folder, lambda t: t.update({f"{LAYER}.weight": t[f"{LAYER}.weight"][:9]})),
            RTN,
            r"\(9, 32\), expected \(64, 32",
        ),
    ],
)
def test_a_dense_model_that_is_broken(
    measure: Measure, tmp_path: Path, change: Callable[[Path], None], recipe: str, sentence: str
) -> None:
    change(tmp_path / "model")
    assert measure(recipe) == (11, Matching(sentence))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (cut, r"lacks 1 of its 2 shards \(first: model-00002-of-00002.safetensors\)"),
        (empty, "model.safetensors is not a readable safetensors file"),
        (lambda folder: say(folder, packing={"bits": 8}), "does not hold what its config says, 8 bits in groups of 16"),
        (lambda folder: say(folder, packing={"bits": 5}), "5 bits, expected one of 2, 3, 4, 8"),
        (lambda folder: say(folder, packing={"group_size": 32}), "does not hold what its config says, 4 bits in groups of 32"),
        (lambda folder: say(folder, packing={"checkpoint_format": "gptq_v2"}), "it says sym, and a zero point is 7, not 8"),
        (lambda folder: say(folder, quantization_config=None), "its config is not its own|which the model does not have"),
        (
            lambda folder: say(folder, hidden_size=64),
            "its config says hidden_size = 64, expected 32; it is of another base model",
        ),
        (lambda folder: say(folder, num_attention_heads=8), "its config says num_attention_heads = 8, expected 4"),
        (lambda folder: say(folder, hidden_act="gelu"), "its config says hidden_act = 'gelu', expected 'silu'"),
        (lambda folder: rewrite(folder, lambda t: t[f"{LAYER}.scales"].fill_(float("nan"))), "NaN or infinite weights"),
        (
            lambda folder: rewrite(folder, lambda t: t.update({f"{LAYER}.qweight": t[f"{LAYER}.qweight"][:2]})),
            "does not hold wh",
        ),
        (lambda folder: rewrite(folder, lambda t: t.update({f"{LAYER}.bias": t[f"{LAYER}.bias"] + 1})), "does not have"),
        (lambda folder: rewrite(folder, lambda t: t.update({"model.norm.weight": t["model.norm.weight"][:9]})), "is of shape"),
        (
            lambda folder: rewrite(folder, lambda t: t.update({"model.norm.weight": t["model.norm.weight"].int()})),
            "int32 numbers",
        ),
        (lambda folder: rewrite(folder, lambda t: t.pop("model.norm.weight")), "it lacks 'model.norm.weight'"),
        (another_base, "is an artifact of another base model: the cosine of its token embeddings"),
    ],
)
def test_an_artifact_that_is_broken_or_lies(
    measure: Measure, release: Path, change: Callable[[Path], None], sentence: str
) -> None:
    change(release)
    assert measure(ARTIFACT) == (11, Matching(sentence))


def test_a_pickled_artifact_is_not_opened_unless_asked(measure: Measure, release: Path) -> None:
    (release / "model.safetensors").rename(release / "pytorch_model.bin")
    assert measure(ARTIFACT) == (11, Matching("only pickled ones, which run code when they are loaded"))


def test_a_scope_that_matches_nothing(measure: Measure, tmp_path: Path) -> None:
    from harness.models.tiny import make_tiny

    shutil.rmtree(tmp_path / "model")
    make_tiny(tmp_path / "model", "mamba")
    assert measure(f'{RTN}\nscope = "attention"') == (11, Matching("neither attention nor feed-forward; take scope = 'all'"))
