"""The project's own facts as multiple-choice documents: what ``tasks/facts_choice.yaml`` asks through lm-eval's task code."""

from __future__ import annotations

from typing import Any

from harness.knowledge.factbook import load_facts, prompt
from harness.knowledge.facts import choose_options


def make_docs(**_: Any) -> dict[str, Any]:
    """One document a fact, in the file's order: the sentence with a gap, the candidates, and the right ones' positions.

    lm-eval hands the task file's metadata on; nothing of it is needed.
    """
    from datasets import Dataset

    book = load_facts()
    rows = []
    for fact in book.facts:
        relation = book.relations[fact.relation]
        choices, gold = choose_options(fact, relation)
        sentence = prompt(relation, fact).replace("[Y]", "____")
        rows.append({"id": fact.id, "sentence": sentence, "choices": list(choices), "gold": list(gold)})
    return {"test": Dataset.from_list(rows)}
