"""From LAMA's facts to items: which of them a model can be asked, and, counted, why the others can't."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from harness.core.digest import digest_json
from harness.core.errors import ConfigError
from harness.core.records import Item
from harness.knowledge.facts import at_blank
from harness.knowledge.lama_facts import MASK, LamaFact
from harness.knowledge.lama_uhn import CommonNames, is_in_name, is_told_by_name
from harness.knowledge.sample import sample
from harness.knowledge.sentences import BEYOND_WINDOW, SPECIAL_TOKENS, askable_sentences, window_of
from harness.knowledge.words import Vocabulary, encode_all, single_tokens

SEED = "lama-1"
"""Part of every digest that draws a sample."""

MOST_WORDS = 100

REPEATED = "rows that repeat a subject and object of their relation"
NO_SENTENCE = "facts without an evidence sentence"
NO_TEXT = "facts without a template or a sentence"
SEVERAL_BLANKS = "sentences with several blanks, or none"
TOO_LONG = f"sentences of more than {MOST_WORDS} words"
IN_NAME = "objects that are part of the subject's name (UHN)"
BY_NAME = "objects that a masked model guesses from the person's name (UHN)"
SEVERAL = "objects that are not one token of this model"
NOT_A_CANDIDATE = "objects outside the candidate vocabulary"
MERGED = "objects that this tokenizer joins with the words around the blank"
GOES_ON = "facts whose sentence goes on behind the blank, which a decoder can't read"
NOT_SAMPLED = "facts outside the fixed sample of each relation"

Asked = tuple[LamaFact, str]
"""A fact and its sentence with ``[Y]`` in its blank."""


def select(
    facts: Iterable[LamaFact], *, evidence: bool, leaves_out_names: bool, names: CommonNames | None
) -> tuple[tuple[Asked, ...], Counter[str]]:
    """The facts that any model can be asked, and how many other rows there are for which reason.

    A fact is asked by the first of its rows that can be asked. A row before that one is counted by what keeps it from being
    asked, a row behind it as a repetition, whatever else is wrong with it.
    """
    excluded: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    kept: list[Asked] = []
    for fact in facts:
        prompt = make_prompt(fact, evidence=evidence)
        if fact.identity in seen:
            excluded[REPEATED] += 1
        elif prompt is None:
            excluded[NO_SENTENCE if evidence else NO_TEXT] += 1
        elif reason := _why_not(fact, prompt, leaves_out_names, names):
            excluded[reason] += 1
        else:
            seen.add(fact.identity)
            kept.append((fact, prompt))
    return tuple(kept), excluded


def _why_not(fact: LamaFact, prompt: str, leaves_out_names: bool, names: CommonNames | None) -> str | None:
    if prompt.count("[Y]") != 1:
        return SEVERAL_BLANKS
    if len(prompt.split()) > MOST_WORDS:
        return TOO_LONG
    if leaves_out_names and is_in_name(fact):
        return IN_NAME
    return BY_NAME if names is not None and is_told_by_name(fact, names) else None


def blank_items(
    asked: Sequence[Asked], vocabulary: Vocabulary, tokenizer: Any, excluded: Counter[str], *, reads_left: bool
) -> list[Item]:
    """The facts whose object is a candidate and stands in its sentence as the very token that it is by itself; ``excluded``
    counts the others. ``reads_left``: what is behind the blank is not read."""
    tokens = single_tokens(tokenizer, (fact.object for fact, _ in asked))
    before = encode_all(tokenizer, [_parts(prompt)[0] for _, prompt in asked])
    whole = encode_all(tokenizer, [_filled(fact, prompt, reads_left) for fact, prompt in asked])
    window = window_of(tokenizer)
    items = []
    for (fact, prompt), ids_before, ids in zip(asked, before, whole, strict=True):
        token, n = tokens.get(fact.object), len(ids_before)
        if reads_left and _parts(prompt)[1].strip(" .!?"):
            excluded[GOES_ON] += 1
        elif token is None:
            excluded[SEVERAL] += 1
        elif token not in vocabulary.words:
            excluded[NOT_A_CANDIDATE] += 1
        elif len(ids) + SPECIAL_TOKENS > window:
            excluded[BEYOND_WINDOW] += 1
        elif ids[:n] != ids_before or ids[n : n + 1] != [token]:
            excluded[MERGED] += 1
        else:
            items.append(Item(_key(fact), fact.relation, prompt, (fact.object,), (0,)))
    return items


def sentence_items(asked: Sequence[Asked], tokenizer: Any, excluded: Counter[str], *, takes_out: bool = False) -> list[Item]:
    """Every fact with its relation's objects as options; ``excluded`` counts those whose sentence does not fit into the window
    with each of them. ``takes_out``: the model reads the sentence without its object (T5), so a fact with an object that would
    share a token with the words around it is left out, too. Raises ConfigError for a relation with one object."""
    objects: dict[str, set[str]] = defaultdict(set)
    for fact, _ in asked:
        objects[fact.relation].add(fact.object)
    options = {relation: tuple(sorted(found)) for relation, found in objects.items()}
    place = {relation: {text: i for i, text in enumerate(found)} for relation, found in options.items()}
    if alone := sorted(relation for relation, found in options.items() if len(found) == 1):
        raise ConfigError(
            f"LAMA's relation {alone[0]!r} has one object only, so there is nothing to rank; leave it out with `relations`."
        )
    items = [
        Item(_key(fact), fact.relation, prompt, options[fact.relation], (place[fact.relation][fact.object],))
        for fact, prompt in asked
    ]
    return askable_sentences(
        items, lambda item: at_blank(item, "sentence"), tokenizer, excluded, takes_out=takes_out, merged=MERGED
    )


def sample_relations(items: Sequence[Item], per_relation: int | None, excluded: Counter[str]) -> list[Item]:
    """The fixed sample of each relation, in the data's order; ``excluded`` counts the rest."""
    if per_relation is None:
        return list(items)
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.group].append(item)
    drawn = {item.id for group in groups.values() for item in sample(group, per_relation, SEED)}
    excluded[NOT_SAMPLED] += len(items) - len(drawn)
    return [item for item in items if item.id in drawn]


def majority_share(items: Sequence[Item]) -> float:
    """The accuracy of always giving the relation's commonest object."""
    right: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        right[item.group][item.options[item.gold[0]]] += 1
    return sum(max(counts.values()) for counts in right.values()) / len(items)


def make_prompt(fact: LamaFact, *, evidence: bool) -> str | None:
    """The sentence with ``[Y]`` in its blank: the template where there is one, unless evidence is asked for.

    >>> make_prompt(LamaFact("P36", "France", "Paris", "The capital of [X] is [Y] .", None), evidence=False)
    'The capital of France is [Y] .'
    """
    if fact.template and not evidence:
        before, _, after = fact.template.partition("[X]")
        return f"{before}{fact.subject}{after}"
    return None if fact.sentence is None else fact.sentence.replace(MASK, "[Y]")


def _parts(prompt: str) -> tuple[str, str]:
    """What stands before the blank, without the space that belongs to the answer, and what stands behind it."""
    before, _, after = prompt.partition("[Y]")
    return before.removesuffix(" "), after


def _filled(fact: LamaFact, prompt: str, reads_left: bool) -> str:
    before, _, after = prompt.partition("[Y]")
    return f"{before}{fact.object}" + ("" if reads_left else after)


def _key(fact: LamaFact) -> str:
    """Short, and without the data's own text: baselines hold none."""
    return f"{fact.relation}:{digest_json(fact.identity)[:12]}"
