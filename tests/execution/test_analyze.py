"""`harness analyze` and what the report makes of it: read, drawn, and refused where there is nothing to compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.core.regimes import read_regimes
from harness.core.verdicts import Estimate
from harness.execution.matrix import Matrix

POLICY = Path(__file__).parents[2] / "suites" / "policy.toml"
RANDOM = """
[recoveries.random5]
method = "random_prompt"
n_tokens = 5

[tasks.facts]"""


@pytest.fixture
def project(matrix: Matrix, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = matrix.path.parent
    made = matrix.path.read_text().replace("[tasks.facts]", RANDOM)
    matrix.path.write_text(made.replace('recoveries = ["none"]', 'recoveries = ["none", "random5"]'))
    monkeypatch.setenv("HARNESS_CACHE", str(root / "cache"))
    monkeypatch.chdir(root)
    return root


AT = ["--text", "text.txt", "--texts", "4", "--tokens", "20", "--matrix", "matrix.toml", "--device", "cpu"]


def test_cells_are_compared_with_their_dense_model_and_drawn(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "tiny_4bit-rtn_none", "--run", "run", "--matrix", "matrix.toml", "--device", "cpu"]) == 0
    assert main(["analyze", "tiny_4bit-rtn_none", "tiny_4bit-rtn_random5", *AT, "--run", "run"]) == 0
    told = capsys.readouterr()
    assert "tiny_none_none: looked at: 4/4" in told.err
    assert "next: `harness report --run run --matrix matrix.toml`" in told.out
    plain, prompted = read_regimes(project / "run")[0]
    assert (plain.cell.id, plain.text, plain.n_texts, plain.n_tokens) == ("tiny_4bit-rtn_none", "text.txt", 4, 20)
    assert "products" not in plain.engine  # the model's own code, whatever the scorers multiply by
    assert (plain.roots, prompted.roots) == ((), ((5, 4),))
    assert all(isinstance(one, Estimate) for one in (*plain.stacks[0].attention, *prompted.stacks[0].to_root))
    assert str(project) not in (project / "run" / "regimes" / "tiny_4bit-rtn_none.json").read_text()
    again = {path.name: path.read_bytes() for path in (project / "run" / "regimes").iterdir()}
    assert main(["analyze", "tiny_4bit-rtn_none", *AT, "--run", "again"]) == 0
    first, second = (json.loads(data) for data in (again["tiny_4bit-rtn_none.json"], _bytes(project / "again")))
    assert {**first, "measured_at": ""} == {**second, "measured_at": ""}  # the same bits in every run

    shutil.copy(POLICY, project / "policy.toml")
    report = ["report", "--run", "run", "--matrix", "matrix.toml"]
    capsys.readouterr()
    main(report)
    page = (project / "run" / "index.html").read_text()
    assert "Share of attention on the prompt" in page
    assert "4bit-rtn + random5: attention to the prompt" in page
    assert "other weights or another recovery" not in page
    raw = json.loads((project / "run" / "report.json").read_text())["run"]["regimes"]
    assert [one["cell"]["recovery"] for one in raw] == ["none", "random5"]
    broken = project / "run" / "regimes" / "tiny_4bit-rtn_random5.json"
    broken.write_text(broken.read_text().replace('"n_texts": 4', '"n_texts": NaN'))
    (project / "run" / "regimes" / "tiny_4bit-gptq_none.json").write_bytes(again["tiny_4bit-rtn_none.json"])
    main(report)
    page = (project / "run" / "index.html").read_text()
    assert "NaN is not allowed" in page
    assert "it was moved; run `harness analyze tiny_4bit-gptq_none`, or remove it" in page


def _bytes(run: Path) -> bytes:
    return (run / "regimes" / "tiny_4bit-rtn_none.json").read_bytes()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["tiny_none_none"], "tiny_none_none is the dense model itself"),
        (["tiny_4bit-rtn_none", "--texts", "1"], "--texts expects at least 2, got 1"),
        (["tiny_4bit-rtn_none", "--tokens", "4"], "--tokens expects at least 8, got 4"),
        (["tiny_4bit-rtn_none", "--tokens", "100", "--texts", "50"], "were asked for: take fewer or shorter ones"),
        (["tiny_4bit-rtn_nope"], "did you mean"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence_and_exit_code_4(
    asked: list[str], says: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", asked[0], *AT, *asked[1:]]) == 4
    assert says in capsys.readouterr().err


def test_somebody_elses_error_is_a_sentence_about_analyzing(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("too far\nand more")

    monkeypatch.setattr("harness.execution.analyze.analyze_cells", broken)
    assert main(["analyze", "tiny_4bit-rtn_none", *AT, "--run", "run"]) != 0
    assert "analyzing crashed (IndexError: too far): the cells that were told above are in run" in capsys.readouterr().err
