"""The worked examples of docs/adding.md, installed as a package of one's own and run."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.core.records import CellRun
from harness.core.verdicts import NotEstimable, PairedCounts
from harness.execution.matrix import TaskEntry, read_matrix
from harness.knowledge import KNOWLEDGE
from harness.report import write_report

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TESTS = Path(__file__).parents[1]
ADDING = TESTS.parent / "docs" / "adding.md"
PACKAGE = "our_harness_parts"
TITLE = re.compile(r"^(?:# |<!-- )harness/(?P<path>\S+)")


@pytest.fixture(scope="module")
def installed(blocks: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The page's files in a package beside its entry points, as pip would put them."""
    site = tmp_path_factory.mktemp("site")
    for text in [*blocks(ADDING, "python"), *blocks(ADDING, "html")]:
        if title := TITLE.match(text):
            path = site / PACKAGE / title["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            (path.parent / "__init__.py").touch()
    groups: dict[str, dict[str, str]] = {}
    for text in blocks(ADDING, "toml"):
        groups.update(tomllib.loads(text).get("project", {}).get("entry-points", {}))
    about = site / f"{PACKAGE}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(site))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
def test_the_compression_prunes_what_is_small_and_counts_what_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from harness.compression import COMPRESSION, recipe_digest
    from harness.models.decoder import Decoder
    from harness.models.tiny import make_tiny

    method = COMPRESSION.load("threshold")(smallest=0.2)
    family = Decoder()
    model = family.load(make_tiny(tmp_path), device="cpu", dtype="float32")
    layers = family.linear_layers(model)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    made = method.compress(model, layers, None)
    assert made.recipe_digest == recipe_digest(method)
    n_kept = 0
    for name, layer in layers.items():
        small = before[name].abs() < 0.2
        assert not layer.weight[small].any()
        assert layer.weight[~small].equal(before[name][~small])
        n_kept += int((~small).sum())
    assert 0 < n_kept < made.n_weights_compressed
    assert made.effective_bits == pytest.approx(1 + 16 * n_kept / made.n_weights_compressed)


@pytest.mark.usefixtures("installed")
def test_the_recovery_flattens_what_the_model_says(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from harness.models.decoder import Decoder
    from harness.models.tiny import make_tiny
    from harness.recovery import RECOVERY

    model = Decoder().load(make_tiny(tmp_path), device="cpu", dtype="float32")
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        plain = model.module(input_ids=ids).logits
        flat = RECOVERY.load("temperature")(temperature=4.0).recover(model, None).module(input_ids=ids).logits
    torch.testing.assert_close(flat, plain / 4)


@pytest.mark.usefixtures("installed")
def test_the_task_asks_each_sum_once_and_a_limit_is_a_part_of_it() -> None:
    from harness.scoring import Score

    task = KNOWLEDGE.load("sums")()
    info, items = task.build(None)
    assert info.n_items == len(items) == len({item.digest for item in items}) == 64
    part, few = KNOWLEDGE.load("sums")(limit=10).build(None)
    assert {item.digest for item in few} < {item.digest for item in items}
    assert (part.n_items, part.spec_digest) == (10, info.spec_digest)
    item = items[0]
    requests = task.requests(item)
    assert requests[item.gold[0]].context + requests[item.gold[0]].continuation + requests[0].after == "2 plus 2 is 4."
    answers = [Score(-float(abs(i - item.gold[0])) - 1, False, 1) for i in range(len(requests))]
    assert task.outcome(item, answers).correct
    assert "2 plus 2 is 4." in set(task.probe_sentences())


@pytest.fixture
def tasks(blocks: Callable[..., list[str]], tmp_path: Path) -> dict[str, TaskEntry]:
    """The tasks of the page's matrix entries, added to the shipped matrix; one more grid asks them of a model."""
    shipped = (TESTS.parent / "suites" / "matrix.toml").read_text()
    added = [text for text in blocks(ADDING, "toml") if "project" not in tomllib.loads(text)]
    names = [name for text in added for name in tomllib.loads(text).get("tasks", {})]
    grid = 'models = ["qwen"]\ncompressions = ["small-threshold"]\nrecoveries = ["none"]'
    path = tmp_path / "matrix.toml"
    path.write_text("\n".join([shipped, *added, f'[[grid]]\nprofiles = ["gpu"]\n{grid}\ntasks = {names}\n']))
    cells = read_matrix(path, "gpu").cells
    assert {"qwen_none_none", "qwen_4bit-rtn_none", "qwen_small-threshold_none"} <= set(cells)
    return dict(cells["qwen_small-threshold_none"].tasks)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["atlas", "capitals", "riddles", pytest.param("copa", marks=pytest.mark.slow)])
def test_the_matrix_entries_read_and_name_fields_that_their_suites_have(tasks: dict[str, TaskEntry], name: str) -> None:
    entry = tasks[name]
    assert set(entry.options) <= set(KNOWLEDGE.load(entry.suite).__dataclass_fields__)


def test_the_facts_files_are_a_fact_book(blocks: Callable[..., list[str]], tmp_path: Path) -> None:
    from harness.models.tiny_tokenizers import tiny_tokenizer

    relations, fact = blocks(ADDING, "json")
    (tmp_path / "relations.json").write_text(relations)
    (tmp_path / "facts.jsonl").write_text(fact)
    (item,) = KNOWLEDGE.load("facts")(folder=tmp_path).build(tiny_tokenizer())[1]
    assert (item.prompt, {item.options[i] for i in item.gold}) == ("The capital of Norway is [Y].", {"Oslo"})


def test_the_lama_shaped_lines_are_facts_at_a_blank(blocks: Callable[..., list[str]], tmp_path: Path) -> None:
    from harness.models.tiny_tokenizers import bert_tokenizer

    (lines,) = blocks(ADDING, "jsonl")
    (tmp_path / "capitals.jsonl").write_text(lines)
    task = KNOWLEDGE.load("lama")(file=tmp_path / "capitals.jsonl")
    assert list(task.probe_sentences()) == ["The capital of Norway is Oslo .", "The capital of Peru is Lima ."]
    _, items = task.build(bert_tokenizer([lines.lower()] * 2, n_pieces=200))
    assert [item.options for item in items] == [("Oslo",), ("Lima",)]


def test_the_task_file_is_a_task_of_ones_own(blocks: Callable[..., list[str]], tmp_path: Path) -> None:
    (text,) = (block for block in blocks(ADDING, "yaml") if block.startswith("task: riddles"))
    (tmp_path / "riddles.yaml").write_text(text)
    (tmp_path / "riddles.jsonl").write_text(
        '{"question": "What has hands?", "choices": ["a clock", "a river"], "answer": 0}\n'
    )
    _, (item,) = KNOWLEDGE.load("lm_eval")(file=tmp_path / "riddles.yaml", metric="acc").build(None)
    assert (item.options, item.gold) == (("a clock", "a river"), (0,))


@pytest.mark.usefixtures("installed")
def test_the_statistic_is_cohen_s_kappa() -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    module = importlib.import_module(f"{PACKAGE}.stats.agreement")
    assert doctest.testmod(module).failed == 0
    both, lost, gained, neither = 50, 10, 5, 35
    found = module.kappa(PairedCounts(n_lost=lost, n_gained=gained, n_unchanged=both + neither), both + lost)
    assert found == pytest.approx(inter_rater.cohens_kappa([[both, lost], [gained, neither]]).kappa)
    assert isinstance(module.kappa(PairedCounts(0, 0, 10), 10), NotEstimable)


@pytest.mark.usefixtures("installed")
def test_the_section_is_on_the_page_after_the_shipped_ones(tmp_path: Path) -> None:
    bundle = synthetic().make_bundle()
    page = write_report(tmp_path, bundle).read_text()
    entry = next(cell for cell in bundle.cells if isinstance(cell, CellRun))
    assert page.index('id="not_measured"') < page.index('id="timing"')
    assert f"{entry.record.cell.id}-" in page[page.index('id="timing"') :]


def synthetic() -> Any:
    """The synthetic run that the report's own tests draw."""
    spec = importlib.util.spec_from_file_location("docs_synthetic", TESTS / "report" / "synthetic.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
