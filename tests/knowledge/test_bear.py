"""BEAR: whole sentences over closed answer sets, in the mirror's layout, the hub's and the authors' own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from lm_eval.models.huggingface import HFLM  # noqa: TID251 - the reference that we are compared with

from harness.core.errors import ConfigError, DownloadError, FileFormatError, ModelError, ScoreError
from harness.core.records import Item
from harness.knowledge.bear import MERGED, NOT_SAMPLED, Bear
from harness.knowledge.bear_facts import load_bear
from harness.knowledge.sentences import BEYOND_WINDOW, SPECIAL_TOKENS
from harness.knowledge.words import encode_all
from harness.models import MODELS
from harness.models.folders import config_of
from harness.models.loaded import LoadedModel
from harness.models.sources import ResolvedModel
from harness.models.tiny import make_tiny, tiny_family
from harness.models.tiny_tokenizers import tiny_tokenizer
from harness.scoring import SCORERS, Request, Score, is_cut
from harness.scoring.encoder import window_of_config

HUB = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[3] / "shared" / "data" / "hub")
SUITE_MODELS = Path(__file__).parents[2] / "suites" / "models"

TOKENIZER = tiny_tokenizer()
"""Joins little, and has no window: whoever takes it is asked all there is."""

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
    info, items = Bear(data=mirror).build(TOKENIZER)
    without_place = [{key: value for key, value in fact.items() if key != "answer_idx"} for fact in FACTS]
    for facts in (FACTS, without_place):
        assert set(Bear(folder=write(facts=facts)).build(TOKENIZER)[1]) == set(items)
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
        info, items = Bear(data=mirror, template=template).build(TOKENIZER)
        for data in (None, tmp_path / "copied"):
            found, same = Bear(data=data, template=template).build(TOKENIZER)
            assert (same, found.spec_digest) == (items, info.spec_digest)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: [*rows, rows[0]], "'Peru' is asked twice in P36"),
        (lambda rows: rows[1:], r"'Peru' is asked in the wordings \[1, 2\] of P36"),
        (lambda rows: [{**rows[0], "template": "[X]: [Y]"}, *rows[1:]], "of P36 has another template or other answers"),
        (lambda rows: [{**rows[0], "correct": None}, *rows[1:]], "has no 'correct'"),
        (lambda rows: [{**rows[0], "correct": 2}, *rows[1:]], "is asked in the wordings"),
        (
            lambda rows: [{**row, "correct": "Oslo"} for row in rows],
            "'Peru' of P36: correct is 'Oslo', expected a whole number",
        ),
        (lambda rows: [{**row, "correct": 9} for row in rows], "has answer 9 of P36, which has none such; restore the data"),
        (lambda rows: [{**row, "answer_options": ["Lima", None]} for row in rows], "one of answer_options is None"),
        (lambda rows: [{**row, "template": "[X] is here."} for row in rows], r"must hold one \[X\] and one \[Y\]"),
    ],
)
def test_a_table_of_the_hub_that_contradicts_itself_is_refused(change: Any, sentence: str, on_hub: Any) -> None:
    on_hub(change(hub_rows()))
    with pytest.raises(FileFormatError, match=sentence):
        Bear().build(TOKENIZER)


def test_without_a_network_the_hub_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(path: str, revision: str | None) -> str:
        raise OSError("no network")

    monkeypatch.setattr("harness.knowledge.data_source.head_commit", offline)
    for data, looked_for in ((tmp_path, "there is no folder"), (None, "no mirror was given")):
        with pytest.raises(DownloadError, match=rf"BEAR could not be fetched from the hub \(no network\), and {looked_for}"):
            Bear(data=data).build(TOKENIZER)


def test_a_sentence_begins_with_a_capital_whatever_it_begins_with(mirror: Path) -> None:
    task = Bear(data=mirror, template="all", relations=["P36"])
    _, items = task.build(TOKENIZER)
    assert len(items) == 6
    asked = {request.context + request.continuation + request.after for item in items for request in task.requests(item)}
    assert {"The Hague is the capital of the Netherlands.", "The Netherlands is governed from the Hague."} <= asked
    assert "The Hague is the capital of the Netherlands." in set(task.probe_sentences())
    assert all(sentence[0].isupper() for sentence in asked)


def test_a_fixed_sample_asks_the_same_facts_in_every_wording(mirror: Path) -> None:
    drawn = {}
    for template in (0, 1, "all"):
        info, items = Bear(data=mirror, n_facts=2, template=template).build(TOKENIZER)
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
        ([1], FACTS, FileFormatError, r"metadata_relations\.json is JSON, but list"),
        ({"P36": "words"}, FACTS, FileFormatError, r"P36 is 'words': expected an object with `templates`"),
        (change("P36", templates=5), FACTS, FileFormatError, "P36: templates is 5, expected a list of texts"),
        (change("P36", templates="[X] [Y]"), FACTS, FileFormatError, "expected a list of texts"),
        (change("P36", templates=[5]), FACTS, FileFormatError, "one of templates is 5, expected a text"),
        (change("P36", answer_space_labels=["Lima", None]), FACTS, FileFormatError, "one of answer_space_labels is None"),
        (change("P36", answer_space_labels=["Lima", " "]), FACTS, FileFormatError, "one of answer_space_labels is ' '"),
        (change("P36", answer_space_labels=["Lima"]), FACTS, FileFormatError, "two answers or more, each once, and has 1"),
        *(
            (
                RELATIONS,
                [{**FACTS[0], "answer_idx": bad}],
                FileFormatError,
                rf"P36\.jsonl:1: answer_idx is {bad!r}, expected a",
            )
            for bad in ("zero", "0", 0.5, True)
        ),
        (RELATIONS, [{**FACTS[0], "answer_idx": [0]}], FileFormatError, r"answer_idx is \[0\], expected a whole number"),
        (RELATIONS, [{**FACTS[0], "answer_idx": float("nan")}], FileFormatError, r"P36\.jsonl:1 can't be read as JSON \(NaN"),
        (
            RELATIONS,
            [{**FACTS[0], "answer_idx": 2}],
            FileFormatError,
            "answer_idx 2 of P36 is 'Rome', and obj_label is 'Lima'",
        ),
        (RELATIONS, [{**FACTS[0], "sub_label": ""}], FileFormatError, r"P36\.jsonl:1: sub_label is '', expected a text"),
        *(
            (
                RELATIONS,
                [{**FACTS[0], "sub_label": f"the {blank}"}],
                FileFormatError,
                rf"the subject 'the {re.escape(blank)}' of P36 holds a blank, {re.escape(blank)}; correct it",
            )
            for blank in ("[X]", "[Y]")
        ),
    ],
)
def test_a_folder_that_cannot_be_asked_is_refused_in_one_sentence(
    relations: Any, facts: Any, error: type[Exception], sentence: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(error, match=sentence):
        Bear(folder=write(relations, facts)).build(TOKENIZER)


def test_a_mirror_that_tells_a_relation_twice_or_by_no_name_is_refused(mirror: Path) -> None:
    file = mirror / "lm-pub-quiz" / "BEAR" / "relations" / "test.parquet"
    told = pq.read_table(file).to_pylist()
    for rows, sentence in (
        ([*told, told[0]], "P36 is told twice"),
        ([{**row, "predicate_id": [row["predicate_id"]]} for row in told], r"predicate_id is \['P36'\], expected a text"),
    ):
        pq.write_table(pa.Table.from_pylist(rows), file)
        with pytest.raises(FileFormatError, match=sentence):
            Bear(data=mirror).build(TOKENIZER)


@pytest.mark.parametrize("name", ["../P36", "a/P36", "P\0"])
def test_a_relation_whose_name_is_no_files_is_refused(name: str, write: Callable[..., Path]) -> None:
    folder = write()
    relations = {**RELATIONS, name: RELATIONS["P36"]}
    (folder / "metadata_relations.json").write_text(json.dumps(relations), encoding="utf-8")
    with pytest.raises(FileFormatError, match=rf"json: the relation {re.escape(repr(name))} can't be the name of a file"):
        Bear(folder=folder).build(TOKENIZER)


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"relations": ["P1"]}, ConfigError, "no relation 'P1': it has P30, P36; correct the matrix"),
        ({"template": 3}, ConfigError, "words P36 in 3 ways, counted from 0, and template 3 is asked for; correct the matrix"),
        ({"folder": Path("nowhere")}, FileFormatError, "nowhere is no folder: .* correct `folder` in the matrix"),
    ],
)
def test_a_wrong_choice_is_told_with_what_to_do(fields: Any, error: Any, sentence: str, write: Callable[..., Path]) -> None:
    with pytest.raises(error, match=sentence):
        Bear(**{"folder": write(), **fields}).build(TOKENIZER)


def test_a_place_may_be_a_whole_number_as_a_table_writes_it(write: Callable[..., Path]) -> None:
    [asked] = Bear(folder=write(RELATIONS, [{**FACTS[1], "answer_idx": 1.0, "obj_label": None}])).build(TOKENIZER)[1]
    assert asked.gold == (1,)


def test_a_folder_with_a_relation_that_nobody_words_is_refused(write: Callable[..., Path]) -> None:
    folder = write()
    (folder / "P99.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(
        FileFormatError, match=r"has P99\.jsonl, and metadata_relations\.json does not tell how that is worded"
    ):
        Bear(folder=folder).build(TOKENIZER)


def test_a_line_is_counted_as_an_editor_counts_it(write: Callable[..., Path]) -> None:
    file = write() / "P36.jsonl"
    file.write_bytes(b"\xef\xbb\xbf\r\n\r\n" + file.read_bytes() + b'\n{"sub_label": "Mali"}\n')
    with pytest.raises(FileFormatError, match=r"P36\.jsonl:5 has no 'obj_label'"):
        Bear(folder=file.parent).build(TOKENIZER)


# ------------------------------------------------------------------------------------------------ what is left out


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadedModel]:
    def load_model(name: str, **changes: int) -> LoadedModel:
        """A tiny model of an architecture, or one of the suites', with the window that a run reads off its config."""
        folder = SUITE_MODELS / name if name.startswith("tiny-") else make_tiny(tmp_path_factory.mktemp(name), name, **changes)
        family = {"tiny-bert": "encoder", "tiny-t5": "seq2seq"}.get(name) or tiny_family(name)
        loaded: LoadedModel = MODELS.load(family)().load(folder, device="cpu", dtype="float32")
        tokenizer: Any = loaded.tokenizer
        tokenizer.model_max_length = window_of_config(loaded.module.config, tokenizer, family)
        return loaded

    return load_model


Load = Callable[..., LoadedModel]
Write = Callable[..., Path]


def relation(template: str, *answers: str) -> dict[str, Any]:
    return {"templates": [template], "answer_space_labels": list(answers)}


def facts_of(relations: dict[str, Any], *subjects: str) -> list[dict[str, Any]]:
    """Each relation asked of each subject, its answers right in turn."""
    return [
        {"predicate_id": code, "sub_label": subject, "answer_idx": i % len(entry["answer_space_labels"])}
        for code, entry in relations.items()
        for i, subject in enumerate(subjects)
    ]


def ask(task: Bear, items: Sequence[Item], model: LoadedModel) -> list[list[Score]]:
    found: list[list[Score]] = SCORERS.load(model.family)(model).score([task.requests(item) for item in items])
    return found


def texts_of(task: Bear, item: Item) -> list[str]:
    return [request.context + request.continuation + request.after for request in task.requests(item)]


@pytest.mark.parametrize("architecture", ["llama", "bert", "roberta", "t5"])
def test_a_sentence_longer_than_the_window_is_left_out_counted_and_never_cut(
    architecture: str, load: Load, write: Write
) -> None:
    """The answer of most tokens is a wrong one for most facts: they are left out all the same, as it competes."""
    model = load(architecture, **{"n_positions" if architecture == "t5" else "max_position_embeddings": 30})
    tokenizer: Any = model.tokenizer
    window = tokenizer.model_max_length
    assert window <= 30
    relations = {
        "P1": relation("The [X] is [Y]", "of", "the capital of France", "a"),
        "P2": relation("The [X] cap[Y].", "a", "ital", "q q q"),  # in the sentence "ital" may be no token of its own
    }
    task = Bear(folder=write(relations, facts_of(relations, *("7" * n for n in range(1, 31)))), family=model.family)
    one_by_one = [Bear(folder=task.folder, relations=[code], family=model.family) for code in relations]
    _, every = Bear(folder=task.folder).build(TOKENIZER)

    def longest(item: Item) -> int:
        return max(len(ids) for ids in encode_all(tokenizer, texts_of(task, item)))

    for code, part in zip(relations, one_by_one, strict=True):
        facts = [item for item in every if item.group == code]
        assert {longest(item) + SPECIAL_TOKENS for item in facts} >= {window, window + 1}
        if (architecture, code) == ("t5", "P2"):  # "cap[Y]" can't be taken apart, and that is another reason
            continue
        info, items = part.build(tokenizer)
        assert [item.id for item in items] == [item.id for item in facts if longest(item) + SPECIAL_TOKENS <= window]
        assert info.excluded == {BEYOND_WINDOW: len(facts) - len(items)}
        assert not any(is_cut(score) for row in ask(part, items, model) for score in row)
        with pytest.raises(ScoreError, match="the model's window"):
            ask(part, [next(item for item in facts if longest(item) > window)], model)


@pytest.mark.parametrize("name", ["llama", "tiny-bert"])
def test_decoders_and_encoders_may_join_an_answer_with_the_words_around_it(name: str, load: Load, write: Write) -> None:
    """They score every token of the sentence: where its answer stands plays no part."""
    model = load(name)
    tokenizer: Any = model.tokenizer
    relations = {"P1": relation("[X] is in[Y] it.", "to", "a"), "P2": relation("The [X] cap[Y]al", "it", "x")}
    task = Bear(folder=write(relations, facts_of(relations, "Peru")), family=model.family)
    info, items = task.build(tokenizer)
    assert info.excluded == {}
    assert [item.group for item in items] == ["P1", "P2"]
    joined = [joins_before(r, tokenizer) for item in items for r in task.requests(item)]
    assert any(joined)
    whole = [[Request("", text, "", "sentence") for text in texts_of(task, item)] for item in items]
    as_one = SCORERS.load(model.family)(model).score(whole)
    for row, expected in zip(ask(task, items, model), as_one, strict=True):
        assert [score.loglik_nats for score in row] == pytest.approx([score.loglik_nats for score in expected])


def joins_before(request: Request, tokenizer: Any) -> bool:
    """Whether the sentence has other tokens before its answer than the words before it have alone."""
    alone = tokenizer.encode(request.context, add_special_tokens=False)
    whole = tokenizer.encode(request.context + request.continuation + request.after, add_special_tokens=False)
    return bool(whole[: len(alone)] != alone)


def test_what_an_encoder_decoder_can_not_take_out_of_its_sentence_is_left_out_and_counted(load: Load, write: Write) -> None:
    """One answer of a relation is enough: the others would be ranked without it."""
    model = load("tiny-t5")
    relations = {
        "P1": relation("[X] is in[Y] it.", "Africa", "to"),
        "P2": relation("[X] is in ([Y]).", "Africa", "to"),
        "P3": relation("[Y] holds [X].", "Africa", "to"),
    }
    task = Bear(folder=write(relations, facts_of(relations, "Peru", "Chad")), family="seq2seq")
    info, items = task.build(model.tokenizer)
    assert info.excluded == {MERGED: 2}
    assert [item.group for item in items] == ["P2", "P2", "P3", "P3"]
    assert len(ask(task, items, model)) == 4
    _, every = Bear(folder=task.folder).build(TOKENIZER)
    with pytest.raises(ScoreError, match="shares a token with the text around it"):
        ask(task, every[:1], model)


def test_an_answer_joined_with_what_stands_behind_it_is_asked_with_a_space_there(load: Load, write: Write) -> None:
    model = load("tiny-t5")
    relations = {"P1": relation("[X] is [Y]to it.", "in", "a"), "P2": relation("[X] is [Y] to it.", "in", "a")}
    task = Bear(folder=write(relations, facts_of(relations, "Peru")), family="seq2seq")
    tokenizer: Any = model.tokenizer
    assert "▁into" in tokenizer.tokenize("Peru is into it.")
    info, items = task.build(tokenizer)
    assert info.excluded == {}
    joined, apart = ask(task, items, model)
    assert joined == apart


def test_a_sample_is_drawn_before_sentences_are_left_out(load: Load, write: Write) -> None:
    """So it holds the same facts whatever the tokenizer and the wording; what can't be asked is not made up for."""
    relations = {"P1": relation("[X] is in[Y] it.", "Africa", "to"), "P2": relation("[Y] holds [X].", "Africa", "to")}
    folder = write(relations, facts_of(relations, "Peru", "Chad"))
    _, every = Bear(folder=folder, n_facts=3).build(TOKENIZER)
    tokenizer: Any = load("tiny-t5").tokenizer
    info, items = Bear(folder=folder, n_facts=3, family="seq2seq").build(tokenizer)
    assert items == tuple(item for item in every if item.group == "P2")
    assert info.excluded == {NOT_SAMPLED: 1, MERGED: 3 - len(items)}


def test_a_task_of_which_nothing_can_be_asked_is_refused(load: Load, write: Write) -> None:
    relations = {"P1": relation("[X] is in[Y] it.", "Africa", "to")}
    task = Bear(folder=write(relations, facts_of(relations, "Peru")), family="seq2seq")
    tokenizer: Any = load("tiny-t5").tokenizer
    with pytest.raises(ModelError, match=r"none of its facts can be asked \(.*joins an answer.*: 1.*\); leave the task out"):
        task.build(tokenizer)


@pytest.mark.parametrize(
    ("fields", "n_items", "items_digest"),
    [
        ({"n_facts": 80}, 80, "ac2690df24524e87fa56d865952a287656c591a48cd11a36eef9fccf194d234c"),
        ({"n_facts": 1000}, 1000, "c53ae3a8873da39f54d912b6a40351475a5b66a8a46ffe6a6516d42ddd014b14"),
        ({"template": "all"}, 23_193, "6295525fa2c98d23e30d9462b5ef7fba71575f5c18d5889c35a1ecded827dcff"),
    ],
)
def test_the_embedded_model_is_asked_every_sentence_of_the_mirrors_bear(
    fields: dict[str, Any], n_items: int, items_digest: str, embedded_model: ResolvedModel
) -> None:
    """Real sentences are short, and a decoder takes none apart: its items are those from before anything was left out."""
    if not (HUB / "lm-pub-quiz" / "BEAR").is_dir():
        pytest.skip(f"no data mirror here ({HUB}; HARNESS_DATA names one)")
    tokenizer = MODELS.load("decoder")().load_tokenizer(embedded_model.folder)
    tokenizer.model_max_length = window_of_config(config_of(embedded_model.folder), tokenizer, "decoder")
    info, items = Bear(data=HUB, family="decoder", **fields).build(tokenizer)
    assert set(info.excluded) <= {NOT_SAMPLED}
    assert len(items) == n_items
    assert info.items_digest == items_digest


def test_wrong_fields_are_refused(mirror: Path) -> None:
    for fields, sentence in (
        ({"data": mirror, "template": 5}, "words P36 in 3 ways"),
        ({"data": mirror, "template": "some"}, 'expected 0, 1, … or "all"'),
        ({"data": mirror, "n_facts": 0}, "expected 1 or more"),
        ({"data": mirror, "relations": ["P1"]}, "no relation 'P1'"),
        ({"data": mirror, "relations": [["P1"]]}, "expected a list of names"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            Bear(**fields).build(TOKENIZER)


def test_the_mirrors_bear_is_whole() -> None:
    if not (HUB / "lm-pub-quiz" / "BEAR").is_dir():
        pytest.skip(f"no data mirror here ({HUB}; HARNESS_DATA names one)")
    book = load_bear(HUB, None)
    assert len(book.facts) == 7_731
    assert len(book.relations) == 60
    assert {len(relation.templates) for relation in book.relations.values()} == {3}


def test_requests_keep_the_space_with_the_answer(mirror: Path) -> None:
    task = Bear(data=mirror)
    _, items = task.build(TOKENIZER)
    assert task.requests(items[0])[0] == Request("The capital of Peru is", " Lima", ".", "sentence")
