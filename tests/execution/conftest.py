"""A tiny random model and a handful of made-up facts behind a matrix of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.execution.matrix import Matrix, read_matrix
from harness.execution.progress import Progress

ANSWERS = ("Aru", "Bex", "Cim", "Dol")

TEXT = """
[profiles.embedded.models.tiny]
family = "decoder"
source = "dir:model"

[compressions.none]
method = "none"
[compressions.4bit-rtn]
method = "rtn"
bits = 4
group_size = 16
[compressions.4bit-gptq]
method = "gptq"
bits = 4
group_size = 16
n_samples = 4
sample_tokens = 32
calibration = "text.txt"

[recoveries.none]
method = "none"

[tasks.facts]
suite = "facts"
folder = "facts"

[[grid]]
profiles = ["embedded"]
models = ["tiny"]
compressions = ["none", "4bit-rtn", "4bit-gptq"]
recoveries = ["none"]
tasks = ["facts"]
"""


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    pytest.importorskip("torch")
    from harness.models.tiny import make_tiny

    make_tiny(tmp_path / "model")
    facts = tmp_path / "facts"
    facts.mkdir()
    relation = {
        "template": "The capital of [X] is [Y].",
        "cardinality": "N-1",
        "group": "made up",
        "source": "this test",
        "licence": "none",
        "answers": list(ANSWERS),
    }
    table = {"schema_version": 1, "version": "test", "packages": {}, "relations": {"capital": relation}}
    (facts / "relations.json").write_text(json.dumps(table))
    rows = [
        {"id": f"capital:{n:02}", "relation": "capital", "subject": f"Land{n}", "answers": [ANSWERS[n % 4]], "also": []}
        for n in range(40)
    ]
    (facts / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(f"word{i * k % 53}" for i in range(120)) for k in range(1, 8)))
    (tmp_path / "matrix.toml").write_text(TEXT)
    return read_matrix(tmp_path / "matrix.toml", "embedded")


@pytest.fixture
def progress() -> Progress:
    return Progress(write=lambda _: None, is_tty=False)
