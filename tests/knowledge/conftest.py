"""A hand-made folder of facts and a tokenizer that can be read at a glance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class WordTokenizer:
    """One token a word; a word with a hyphen takes one token a part, and <s> comes first when special tokens are asked for."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {"<s>": 0}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        words = [part for word in text.split(" ") for part in word.split("-") if part]
        special = ["<s>"] if add_special_tokens else []
        return [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in [*special, *words]]

    def __call__(
        self, texts: list[str], *, add_special_tokens: bool = True, verbose: bool = True
    ) -> dict[str, list[list[int]]]:
        return {"input_ids": [self.encode(text, add_special_tokens=add_special_tokens) for text in texts]}


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return WordTokenizer()


@pytest.fixture
def facts_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of facts; keyword arguments replace what a good one has."""

    def write(*, relations: dict[str, Any] | None = None, facts: list[dict[str, Any]] | None = None, **table: Any) -> Path:
        tables = {
            "schema_version": 1,
            "version": "test",
            "packages": {},
            "relations": RELATIONS if relations is None else relations,
            **table,
        }
        rows = FACTS if facts is None else facts
        (tmp_path / "relations.json").write_text(json.dumps(tables), encoding="utf-8")
        (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return tmp_path

    return write


def relation(template: str, answers: list[str]) -> dict[str, Any]:
    return {
        "template": template,
        "cardinality": "N-M",
        "group": "geography",
        "source": "hand",
        "licence": "none",
        "answers": sorted(answers),
    }


def fact(name: str, kind: str, subject: str, answers: list[str], also: list[str] | None = None) -> dict[str, Any]:
    return {"id": name, "relation": kind, "subject": subject, "answers": answers, "also": also or []}


RELATIONS = {
    "border": relation("[X] shares a border with [Y].", ["France", "Italy", "Peru", "Timor-Leste", "the Netherlands"]),
    "capital": relation("The capital of [X] is [Y].", ["Lima", "Paris", "Port-Louis", "Rome"]),
}
FACTS = [
    fact("border:CH", "border", "Switzerland", ["France", "Italy"]),
    fact("border:BE", "border", "the Low Lands", ["the Netherlands"], ["France"]),
    fact("capital:FR", "capital", "France", ["Paris"]),
    fact("capital:IT", "capital", "Italy", ["Rome"], ["Lima", "Paris"]),
    fact("capital:MU", "capital", "Mauritius", ["Port-Louis"]),
]
