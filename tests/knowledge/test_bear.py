"""BEAR: whole sentences over closed answer sets, in the mirror's layout, the hub's and the authors' own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from lm_eval.models.huggingface import HFLM  # noqa: TID251 - the reference that we are compared with

from harness.core.errors import ConfigError, DownloadError, FileFormatError
from harness.knowledge.bear import NOT_SAMPLED, Bear
from harness.knowledge.bear_facts import load_bear
from harness.models import MODELS
from harness.models.tiny import make_tiny
from harness.scoring import SCORERS, Request

HUB = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[3] / "shared" / "data" / "hub")
SUITE_MODELS = Path(__file__).parents[2] / "suites" / "models"

RELATIONS: dict[str, dict[str, Any]] = {
    "P36": {
        "templates": ["The capital of [X] is [Y].", "[Y] is the capital of [X].", "[X] is governed from [Y]."],
        "answer_space_labels": ["Lima", "the Hague", "Rome"],
    },
    "P30": {"templates": ["[X] lies in [Y].", "[Y] holds [X].", "[X] is in [Y]."], "answer_space_labels": ["Africa", "Asia"]},
}
FACTS = [
    {"predicate_id": "P36", "sub_label": "Peru", "obj_label": "Lima", "answer_idx": 0},
    {"predicate_id": "P36", "sub_label": "the Netherlands", "obj_label": "the Hague", "answer_idx": 1},
    {"predicate_id": "P30", "sub_label": "Chad", "obj_label": "Africa", "answer_idx": 0},
]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror" / "lm-pub-quiz" / "BEAR"
    tables = {"BEAR": FACTS, "relations": [{"predicate_id": code, **entry} for code, entry in RELATIONS.items()]}
    for name, rows in tables.items():
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / name / "test.parquet")
    return tmp_path / "mirror"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_folder(relations: Any = RELATIONS, facts: Any = FACTS) -> Path:
        folder = tmp_path / "authors"
        folder.mkdir(exist_ok=True)
        (folder / "metadata_relations.json").write_text(json.dumps(relations), encoding="utf-8")
        for code in relations:
            lines = [
                json.dumps({k: v for k, v in fact.items() if k != "predicate_id"})
                for fact in facts
                if fact["predicate_id"] == code
            ]
            (folder / f"{code}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return folder

    return write_folder


def test_both_layouts_give_the_same_items(mirror: Path, write: Callable[..., Path]) -> None:
    info, items = Bear(data=mirror).build(None)  # type: ignore[arg-type]
    without_place = [{key: value for key, value in fact.items() if key != "answer_idx"} for fact in FACTS]
    for facts in (FACTS, without_place):
        assert set(Bear(folder=write(facts=facts)).build(None)[1]) == set(items)  # type: ignore[arg-type]
    assert [item.prompt for item in items] == [
        "The capital of Peru is [Y].",
        "The capital of the Netherlands is [Y].",
        "Chad lies in [Y].",
    ]
    assert [item.gold for item in items] == [(0,), (1,), (0,)]
    assert info.chance == pytest.approx((1 / 3 + 1 / 3 + 1 / 2) / 3)
    assert info.excluded == {}


def hub_rows() -> list[dict[str, Any]]:
    """The facts in the columns that lm-pub-quiz/BEAR has on the hub: a row a fact and wording."""
    return [
        {
            "composite_id": f"{fact['predicate_id']}-{item}-{wording}",
            "relation": fact["predicate_id"],
            "item": item,
            "template_index": wording,
            "template": template,
            "subject": fact["sub_label"],
            "answer_options": RELATIONS[fact["predicate_id"]]["answer_space_labels"],
            "correct": fact["answer_idx"],
            "text_options": [],
        }
        for item, fact in enumerate(FACTS)
        for wording, template in enumerate(RELATIONS[fact["predicate_id"]]["templates"])
    ]


@pytest.fixture
def on_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[dict[str, Any]]], None]:
    """Rows in place of what the hub gives."""

    def put(rows: list[dict[str, Any]]) -> None:
        monkeypatch.setattr("harness.knowledge.data_source.head_commit", lambda path, revision: "c0ffee")
        monkeypatch.setattr(
            "harness.knowledge.data_source.HubData.load",
            lambda source, splits: {"test": Dataset.from_list(rows)} if source.name == "BEAR" else {},
        )

    return put


def test_the_hubs_layout_gives_the_same_items(mirror: Path, on_hub: Any, tmp_path: Path) -> None:
    """Out of the hub itself, or a copy of its folder in the mirror."""
    on_hub(hub_rows())
    copied = tmp_path / "copied" / "lm-pub-quiz" / "BEAR" / "BEAR"
    copied.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(hub_rows()), copied / "test.parquet")
    for template in (0, "all"):
        info, items = Bear(data=mirror, template=template).build(None)  # type: ignore[arg-type]
        for data in (None, tmp_path / "copied"):
            found, same = Bear(data=data, template=template).build(None)  # type: ignore[arg-type]
            assert (same, found.spec_digest) == (items, info.spec_digest)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: [*rows, rows[0]], "'Peru' is asked twice in P36"),
        (lambda rows: rows[1:], r"'Peru' is asked in the wordings \[1, 2\] of P36"),
        (lambda rows: [{**rows[0], "template": "[X]: [Y]"}, *rows[1:]], "of P36 has another template or other answers"),
        (lambda rows: [{**rows[0], "correct": None}, *rows[1:]], "has no 'correct'"),
        (lambda rows: [{**rows[0], "correct": 2}, *rows[1:]], "is asked in the wordings"),
    ],
)
def test_a_table_of_the_hub_that_contradicts_itself_is_refused(change: Any, sentence: str, on_hub: Any) -> None:
    on_hub(change(hub_rows()))
    with pytest.raises(FileFormatError, match=sentence):
        Bear().build(None)  # type: ignore[arg-type]


def test_without_a_network_the_hub_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(path: str, revision: str | None) -> str:
        raise OSError("no network")

    monkeypatch.setattr("harness.knowledge.data_source.head_commit", offline)
    for data, looked_for in ((tmp_path, "there is no folder"), (None, "no mirror was given")):
        with pytest.raises(DownloadError, match=rf"BEAR could not be fetched from the hub \(no network\), and {looked_for}"):
            Bear(data=data).build(None)  # type: ignore[arg-type]


def test_a_sentence_begins_with_a_capital_whatever_it_begins_with(mirror: Path) -> None:
    task = Bear(data=mirror, template="all", relations=["P36"])
    _, items = task.build(None)  # type: ignore[arg-type]
    assert len(items) == 6
    asked = {request.context + request.continuation + request.after for item in items for request in task.requests(item)}
    assert {"The Hague is the capital of the Netherlands.", "The Netherlands is governed from the Hague."} <= asked
    assert "The Hague is the capital of the Netherlands." in set(task.probe_sentences())
    assert all(sentence[0].isupper() for sentence in asked)


def test_a_fixed_sample_asks_the_same_facts_in_every_wording(mirror: Path) -> None:
    drawn = {}
    for template in (0, 1, "all"):
        info, items = Bear(data=mirror, n_facts=2, template=template).build(None)  # type: ignore[arg-type]
        assert info.excluded == {NOT_SAMPLED: 1}
        drawn[template] = {item.id.partition(".")[0] for item in items}
    assert drawn[0] == drawn[1] == drawn["all"]
    assert len(drawn[0]) == 2


@pytest.mark.parametrize("family", SCORERS)
def test_every_family_ranks_whole_sentences(family: str, mirror: Path, tmp_path: Path) -> None:
    folder = {"encoder": SUITE_MODELS / "tiny-bert", "seq2seq": SUITE_MODELS / "tiny-t5"}.get(family) or make_tiny(
        tmp_path / "m"
    )
    model = MODELS.load(family)().load(folder, device="cpu", dtype="float32")
    task = Bear(data=mirror)
    _, items = task.build(model.tokenizer)
    answers = SCORERS.load(family)(model).score([task.requests(item) for item in items])
    outcomes = [task.outcome(item, found) for item, found in zip(items, answers, strict=True)]
    assert [len(one.option_logliks_nats) for one in outcomes] == [3, 3, 2]
    if family == "decoder":  # behind BOS, the whole sentence
        theirs = HFLM(pretrained=model.module, tokenizer=model.tokenizer, device="cpu", batch_size=4)
        from lm_eval.api.instance import Instance  # noqa: TID251

        whole = [r.context + r.continuation + r.after for item in items for r in task.requests(item)]
        asked = [Instance("loglikelihood", {}, ("", text), i) for i, text in enumerate(whole)]
        expected = [loglik for loglik, _ in theirs.loglikelihood(asked, disable_tqdm=True)]
        assert [x for one in outcomes for x in one.option_logliks_nats] == pytest.approx(expected, abs=1e-3)


def change(entry: str, **fields: Any) -> dict[str, dict[str, Any]]:
    return {**RELATIONS, entry: {**RELATIONS[entry], **fields}}


@pytest.mark.parametrize(
    ("relations", "facts", "error", "sentence"),
    [
        (change("P36", templates=["[X] is [X]."]), FACTS, FileFormatError, r"must hold one \[X\] and one \[Y\]"),
        (change("P36", templates=None), FACTS, FileFormatError, "has no 'templates'"),
        (change("P36", answer_space_labels=["Lima", "Lima", "Rome"]), FACTS, FileFormatError, "each once"),
        (RELATIONS, [*FACTS, FACTS[0]], FileFormatError, "'Peru' is asked twice in P36"),
        (RELATIONS, [{**FACTS[0], "answer_idx": 7}], FileFormatError, "answer 7 of P36"),
        (
            RELATIONS,
            [{**FACTS[0], "answer_idx": None, "obj_label": "Quito"}],
            FileFormatError,
            "'Quito' is not in the answer set",
        ),
        (RELATIONS, [], ConfigError, "has no facts"),
    ],
)
def test_a_folder_that_cannot_be_asked_is_refused_in_one_sentence(
    relations: Any, facts: Any, error: type[Exception], sentence: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(error, match=sentence):
        Bear(folder=write(relations, facts)).build(None)  # type: ignore[arg-type]


def test_wrong_fields_are_refused(mirror: Path) -> None:
    for fields, sentence in (
        ({"data": mirror, "template": 5}, "words P36 in 3 ways"),
        ({"data": mirror, "template": "some"}, 'expected 0, 1, … or "all"'),
        ({"data": mirror, "n_facts": 0}, "expected 1 or more"),
        ({"data": mirror, "relations": ["P1"]}, "no relation 'P1'"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            Bear(**fields).build(None)  # type: ignore[arg-type]


def test_the_mirrors_bear_is_whole() -> None:
    if not (HUB / "lm-pub-quiz" / "BEAR").is_dir():
        pytest.skip(f"no data mirror here ({HUB}; HARNESS_DATA names one)")
    book = load_bear(HUB, None)
    assert len(book.facts) == 7_731
    assert len(book.relations) == 60
    assert {len(relation.templates) for relation in book.relations.values()} == {3}


def test_requests_keep_the_space_with_the_answer(mirror: Path) -> None:
    task = Bear(data=mirror)
    _, items = task.build(None)  # type: ignore[arg-type]
    assert task.requests(items[0])[0] == Request("The capital of Peru is", " Lima", ".", "sentence")
