"""What a masked language model guesses from persons' names: the list that LAMA-UHN's second filter needs, made once.

    python scripts/list_common_names.py MODEL_FOLDER NAMES.json --data <mirror> [--part trex --part google_re]

Asks "<name> is a common name in the following city : [MASK] ." (or country, language) for each part of each person's name, and
keeps the three likeliest of the model's own words (Poerner et al. 2019 take BERT-base). The file is `names` of a lama task
with `unhelpful_names = "by"`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.core.records import SCHEMA_VERSION
from harness.core.serial import write_json
from harness.knowledge.lama_facts import LamaFact, LamaTable
from harness.knowledge.lama_uhn import N_WORDS, CommonNames, name_sentence, names_of
from harness.knowledge.words import make_vocabulary
from harness.models.encoder import Encoder
from harness.models.loaded import LoadedModel
from harness.scoring import Blank
from harness.scoring.rankers import EncoderRanker


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="a masked language model")
    parser.add_argument("out", type=Path, metavar="NAMES.json")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the offline mirror")
    parser.add_argument("--part", action="append", help="a part of LAMA (default: trex and google_re)")
    given = parser.parse_args()
    parts = given.part or ["trex", "google_re"]
    facts = [fact for part in parts for fact in LamaTable.of_part(part, given.data).facts()]
    model = Encoder().load(given.model, device="cpu", dtype="float32")
    write_json(given.out, list_names(model, facts))


def list_names(model: LoadedModel, facts: list[LamaFact]) -> CommonNames:
    """The likeliest words for every part of every person's name among the facts."""
    vocabulary = make_vocabulary(model.tokenizer, None)
    any_word = next(iter(vocabulary.words.values()))
    asked = [(noun, name) for noun, names in sorted(names_of(facts).items()) for name in sorted(names)]
    blanks = []
    for noun, name in asked:
        before, after = name_sentence(noun, name)
        blanks.append([Blank(before, f" {any_word}", after, vocabulary.candidates)])
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for (noun, name), (standing,) in zip(asked, EncoderRanker(model).rank(blanks), strict=True):
        found.setdefault(noun, {})[name] = tuple(vocabulary.words[token] for token in standing.best[:N_WORDS])
    return CommonNames(SCHEMA_VERSION, model.folder.name, found)


if __name__ == "__main__":
    main()
