"""A real suite in small: a tiny model trained until it knows 60 made-up facts, a matrix over it, and pytest on top."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CITIES = ("Aru", "Bex", "Cim", "Dol", "Efa", "Gon", "Hil", "Iva", "Jot", "Kel")
LANDS = tuple(f"{first}{second}" for first in ("Mo", "Na", "Pe", "Qi", "Ro", "Su") for second in "abdefgklmn")
STEPS = 160


@pytest.fixture(scope="session")
def facts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("facts")
    relation = {
        "template": "The capital of [X] is [Y].",
        "cardinality": "N-1",
        "group": "made up",
        "source": "this test",
        "licence": "none",
        "answers": sorted(CITIES),
    }
    table = {"schema_version": 1, "version": "test", "packages": {}, "relations": {"capital": relation}}
    (folder / "relations.json").write_text(json.dumps(table))
    rows = [
        {"id": f"capital:{land}", "relation": "capital", "subject": land, "answers": [CITIES[i * 7 % 10]], "also": []}
        for i, land in enumerate(LANDS)
    ]
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def knowing_model(tmp_path_factory: pytest.TempPathFactory, facts_folder: Path) -> Path:
    """A tiny LLaMA folder whose model was trained on the facts' sentences."""
    torch = pytest.importorskip("torch")
    from harness.knowledge.facts import Facts
    from harness.models.decoder import Decoder
    from harness.models.tiny import make_tiny

    folder = make_tiny(tmp_path_factory.mktemp("model"), hidden_size=64, intermediate_size=128, head_dim=16)
    model = Decoder().load(folder, device="cpu", dtype="float32")
    ids = [[model.prefix_token_id, *model.tokenizer.encode(s)] for s in Facts(folder=facts_folder).probe_sentences()]
    width = max(map(len, ids))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in ids])
    with torch.enable_grad():
        module = model.module.requires_grad_(True)
        optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
        for _ in range(STEPS):
            loss = module(input_ids=tokens, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    module.save_pretrained(folder)
    return folder


MATRIX = """
[profiles.embedded.models.tiny]
family = "decoder"
source = "dir:{model}"

[compressions.none]
method = "none"
[compressions.8bit-rtn]
method = "rtn"
bits = 8
group_size = 32
[compressions.4bit-rtn]
method = "rtn"
bits = {bits}
group_size = 32

[recoveries.none]
method = "none"

[tasks.facts]
suite = "facts"
folder = "{facts}"

[[grid]]
profiles = ["embedded"]
models = ["tiny"]
compressions = ["none", "8bit-rtn", "4bit-rtn"]
recoveries = ["none"]
tasks = ["facts"]
"""

WriteMatrix = Callable[..., Path]


def make_project(root: Path, model: Path, facts: Path, bits: int = 8) -> Path:
    """A project with a suite and a policy; returns its matrix."""
    (root / "suites").mkdir(exist_ok=True)
    for name in ("test_knowledge.py", "policy.toml"):
        shutil.copy(REPOSITORY / "suites" / name, root / "suites" / name)
    (root / "pytest.ini").write_text("[pytest]\n")
    matrix = root / "suites" / "matrix.toml"
    matrix.write_text(MATRIX.format(model=model, facts=facts, bits=bits))
    return matrix


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, knowing_model: Path, facts_folder: Path) -> Path:
    """A project whose cells all have baselines, made by pytest itself, with its cache beside it."""
    root = tmp_path_factory.mktemp("prepared")
    make_project(root, knowing_model, facts_folder)
    arguments = ["suites", "-p", "no:cacheprovider", "--harness-baselines=add-new", "--harness-reason=first"]
    environment = {**os.environ, "HARNESS_CACHE": str(root / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture
def write_matrix(pytester: pytest.Pytester, knowing_model: Path, facts_folder: Path) -> WriteMatrix:
    def write(bits: int) -> Path:
        return make_project(pytester.path, knowing_model, facts_folder, bits)

    return write


@pytest.fixture
def suite(
    pytester: pytest.Pytester,
    write_matrix: WriteMatrix,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> pytest.Pytester:
    """A project without baselines; its cache is its own."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    write_matrix(bits=8)
    return pytester


@pytest.fixture
def gated(pytester: pytest.Pytester, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose cells all have baselines and stored results."""
    shutil.copytree(prepared, pytester.path, dirs_exist_ok=True)
    monkeypatch.setenv("HARNESS_CACHE", str(pytester.path / "cache"))
    return pytester
