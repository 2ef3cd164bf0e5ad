"""Our requests, right options and verdicts beside those of lm-eval's own index and task objects, on real data of the mirror.

lm-eval finds a task by its own ``TaskManager`` and gets its rows from a reader of files that is written here, so that neither
our index, nor our reading of task files, nor our mirror is on both sides.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.core.records import Item
from harness.knowledge.lm_eval import LmEval
from harness.models.tiny_tokenizers import tiny_tokenizer
from harness.scoring import Answer, Generated, Prompt, Request, Score

HUB = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[3] / "shared" / "data" / "hub")
N_DOCUMENTS = 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HUB.is_dir(), reason=f"no data mirror here ({HUB}; HARNESS_DATA names one)"),
]

TASKS = [
    # those of suites/matrix.toml
    ("arc_easy", "acc_norm", None),
    ("arc_challenge", "acc_norm", 25),
    ("sciq", "acc", None),
    ("piqa", "acc_norm", 3),
    ("hellaswag", "acc_norm", 10),
    ("winogrande", "acc", 5),
    ("lambada_openai", "acc", 1),
    ("race", "acc", None),
    ("boolq", "acc", 2),
    ("webqs", "exact_match", None),
    ("triviaqa", "exact_match", 5),
    ("mmlu", "acc", 5),
    # and other kinds of prompts, options, examples and filters
    ("ai2_arc", "acc", 5),
    ("arc_challenge_chat", "exact_match", None),
    ("arc_challenge_llama", "exact_match", None),
    ("commonsense_qa", "acc", 7),
    ("gsm8k", "exact_match", None),
    ("gsm8k_cot", "exact_match", None),
    ("gsm8k_cot_llama", "exact_match", None),
    ("lambada_openai_cloze_yaml", "acc", None),
    ("logiqa", "acc_norm", 3),
    ("nq_open", "exact_match", 5),
    ("openbookqa", "acc_norm", 4),
    ("pubmedqa", "acc", None),
    ("cb", "acc", 3),
    ("copa", "acc", 2),
    ("multirc", "acc", 2),
    ("wic", "acc", 5),
    ("wsc", "acc", 3),
    ("super_glue-wsc-t5-prompt", "accuracy", None),
    ("super_glue-copa-t5-prompt", "exact_match", None),
    ("mmlu_stem_continuation", "acc", 2),
    ("mmlu_flan_cot_fewshot", "exact_match", None),
    ("mmlu_flan_n_shot_loglikelihood_anatomy", "acc", 2),
]


def read_mirror(path: str, name: str | None = None, **_: Any) -> Any:
    """What ``datasets.load_dataset`` would give: every split of a folder of parquet files."""
    import datasets

    folders = [folder for folder in (HUB / path / (name or "."), HUB / path) if any(folder.glob("*.parquet"))]
    only = [folder for folder in (HUB / path).iterdir() if folder.is_dir()]
    files = sorted((folders or only)[0].glob("*.parquet"))
    return datasets.DatasetDict({file.stem: datasets.Dataset(pq.read_table(file)) for file in files})


@pytest.fixture(scope="module")
def manager() -> Iterator[Any]:
    import datasets
    from lm_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", read_mirror)
        yield TaskManager()


def number_of(item: Item) -> int:
    return int(item.id.rpartition("/")[2].partition("-")[0])


def asked(requests: tuple[Request, ...] | tuple[Prompt, ...]) -> list[Any]:
    return [r.context if isinstance(r, Prompt) else (r.context, r.continuation) for r in requests]


def made_up(
    requests: tuple[Request, ...] | tuple[Prompt, ...], gold: str, trial: int, rng: np.random.Generator
) -> list[Answer]:
    if isinstance(requests[0], Prompt):
        texts = (gold, f"The answer is {gold}.", f"#### {gold.rpartition('#### ')[2]}", "nonsense 17")
        return [Generated(texts[trial], 3)]
    return [Score(float(-1 - 10 * rng.random()), bool(rng.random() < 0.5), 2) for _ in requests]


@pytest.mark.parametrize(("name", "metric", "shots"), TASKS)
def test_requests_gold_and_verdicts_are_lm_evals_own(name: str, metric: str, shots: int | None, manager: Any) -> None:
    ours = LmEval(task=name, metric=metric, num_fewshot=shots, data=HUB)
    items: dict[str, dict[int, Item]] = defaultdict(dict)
    for item in ours.build(tiny_tokenizer())[1]:
        items[item.group][number_of(item)] = item
    tasks = manager.load([name])["tasks"]
    assert set(items) == set(tasks)
    rng = np.random.default_rng(1)
    for group, task in tasks.items():
        assert list(items[group]) == sorted(items[group])
        task.set_config(key="num_fewshot", value=shots if shots is not None else task.get_config("num_fewshot") or 0)
        task.set_fewshot_seed(seed=1234)
        task.build_all_requests(limit=N_DOCUMENTS, rank=0, world_size=1)
        instances: dict[int, list[Any]] = defaultdict(list)
        for instance in task.instances:
            instances[instance.doc_id].append(instance)
        assert len(instances) == min(N_DOCUMENTS, len(items[group]))
        for number, theirs in instances.items():
            item, requests = items[group][number], ours.requests(items[group][number])
            generates = isinstance(requests[0], Prompt)
            assert asked(requests) == [i.args[0] if generates else i.args for i in theirs]
            for trial in range(4):
                answers = made_up(requests, item.options[item.gold[0]], trial, rng)
                for instance, answer in zip(theirs, answers, strict=True):
                    text_or_pair = answer.text if isinstance(answer, Generated) else (answer.loglik_nats, answer.is_greedy)
                    instance.resps, instance.filtered_resps = [text_or_pair] * instance.repeats, {}
                task._filters[0].apply(theirs)
                taken = [instance.filtered_resps[task._filters[0].name] for instance in theirs]
                verdict, outcome = task.process_results(theirs[0].doc, taken)[metric], ours.outcome(item, answers)
                assert outcome.correct == verdict, (item.id, trial)
                assert outcome.correct == (outcome.answer in item.gold), (item.id, trial)
