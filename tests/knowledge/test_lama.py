"""LAMA: what is asked, what is left out and counted, and ranks that were worked out by hand."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from harness.core.errors import ConfigError, DownloadError, FileFormatError, ModelError
from harness.core.records import ItemOutcome, TaskInfo
from harness.knowledge import lama_items as reasons
from harness.knowledge.lama import Lama
from harness.knowledge.lama_facts import LamaFact, LamaTable, read_table
from harness.knowledge.lama_uhn import is_in_name
from harness.knowledge.words import make_vocabulary, shared_words
from harness.models import MODELS
from harness.models.loaded import LoadedModel
from harness.models.tiny import make_tiny
from harness.scoring import RANKERS, SCORERS, Request, engine_of

HUB = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[3] / "shared" / "data" / "hub")
SCRIPTS = Path(__file__).parents[2] / "scripts"
MODELS_OF_SUITES = Path(__file__).parents[2] / "suites" / "models"

IN_AFRICA = "[X] is a part of [Y] ."
WORDS = {
    "decoder": ("the", "capital", "of", "is"),
    "encoder": ("Europe", "Asia", "Africa", "America"),
    "seq2seq": ("Europe", "Asia", "Africa", "America"),
}
"""Words that are one token of the family's model here."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    folders = {
        "decoder": make_tiny(tmp_path_factory.mktemp("llama")),
        "encoder": MODELS_OF_SUITES / "tiny-bert",
        "seq2seq": MODELS_OF_SUITES / "tiny-t5",
    }

    def load(family: str) -> LoadedModel:
        loaded: LoadedModel = MODELS.load(family)().load(folders[family], device="cpu", dtype="float32")
        return loaded

    return load


@pytest.fixture
def tokenizer() -> Any:
    return MODELS.load("encoder")().load_tokenizer(MODELS_OF_SUITES / "tiny-bert")


def fact(subject: str, answer: str, template: str | None = IN_AFRICA, relation: str = "P30", **more: str) -> dict[str, Any]:
    return {"predicate_id": relation, "sub_label": subject, "obj_label": answer, "template": template, **more}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Sequence[dict[str, Any]]], Path]:
    def write_file(rows: Sequence[dict[str, Any]]) -> Path:
        path = tmp_path / "facts.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write_file


Write = Callable[[Sequence[dict[str, Any]]], Path]


def ask(task: Lama, model: LoadedModel) -> tuple[TaskInfo, list[ItemOutcome]]:
    info, items = task.build(model.tokenizer)
    shelf, verb = engine_of(task.kind)
    answers = getattr(shelf.load(model.family)(model), verb)([task.requests(item) for item in items])
    return info, [task.outcome(item, found) for item, found in zip(items, answers, strict=True)]


# ------------------------------------------------------------------------------------------------ golden


@pytest.mark.parametrize("family", WORDS)
def test_ranks_are_those_worked_out_by_hand(
    family: str, models: Callable[[str], LoadedModel], write: Write, tmp_path: Path
) -> None:
    """The first word has logit 4, the second 3, the third and the fourth 2 each: a tie counts against the right word."""
    model, words = models(family), WORDS[family]
    (tmp_path / "words.txt").write_text("\n".join(words), encoding="utf-8")
    task = Lama(
        file=write([fact("Peru", words[0]), fact("Chad", words[1]), fact("Mali", words[2]), fact("Laos", words[3])]),
        vocabulary=tmp_path / "words.txt",
        family=family,
    )
    scores = dict(zip(words, (4.0, 3.0, 2.0, 2.0), strict=True))
    _, items = task.build(model.tokenizer)
    tokens = {word: token for token, word in task._vocabularies[items[0].id.rpartition("@")[2]].words.items()}

    def fixed(_module: Any, _given: Any, logits: torch.Tensor) -> torch.Tensor:
        made = torch.full_like(logits, -9.0)
        for word, score in scores.items():
            made[..., tokens[word]] = score
        made[..., 3] = 9.0  # a token that is no candidate may well be likelier
        return made

    model.module.get_output_embeddings().register_forward_hook(fixed)  # type: ignore[union-attr, operator]
    info, outcomes = ask(task, model)
    assert [one.rank for one in outcomes] == [1, 2, 4, 4]
    assert [one.correct for one in outcomes] == [True, False, False, False]
    assert [one.answer for one in outcomes] == [0, -1, -1, -1]
    assert {one.text for one in outcomes} == {words[0]}
    assert [one.margin_nats for one in outcomes] == pytest.approx([1.0, -1.0, -2.0, -2.0])
    assert np.mean([1 / one.rank for one in outcomes]) == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 4) / 4)
    assert info.chance == 1 / 4
    assert info.majority == 1 / 4
    assert info.excluded == {}


# ------------------------------------------------------------------------------------------------ every family


@pytest.mark.parametrize("family", ["encoder", "seq2seq"])
def test_a_trained_model_knows_its_own_facts(family: str, models: Callable[[str], LoadedModel], write: Write) -> None:
    """The tiny models were trained on sentences like these, so that the right continent comes first among all their words."""
    template = "[X] is a country on the continent of [Y]."
    rows = [fact(*row, template) for row in (("Angola", "Africa"), ("Austria", "Europe"), ("Belgium", "Europe"))]
    info, outcomes = ask(Lama(file=write(rows), family=family), models(family))
    assert int(1 / info.chance) > 300  # all of its words compete
    assert [one.rank for one in outcomes].count(1) >= 2


@pytest.mark.parametrize("family", WORDS)
def test_a_rank_is_what_asking_word_by_word_gives(
    family: str, models: Callable[[str], LoadedModel], write: Write, tmp_path: Path
) -> None:
    model, words = models(family), WORDS[family]
    (tmp_path / "words.txt").write_text("\n".join(words), encoding="utf-8")
    rows = [fact(subject, word) for subject in ("Peru", "South Sudan") for word in words]
    _, outcomes = ask(Lama(file=write(rows), vocabulary=tmp_path / "words.txt", family=family), model)
    for i, subject in enumerate(("Peru", "South Sudan")):
        requests = [Request(f"{subject} is a part of", f" {word}", " .", "blank") for word in words]
        logliks = [score.loglik_nats for score in SCORERS.load(family)(model).score([requests])[0]]
        expected = [1 + sum(other > own for other in logliks) for own in logliks]
        assert [one.rank for one in outcomes[4 * i : 4 * i + 4]] == expected


@pytest.mark.parametrize("family", WORDS)
def test_whole_sentences_rank_the_relations_own_objects(
    family: str, models: Callable[[str], LoadedModel], write: Write
) -> None:
    template = "[Y] is where [X] is ."
    rows = [fact("Peru", "South America", template), fact("Chad", "Africa", template), fact("Mali", "Africa", template)]
    task = Lama(file=write(rows), whole_sentence=True, family=family)
    info, outcomes = ask(task, models(family))
    _, items = task.build(models(family).tokenizer)
    assert task.kind == "sentence"
    assert items[0].options == ("Africa", "South America")
    assert [item.gold for item in items] == [(1,), (0,), (0,)]
    assert info.chance == 1 / 2
    assert info.majority == 2 / 3
    assert sorted({one.rank for one in outcomes}) in ([1], [1, 2], [2])


# ------------------------------------------------------------------------------------------------ what is left out


def test_everything_left_out_is_counted(tokenizer: Any, write: Write, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Africa\nAsia\n", encoding="utf-8")
    rows = [
        fact("Chad", "Africa"),
        fact("Chad", "Africa"),
        fact("Chad", "Asia"),
        fact("Mali", "Wagadugu"),
        fact("Peru", "America"),
        fact("Laos", "Asia", "[X] is in[Y]s part ."),
        fact("word " * 99, "Asia"),
        fact("Iran", "Asia", None, masked_sentence="[MASK] and [MASK] ."),
        fact("Iraq", "Asia", None),
        fact("xylograph " * 20, "Asia"),
    ]
    task = Lama(file=write(rows), vocabulary=tmp_path / "words.txt")
    info, items = task.build(tokenizer)
    assert [item.options for item in items] == [("Africa",), ("Asia",)]
    assert info.excluded == {
        reasons.REPEATED: 1,
        reasons.SEVERAL: 1,
        reasons.NOT_A_CANDIDATE: 1,
        reasons.MERGED: 1,
        reasons.TOO_LONG: 1,
        reasons.SEVERAL_BLANKS: 1,
        reasons.NO_TEXT: 1,
        reasons.BEYOND_WINDOW: 1,
    }
    assert sum(info.excluded.values()) + len(items) == len(rows)


@pytest.mark.parametrize("family", ["encoder", "seq2seq"])
def test_whole_sentences_that_do_not_fit_into_the_window_are_left_out_and_counted(
    family: str, models: Callable[[str], LoadedModel], write: Write
) -> None:
    rows = [fact("Peru", "America"), fact("Chad", "Africa"), fact("xylograph " * 20, "Asia")]
    info, outcomes = ask(Lama(file=write(rows), whole_sentence=True, family=family), models(family))
    assert info.excluded == {reasons.BEYOND_WINDOW: 1}
    assert info.n_items == len(outcomes) == 2
    assert info.chance == 1 / 3  # its object competes all the same


@pytest.mark.parametrize(("family", "n_left_out"), [("encoder", 0), ("seq2seq", 2)])
def test_whole_sentences_whose_object_is_joined_with_the_word_before_it_are_left_out_and_counted(
    family: str, n_left_out: int, models: Callable[[str], LoadedModel], write: Write
) -> None:
    """T5 reads a sentence without its object; the others feed it whole."""
    rows = [
        fact("Peru", "America"),
        fact("Chad", "to"),
        fact("Mali", "to", "[X] is in[Y] ."),
        fact("Laos", "a", "[X] i[Y]s ."),
    ]
    rows += [fact("Togo", "a", "[Y] is [X] ."), fact("Niger", "to", "[X] is ([Y]) .")]
    info, outcomes = ask(Lama(file=write(rows), whole_sentence=True, family=family), models(family))
    assert info.excluded == ({reasons.MERGED: n_left_out} if n_left_out else {})
    assert info.n_items == len(outcomes) == len(rows) - n_left_out


def test_nothing_is_printed_while_facts_load_and_are_asked(
    models: Callable[[str], LoadedModel], write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    """The bars of the loader, and the tokenizer's warning of texts beyond the window: those are counted."""
    rows = [fact("Peru", "America"), fact("Chad", "Africa"), fact("xylograph " * 20, "Asia")]
    for family in ("encoder", "seq2seq"):
        model = models(family)
        model.tokenizer.deprecation_warnings = {}  # type: ignore[union-attr]
        capfd.readouterr()
        ask(Lama(file=write(rows), family=family), model)
        ask(Lama(file=write(rows), whole_sentence=True, family=family), model)
        assert capfd.readouterr() == ("", "")


def test_a_decoder_leaves_out_what_goes_on_behind_the_blank(
    models: Callable[[str], LoadedModel], write: Write, tmp_path: Path
) -> None:
    path = write([fact("Peru", "the"), fact("Chad", "of", "[X] plays in [Y] position .")])
    decoder = models("decoder").tokenizer
    assert Lama(file=path, family="decoder").build(decoder)[0].excluded == {reasons.GOES_ON: 1}
    assert Lama(file=path).build(decoder)[0].excluded == {}


def test_the_datas_own_objects_can_be_the_candidates(tokenizer: Any, write: Write) -> None:
    rows = [fact("Chad", "Africa"), fact("Laos", "Asia"), fact("Peru", "Wagadugu"), fact("Mali", "Africa")]
    info, items = Lama(file=write(rows), candidates="objects").build(tokenizer)
    assert (info.n_items, info.chance, info.majority) == (3, 1 / 2, 2 / 3)
    assert "among 2 words (the data's objects" in info.protocol
    assert "1 of the list left out" in info.protocol
    assert info.excluded == {reasons.SEVERAL: 1}
    assert {item.digest for item in items}.isdisjoint(item.digest for item in Lama(file=write(rows)).build(tokenizer)[1])


def test_a_fixed_sample_takes_so_many_facts_of_each_relation(tokenizer: Any, write: Write) -> None:
    rows = [fact(name, "Africa", relation=kind) for kind in ("P30", "P31") for name in ("Chad", "Mali", "Togo", "Niger")]
    rows.append(fact("Peru", "America", relation="P32"))
    info, items = Lama(file=write(rows), per_relation=2).build(tokenizer)
    assert [item.group for item in items] == ["P30", "P30", "P31", "P31", "P32"]
    assert info.excluded == {reasons.NOT_SAMPLED: 4}
    limited, some = Lama(file=write(rows), per_relation=2, limit=3).build(tokenizer)
    assert {item.id for item in some} < {item.id for item in items}
    assert (limited.limit, limited.spec_digest) == (3, info.spec_digest)


def test_unhelpful_names_are_left_out(tokenizer: Any, write: Write, tmp_path: Path) -> None:
    rows = [
        fact("South Africa", "africa"),
        fact("Jean Chad", "France", relation="P27"),
        fact("Jo Peru", "Italy", relation="P27"),
    ]
    assert Lama(file=write(rows), unhelpful_names="in").build(tokenizer)[0].excluded == {reasons.IN_NAME: 1}
    words = {"country": {"Jean": ["Spain", "france", "Peru", "Italy"], "Chad": ["Chad"], "Jo": ["Peru"], "Peru": ["Peru"]}}
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"schema_version": 1, "model": "bert", "words": words}), encoding="utf-8")
    info, items = Lama(file=write(rows), unhelpful_names="by", names=names).build(tokenizer)
    assert info.excluded == {reasons.IN_NAME: 1, reasons.BY_NAME: 1}
    assert [item.options for item in items] == [("Italy",)]
    assert is_in_name(LamaFact("P176", "Apple Watch", "Apple", None, None))


def test_the_name_filter_is_refused_without_a_list_and_with_a_list_that_lacks_a_name(
    tokenizer: Any, write: Write, tmp_path: Path
) -> None:
    path = write([fact("Jean Chad", "France", relation="P27")])
    with pytest.raises(ConfigError, match=r"no model is named here; make one with scripts/list_common_names\.py"):
        Lama(file=path, unhelpful_names="by")
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"schema_version": 1, "model": "bert", "words": {}}), encoding="utf-8")
    with pytest.raises(ConfigError, match="has no country for 'Jean'"):
        Lama(file=path, unhelpful_names="by", names=names).build(tokenizer)


def test_the_list_of_common_names_is_what_the_masked_model_finds_likeliest(models: Callable[[str], LoadedModel]) -> None:
    spec = importlib.util.spec_from_file_location("list_common_names", SCRIPTS / "list_common_names.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    model = models("encoder")
    made = script.list_names(
        model, [LamaFact("P27", "Ann Chad", "France", None, None), LamaFact("P30", "Peru", "Asia", None, None)]
    )
    assert {noun: sorted(names) for noun, names in made.words.items()} == {"country": ["Ann", "Chad"]}
    vocabulary = make_vocabulary(model.tokenizer, None)
    ids = torch.tensor([model.tokenizer.encode("Ann is a common name in the following country : [MASK] .")])
    logits: torch.Tensor = model.module(input_ids=ids).logits[0, int((ids[0] == model.tokenizer.mask_token_id).nonzero())]
    best = sorted(vocabulary.words, key=lambda token: -float(logits[token]))[:3]
    assert made.words["country"]["Ann"] == tuple(vocabulary.words[token] for token in best)


def test_shared_words_are_one_token_of_every_tokenizer(models: Callable[[str], LoadedModel]) -> None:
    tokenizers = [models(family).tokenizer for family in ("encoder", "seq2seq")]
    words = shared_words(tokenizers)
    assert words == tuple(sorted(words))
    assert len(words) > 100
    for tokenizer in tokenizers:
        for word in words[::40]:
            assert len(tokenizer.encode(f"It is {word}")) == len(tokenizer.encode("It is")) + 1
        assert len(make_vocabulary(tokenizer, words)) == len(words)


# ------------------------------------------------------------------------------------------------ layouts


def test_the_hubs_own_layout_gives_the_facts_of_the_flat_one(tmp_path: Path, tokenizer: Any) -> None:
    """The hub has a row an evidence sentence, more columns, and calls its one split "train"."""
    flat, hub = tmp_path / "flat" / "facebook" / "lama", tmp_path / "hub" / "facebook" / "lama"
    rows = [fact("Chad", "Africa", masked_sentence="Chad lies in [MASK] ."), fact("Laos", "Asia", masked_sentence="[MASK] !")]
    evidence = [
        {
            **row,
            "uuid": f"u{i}",
            "obj_uri": "Q1",
            "sub_uri": "Q2",
            "sub_surface": row["sub_label"],
            "obj_surface": row["obj_label"],
            "template_negated": "[X] is not a part of [Y] .",
            "label": "continent",
            "description": "continent of which the subject is a part",
            "type": "N-1",
        }
        for i, row in enumerate([*rows, {**rows[0], "masked_sentence": "N'Djamena is in [MASK] ."}])
    ]
    for folder, split, table in ((flat, "test", rows), (hub, "train", evidence)):
        (folder / "trex").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(table), folder / "trex" / f"{split}.parquet")
    for evidence_asked in (False, True):
        mine, theirs = (
            Lama(part="trex", evidence=evidence_asked, data=tmp_path / name).build(tokenizer) for name in ("flat", "hub")
        )
        assert mine[1] == theirs[1]
        assert theirs[0].excluded == {**mine[0].excluded, reasons.REPEATED: 1}
    assert [item.prompt for item in mine[1]] == ["Chad lies in [Y] .", "[Y] !"]


def test_the_hubs_other_parts_are_read_too() -> None:
    import datasets

    squad = {"id": "s1", "sub_label": "Squad", "obj_label": "gold", "negated": "", "masked_sentence": "The [MASK] color ."}
    concept = {"uuid": "c1", "sub": "alive", "obj": "think", "pred": "HasSubevent", "obj_label": "think",
               "masked_sentence": "One of the things you do when you are alive is [MASK].", "negated": ""}  # fmt: skip
    place = {"pred": "/people/person/place_of_birth", "sub": "/m/1", "obj": "/m/2", "sub_label": "Ann Ell",
             "obj_label": "Rome", "template": "[X] was born in [Y] .", "masked_sentence": "Ann of [MASK] ."}  # fmt: skip
    found = [read_table(datasets.Dataset.from_list([row]), "made up")[0] for row in (squad, concept, place)]
    assert found == [
        LamaFact("Squad", "Squad", "gold", None, "The [MASK] color ."),
        LamaFact("HasSubevent", "alive", "think", None, concept["masked_sentence"]),
        LamaFact("place_of_birth", "Ann Ell", "Rome", "[X] was born in [Y] .", "Ann of [MASK] ."),
    ]


@pytest.mark.parametrize(
    ("rows", "error", "sentence"),
    [
        (
            [{"sub_label": "Chad", "obj_label": "Africa", "template": IN_AFRICA}],
            FileFormatError,
            "no column predicate_id or pred",
        ),
        (
            [{"predicate_id": "P30", "sub_label": "Chad", "obj_label": "Africa"}],
            FileFormatError,
            "no column template or masked_",
        ),
        (
            [fact("Chad", "Africa"), fact("", "Asia")],
            FileFormatError,
            r"facts\.jsonl:2: relation 'P30', subject '', object 'Asia'",
        ),
        (
            [{**fact("Chad", ""), "obj_label": ["Africa", "Asia"]}],
            FileFormatError,
            r"facts\.jsonl:1: \['Africa', 'Asia'\] is a list",
        ),
        (
            [{**fact("Chad", ""), "obj_label": True}],
            FileFormatError,
            r"facts\.jsonl:1: True is no text: expected one, in quotes",
        ),
        ([{**fact("Chad", ""), "obj_label": {"en": "Africa"}}], FileFormatError, r"facts\.jsonl:1: \{'en': 'Africa'\} is no"),
        ([{**fact("Chad", ""), "obj_label": []}], FileFormatError, r"object '': expected text in each; fill it in"),
        ([], FileFormatError, r"facts\.jsonl has no lines"),
        ([fact("Chad", "Africa", "[X] is [X] [Y]")], FileFormatError, r"must hold one \[X\] and one \[Y\]"),
        ([fact("Chad", "Wagadugu")], ModelError, "none of its facts can be asked"),
    ],
)
def test_a_file_that_cannot_be_asked_is_refused_in_one_sentence(
    rows: list[dict[str, Any]], error: type[Exception], sentence: str, write: Write, tokenizer: Any
) -> None:
    with pytest.raises(error, match=sentence):
        Lama(file=write(rows)).build(tokenizer)


def test_an_empty_split_a_missing_file_and_wrong_fields_are_refused(tmp_path: Path, write: Write, tokenizer: Any) -> None:
    folder = tmp_path / "facebook" / "lama" / "trex"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([fact("Chad", "Africa")])[:0], folder / "test.parquet")
    with pytest.raises(ConfigError, match="has no rows in its split 'test'"):
        Lama(part="trex", data=tmp_path).build(tokenizer)
    path = write([fact("Chad", "Africa")])
    for fields, sentence in (
        ({"file": tmp_path / "none.jsonl"}, "are not there"),
        ({"part": "wiki", "data": tmp_path}, "no part 'wiki'"),
        ({"file": path, "relations": ["P99"]}, "has no relation 'P99'"),
        ({"file": path, "whole_sentence": True}, "has one object only"),
        ({"file": path, "per_relation": 0}, "per_relation is 0"),
        ({"file": path, "relations": [["P30"]]}, "expected a list of names"),
        ({"file": path, "relations": "P30"}, "expected a list of names"),
        ({"file": path, "candidates": "nouns"}, 'expected "words" or "objects"'),
        ({"file": path, "candidates": "objects", "vocabulary": path}, "keep one"),
        ({"file": path, "part": "trex"}, "give one"),
        ({"file": path, "unhelpful_names": "all"}, 'expected "in" or "by"'),
    ):
        with pytest.raises(ConfigError, match=sentence):
            Lama(**fields).build(tokenizer)
    (tmp_path / "words.txt").write_text("Africa\nAfrica\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match="'Africa' twice"):
        Lama(file=path, vocabulary=tmp_path / "words.txt").build(tokenizer)
    (tmp_path / "words.txt").write_bytes("Africa\nOù\n".encode("latin-1"))
    with pytest.raises(FileFormatError, match=r"words\.txt:2 is not UTF-8 text"):
        Lama(file=path, vocabulary=tmp_path / "words.txt").build(tokenizer)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_vocabulary_keeps_its_first_word(encoding: str, tmp_path: Path, write: Write, tokenizer: Any) -> None:
    (tmp_path / "words.txt").write_text("Africa\nAsia\n", encoding=encoding)
    info, items = Lama(file=write([fact("Chad", "Africa")]), vocabulary=tmp_path / "words.txt").build(tokenizer)
    assert (len(items), info.excluded) == (1, {})
    assert "among 2 words" in info.protocol


def test_texts_of_ones_own_are_read_as_they_are(write: Write) -> None:
    """A reader of tables makes times of what looks like dates, and asks for their hours."""
    rows = [fact("1990-01-01", "1990"), {**fact("Chad", ""), "obj_label": 1991, "sub_label": "2001-02-03T04:05:06Z"}]
    facts = LamaTable.of_file(write(rows)).facts()
    assert [(one.subject, one.object) for one in facts] == [("1990-01-01", "1990"), ("2001-02-03T04:05:06Z", "1991")]


def test_each_line_may_have_either_name_of_a_column(write: Write) -> None:
    rows = [
        {"predicate_id": "P30", "sub_label": "Chad", "obj_label": "Africa", "masked_sentence": "Chad is in [MASK] ."},
        {"pred": "P30", "sub": "Laos", "obj_label": "Asia", "masked_sentences": ["Laos is in [MASK] ."]},
    ]
    assert LamaTable.of_file(write(rows)).facts() == (
        LamaFact("P30", "Chad", "Africa", None, "Chad is in [MASK] ."),
        LamaFact("P30", "Laos", "Asia", None, "Laos is in [MASK] ."),
    )


def test_only_google_res_relations_are_cut_at_their_slashes(write: Write) -> None:
    rows = [{**fact("Chad", "Africa"), "predicate_id": name} for name in ("/people/person/place_of_birth", "a/b", "c/b")]
    assert [one.relation for one in LamaTable.of_file(write(rows)).facts()] == ["place_of_birth", "a/b", "c/b"]


def test_a_fact_whose_first_sentence_can_not_be_asked_is_asked_by_its_second(write: Write, tokenizer: Any) -> None:
    rows = [
        fact("Chad", "Africa", IN_AFRICA, masked_sentence=text) for text in ("Chad [MASK] [MASK] .", "Chad is in [MASK] .")
    ]
    rows += [rows[0], rows[1]]
    info, items = Lama(file=write([*rows, fact("Laos", "Asia", masked_sentence="")]), evidence=True).build(tokenizer)
    assert [item.prompt for item in items] == ["Chad is in [Y] ."]
    assert info.excluded == {reasons.SEVERAL_BLANKS: 1, reasons.REPEATED: 2, reasons.NO_SENTENCE: 1}


def test_a_row_behind_its_asked_fact_is_a_repetition_whatever_it_lacks(write: Write) -> None:
    good, without, blanks = (
        fact("Chad", "Africa", IN_AFRICA, masked_sentence=text) for text in ("Chad is in [MASK] .", "", "[MASK] [MASK] .")
    )
    for rows, excluded in (
        ([good, without, blanks], {reasons.REPEATED: 2}),
        ([without, blanks, good], {reasons.NO_SENTENCE: 1, reasons.SEVERAL_BLANKS: 1}),
    ):
        facts = LamaTable.of_file(write(rows)).facts()
        kept, counted = reasons.select(facts, evidence=True, leaves_out_names=False, names=None)
        assert [prompt for _, prompt in kept] == ["Chad is in [Y] ."]
        assert counted == excluded


def test_without_a_mirror_the_hubs_converted_parquet_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def offline(path: str, revision: str | None) -> str:
        asked.append((path, revision))
        raise OSError("no network")

    monkeypatch.setattr("harness.knowledge.converted.head_commit", offline)
    with pytest.raises(DownloadError, match=r"facebook/lama could not be fetched from the hub \(no network\), and no mirror"):
        LamaTable.of_part("trex", None)
    assert asked == [("facebook/lama", "refs/convert/parquet")]


# ------------------------------------------------------------------------------------------------ identity, real data


def test_another_vocabulary_makes_other_items_and_a_changed_fact_another_digest(
    tokenizer: Any, write: Write, tmp_path: Path
) -> None:
    path = write([fact("Chad", "Africa"), fact("Laos", "Asia")])
    (tmp_path / "words.txt").write_text("Africa\nAsia\nEurope", encoding="utf-8")
    own, listed = Lama(file=path), Lama(file=path, vocabulary=tmp_path / "words.txt")
    assert {i.digest for i in own.build(tokenizer)[1]}.isdisjoint(i.digest for i in listed.build(tokenizer)[1])
    assert own.spec_digest() != listed.spec_digest()
    before = own.spec_digest()
    assert Lama(file=write([fact("Chad", "Africa"), fact("Laos", "Asia"), fact("Iran", "Asia")])).spec_digest() != before
    assert list(own.probe_sentences()) == ["Chad is a part of Africa .", "Laos is a part of Asia ."]


def test_the_mirrors_trex_is_whole(tokenizer: Any) -> None:
    if not (HUB / "facebook" / "lama").is_dir():
        pytest.skip(f"no data mirror here ({HUB}; HARNESS_DATA names one)")
    facts = LamaTable.of_part("trex", HUB).facts()
    assert len(facts) == 34_039
    templates = {one.relation: one.template or "" for one in facts}
    assert len(templates) == 41
    goes_on = {name for name, text in templates.items() if text.partition("[Y]")[2].strip(" .")}
    assert goes_on == {"P413", "P106", "P27", "P136", "P140", "P190"}
    for part, n_facts in (("google_re", 5_528), ("conceptnet", 146), ("squad", 305)):
        assert len(LamaTable.of_part(part, HUB).facts()) == n_facts


def test_every_family_has_a_ranker() -> None:
    assert set(RANKERS) == set(SCORERS)
