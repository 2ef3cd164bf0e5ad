"""Our measuring beside ``lm_eval.simple_evaluate`` with its ``hf`` model class: the same model, files and data."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.core.records import Item, ItemOutcome
from harness.knowledge.lm_eval import LmEval
from harness.knowledge.task_plan import package_folder
from harness.models.decoder import Decoder
from harness.models.loaded import LoadedModel
from harness.models.tiny import make_tiny
from harness.models.tiny_tokenizers import tiny_tokenizer
from harness.scoring import Generated
from harness.scoring.decoder import DecoderScorer
from harness.scoring.generate import GreedyGenerator

HUB = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[3] / "shared" / "data" / "hub")

CITIES = ("Paris", "Berlin", "Lisbon", "Tokyo", "Rome", "Ottawa", "Nairobi", "Athens", "Madrid", "Oslo", "Riga", "Lima")


def cities(first: int, n: int) -> list[str]:
    return [CITIES[(first + 5 * i) % len(CITIES)] for i in range(n)]


def arc(split: str, n: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{split}-{i}",
            "question": f"Which city did {CITIES[i % 12]} number {i} of {split} visit?",
            "choices": {"text": cities(i, 4), "label": ["A", "B", "C", "D"]},
            "answerKey": "ABCD"[i * i % 4],
        }
        for i in range(n)
    ]


def winogrande(n: int) -> list[dict[str, Any]]:
    return [
        {
            "sentence": f"The people of {a} spoke more than those of {b}, so _ was the louder city in year {i}.",
            "option1": a,
            "option2": b,
            "answer": "12"[i % 2],
        }
        for i, (a, b) in enumerate(cities(i, 2) for i in range(n))
    ]


def trivia(n: int) -> list[dict[str, Any]]:
    return [
        {"question": f"Where is {city}", "question_id": str(i), "answer": {"aliases": [city, "e", "o"], "value": city}}
        for i, city in enumerate(cities(3, n))
    ]


DATA: dict[str, list[dict[str, Any]]] = {
    "allenai/ai2_arc/ARC-Easy/test": arc("test", 14),
    "allenai/ai2_arc/ARC-Easy/train": arc("train", 20),
    "allenai/ai2_arc/ARC-Easy/validation": arc("validation", 4),
    "allenai/winogrande/winogrande_xl/train": winogrande(9),
    "allenai/winogrande/winogrande_xl/validation": winogrande(12),
    "EleutherAI/lambada_openai/default/test": [{"text": f"The capital of {c} is near {c}"} for c in CITIES],
    "mandarjoshi/trivia_qa/rc.nocontext/train": trivia(6),
    "mandarjoshi/trivia_qa/rc.nocontext/validation": trivia(5),
    "stanfordnlp/web_questions/train": [{"question": "Where?", "answers": ["there"]}],
    "stanfordnlp/web_questions/test": [{"question": f"Where is {c}?", "answers": cities(i, 3)} for i, c in enumerate(CITIES)],
}
FILES = {
    "arc_easy": "arc/arc_easy.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "triviaqa": "triviaqa/default.yaml",
    "webqs": "webqs/webqs.yaml",
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up mirror, with the data sets' own columns."""
    folder = tmp_path_factory.mktemp("mirror")
    for name, rows in DATA.items():
        file = folder / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), file)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = make_tiny(tmp_path_factory.mktemp("tiny"), "llama", max_position_embeddings=1024)
    return Decoder().load(folder, device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def no_description_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval adds one to its results, which takes two seconds."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@dataclass
class Found:
    """What lm-eval found, document by document."""

    arguments: dict[int, list[Any]]
    responses: dict[int, list[Any]]
    values: dict[int, float]
    mean: float


def lm_eval_finds(
    model: LoadedModel, task: LmEval, mirror: Path, folder: Path, *, changes: Mapping[str, Any] | None = None
) -> Found:
    """``simple_evaluate`` on lm-eval's own task file, its data read by the library's loader from the mirror."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    name = task.task or ""
    plan = task._plans[0]
    dataset = mirror / plan.leaf.config["dataset_path"]
    config = plan.leaf.config.get("dataset_name")
    files = {file.stem: str(file) for file in dataset.glob(f"{config or '.'}/*.parquet")}
    own = {
        "include": str(package_folder("lm_eval") / "tasks" / FILES[name]),
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder)},
        **(changes or {}),
    }
    (folder / "own.yaml").write_text(json.dumps(own), encoding="utf-8")
    found = simple_evaluate(
        model=HFLM(pretrained=model.module, tokenizer=copy.deepcopy(model.tokenizer), batch_size=1, device="cpu"),
        tasks=[str(folder / "own.yaml")],
        num_fewshot=task.num_fewshot,
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    assert found is not None
    rows = [row for row in found["samples"][name] if row["filter"] == plan.filter]
    return Found(
        arguments={row["doc_id"]: row["arguments"] for row in rows},
        responses={row["doc_id"]: [response[0] for response in row["resps"]] for row in rows},
        values={row["doc_id"]: row[task.metric] for row in rows},
        mean=found["results"][name][f"{task.metric},{plan.filter}"],
    )


def measure(model: LoadedModel, task: LmEval) -> dict[int, tuple[Item, list[Any], list[Any], ItemOutcome]]:
    """Our side: item, requests, answers and outcome by document number."""
    _, items = task.build(model.tokenizer)
    requests = [list(task.requests(item)) for item in items]
    engine: Any = GreedyGenerator(model) if task.kind == "generation" else DecoderScorer(model)
    answers = engine.generate(requests) if task.kind == "generation" else engine.score(requests)
    return {
        int(item.id.rpartition("/")[2].partition("-")[0]): (item, asked, came, task.outcome(item, came))
        for item, asked, came in zip(items, requests, answers, strict=True)
    }


CASES = [
    ("arc_easy", "acc", 0),
    ("arc_easy", "acc_norm", 0),
    ("arc_easy", "acc", 5),
    ("winogrande", "acc", 0),
    ("winogrande", "acc", 3),
    ("lambada_openai", "acc", 0),
    ("lambada_openai", "acc", 2),
    ("webqs", "exact_match", 0),
    ("triviaqa", "exact_match", 0),
    ("triviaqa", "exact_match", 2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_requests_answers_and_verdicts_are_those_of_simple_evaluate(
    case: tuple[str, str, int], model: LoadedModel, mirror: Path, tmp_path: Path
) -> None:
    name, metric, shots = case
    task = LmEval(task=name, metric=metric, num_fewshot=shots or None, data=mirror)
    ours, theirs = measure(model, task), lm_eval_finds(model, task, mirror, tmp_path)
    assert list(ours) == list(theirs.values)  # every document, in lm-eval's own order
    for number, (item, asked, came, outcome) in ours.items():
        if task.kind == "generation":
            assert [prompt.context for prompt in asked] == [context for context, _ in theirs.arguments[number]]
            assert [answer.text for answer in came] == theirs.responses[number]
            assert isinstance(came[0], Generated)
        else:
            assert [(request.context, request.continuation) for request in asked] == theirs.arguments[number]
            for answer, (loglik, greedy) in zip(came, theirs.responses[number], strict=True):
                assert answer.loglik_nats == pytest.approx(loglik, abs=1e-3)
                assert answer.is_greedy == greedy
        assert outcome.correct == theirs.values[number], item.id
    assert sum(outcome.correct for *_, outcome in ours.values()) / len(ours) == pytest.approx(theirs.mean)


def test_ties_are_decided_as_lm_eval_decides_them(model: LoadedModel, mirror: Path, tmp_path: Path) -> None:
    """Every option has the same text: lm-eval gives the first, so a third of twelve documents here are right."""
    same = [{**row, "choices": {"text": ["Paris"] * 4, "label": ["A", "B", "C", "D"]}} for row in arc("tie", 12)]
    for split in ("test", "train", "validation"):
        file = tmp_path / "allenai" / "ai2_arc" / "ARC-Easy" / f"{split}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(same), file)
    task = LmEval(task="arc_easy", metric="acc", data=tmp_path)
    ours, theirs = measure(model, task), lm_eval_finds(model, task, tmp_path, tmp_path)
    verdicts = [outcome.correct for *_, outcome in ours.values()]
    assert verdicts == list(theirs.values.values())
    assert 0 < sum(verdicts) < 12
    assert all(outcome.near_tie and outcome.answer == 0 for *_, outcome in ours.values())


def test_mutual_information_is_lm_evals(model: LoadedModel, mirror: Path, tmp_path: Path) -> None:
    listed = [{"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}]
    file = tmp_path / "mutual.yaml"
    installed = package_folder("lm_eval") / "tasks" / FILES["arc_easy"]
    file.write_text(json.dumps({"include": str(installed), "metric_list": listed}), encoding="utf-8")
    task = LmEval(file=file, metric="acc_mutual_info", data=mirror)
    ours = measure(model, task)
    named = LmEval(task="arc_easy", metric="acc_mutual_info", include=tmp_path, data=mirror)
    theirs = lm_eval_finds(model, named, mirror, tmp_path, changes={"metric_list": listed})
    assert [outcome.correct for *_, outcome in ours.values()] == list(theirs.values.values())
    assert all(len(asked) == 8 for _, asked, _, _ in ours.values())


# ------------------------------------------------------------------------------------------------ on the real data


REAL = [
    ("arc_challenge", "acc_norm", "allenai/ai2_arc", 0.25),
    ("sciq", "acc", "allenai/sciq", 0.25),
    ("piqa", "acc", "baber/piqa", 0.5),
    ("hellaswag", "acc_norm", "Rowan/hellaswag", 0.25),
    ("openbookqa", "acc_norm", "allenai/openbookqa", 0.25),
    ("boolq", "acc", "aps/super_glue", 0.5),
    ("race", "acc", "EleutherAI/race", 0.25),
    ("logiqa", "acc_norm", "EleutherAI/logiqa", 0.25),
    ("pubmedqa", "acc", "bigbio/pubmed_qa", 1 / 3),
    ("commonsense_qa", "acc", "tau/commonsense_qa", 0.2),
    ("nq_open", "exact_match", "google-research-datasets/nq_open", 0.0),
    ("gsm8k", "exact_match", "openai/gsm8k", 0.0),
]


def needs(path: str) -> Path:
    if not (HUB / path).is_dir():
        pytest.skip(f"no data mirror here ({HUB / path}; HARNESS_DATA names one)")
    return HUB


@pytest.mark.parametrize(("name", "metric", "path", "chance"), REAL)
def test_the_papers_tasks_build_from_the_mirror(name: str, metric: str, path: str, chance: float) -> None:
    info, items = LmEval(task=name, metric=metric, data=needs(path), limit=5).build(tiny_tokenizer())
    assert len(items) == 5
    assert info.chance == pytest.approx(chance, abs=0.01)
    assert info.pooled


@pytest.mark.slow
def test_mmlu_is_one_task_of_57_groups() -> None:
    info, items = LmEval(task="mmlu", metric="acc", data=needs("cais/mmlu")).build(tiny_tokenizer())
    assert len({item.group for item in items}) == 57
    assert info.chance == 0.25
    assert info.data_version.startswith("57 data sets ")


@pytest.mark.slow
def test_names_mean_what_they_mean_to_lm_eval() -> None:
    """Members of groups and tags, by the index that lm-eval builds out of every file it has."""
    from lm_eval.tasks import TaskManager

    from harness.knowledge.task_index import TaskFolder, find_leaves

    index = TaskManager().task_index
    folders = [TaskFolder.scan(package_folder("lm_eval") / "tasks", strict=False)]
    for name, entry in sorted(index.items())[::400]:
        leaves = {leaf.name: leaf.file.path for leaf in find_leaves(name, folders)}
        if entry.kind.name == "TAG":
            assert set(leaves) == entry.tags
        elif entry.kind.name == "TASK":
            assert leaves == {name: entry.yaml_path}
