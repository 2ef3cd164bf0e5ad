"""BEAR (Wiland et al. 2024): each answer of a closed set is put into the sentence, and the likeliest sentence is the model's.

Whole sentences let models of every family, and answers of any length, be compared: a decoder gives Σ log p behind its own
prefix token, an encoder the pseudo-log-likelihood (within-word, left to right), an encoder-decoder the answer at the first
sentinel. A sentence begins with a capital, as in the authors' package. Each relation is worded in three templates.

Decoders and encoders are fed the sentence with its answer in place and score all of its tokens, so a tokenizer may join the
answer with its neighbours. An encoder-decoder reads the sentence without it, so there such sentences are left out; so are,
for every family, sentences longer than the window. Both are counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from harness.core.digest import digest_json, digest_sequence
from harness.core.errors import ConfigError, ModelError
from harness.core.probes import NGRAM_WORDS
from harness.core.records import Item, ItemOutcome, TaskInfo
from harness.knowledge.bear_facts import BearBook, BearFact, load_bear
from harness.knowledge.facts import TIE_RULE, rank_options, scores_of
from harness.knowledge.sample import chance_share, reasons, sample
from harness.knowledge.sentences import askable_sentences
from harness.scoring import NEAR_TIE_NATS, Answer, Request, TaskKind, Tokenizer

PROTOCOL = "bear/1"
SEED = "bear-1"
"""Part of every digest that draws a sample."""

NOT_SAMPLED = "facts outside the fixed sample"
MERGED = "sentences where this tokenizer joins an answer with the words around the blank"


@dataclass(frozen=True, kw_only=True)
class Bear:
    """BEAR's facts in one wording, ``template`` (0, 1 or 2), or in "all" of them, an item each.

    ``relations``: these only. ``n_facts``: a fixed sample of so many facts. ``folder``: the authors' own folder, in place of
    mirror and hub. ``pooled``: whether the items enter the cell's pool. ``family``: the model's, which says how it reads.
    """

    template: int | Literal["all"] = 0
    relations: Sequence[str] = ()
    n_facts: int | None = None
    folder: Path | None = None
    pooled: bool = True
    limit: int | None = None
    data: Path | None = None
    family: str | None = None
    name = "bear"
    clusters: ClassVar[bool] = True
    kind: ClassVar[TaskKind] = "sentence"
    probe_words: ClassVar[int] = NGRAM_WORDS
    keeps_option_scores = True

    def __post_init__(self) -> None:
        if self.template != "all" and (type(self.template) is not int or self.template < 0):
            raise ConfigError(f'a bear task has `template` {self.template!r}: expected 0, 1, … or "all"; correct the matrix.')
        if isinstance(self.relations, str) or not all(isinstance(name, str) for name in self.relations):
            raise ConfigError(f"a bear task has `relations` {self.relations!r}: expected a list of names; correct the matrix.")
        if self.n_facts is not None and (type(self.n_facts) is not int or self.n_facts < 1):
            raise ConfigError(f"a bear task has `n_facts` {self.n_facts!r}: expected 1 or more; correct the matrix.")

    def spec_digest(self) -> str:
        """The digest of data, protocol and choices; a limit leaves it as it is."""
        choices = [self.template, sorted(self.relations), self.n_facts]
        return digest_json([PROTOCOL, TIE_RULE, SEED, self._book.digest, choices])

    def probe_sentences(self) -> Iterable[str]:
        """Every right sentence in every wording that is asked, whatever the limit."""
        for item in self._items[0]:
            yield _fill(item.prompt, item.options[item.gold[0]])

    def build(self, tokenizer: Tokenizer) -> tuple[TaskInfo, tuple[Item, ...]]:
        """One item a fact and wording, in the data's order. Raises ModelError when none can be asked.

        The fixed sample is drawn before sentences are left out, so that it stays the same whatever the tokenizer and wording.
        """
        drawn, left_out = self._items
        excluded = Counter(left_out)
        takes_out = self.family == "seq2seq"
        items = askable_sentences(drawn, self.requests, tokenizer, excluded, takes_out=takes_out, merged=MERGED)
        if not items:
            raise ModelError(f"the bear task: none of its facts can be asked ({reasons(excluded)}); leave the task out.")
        kept = sample(items, self.limit, SEED)
        return self._info(kept, excluded), kept

    def requests(self, item: Item) -> tuple[Request, ...]:
        """The whole sentence with each answer in the blank."""
        before, _, after = item.prompt.partition("[Y]")
        space = " " if before.endswith(" ") else ""
        begins = not before
        return tuple(
            Request(before.removesuffix(" "), f"{space}{_capital(option) if begins else option}", after, "sentence")
            for option in item.options
        )

    def outcome(self, item: Item, answers: Sequence[Answer], *, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
        """Which sentence the model finds likeliest."""
        return rank_options(item, [score.loglik_nats for score in scores_of(item, answers)], near_tie_nats=near_tie_nats)

    # -------------------------------------------------------------------------------------------- made once an object

    @cached_property
    def _book(self) -> BearBook:
        return load_bear(self.data, self.folder)

    @cached_property
    def _items(self) -> tuple[tuple[Item, ...], dict[str, int]]:
        book = self._book
        if unknown := sorted(set(self.relations) - set(book.relations)):
            raise ConfigError(
                f"BEAR has no relation {unknown[0]!r}: it has {', '.join(sorted(book.relations))}; correct the matrix."
            )
        facts = [fact for fact in book.facts if not self.relations or fact.relation in self.relations]
        first = {_key(fact): fact for fact in facts}
        if self.n_facts is not None:  # drawn as facts, so that every wording asks the same ones
            drawn = sample([Item(key, "", "", ("",), (0,)) for key in first], self.n_facts, SEED)
            first = {item.id: first[item.id] for item in drawn}
        items = tuple(self._item(key, fact, wording) for key, fact in first.items() for wording in self._wordings(fact))
        left_out = len(facts) - len(first)
        return items, {NOT_SAMPLED: left_out} if left_out else {}

    def _wordings(self, fact: BearFact) -> Sequence[int]:
        n = len(self._book.relations[fact.relation].templates)
        if self.template == "all":
            return range(n)
        if self.template >= n:
            raise ConfigError(
                f"BEAR words {fact.relation} in {n} way{'' if n == 1 else 's'}, counted from 0, and template "
                f"{self.template} is asked for; correct the matrix."
            )
        return (self.template,)

    def _item(self, key: str, fact: BearFact, wording: int) -> Item:
        relation = self._book.relations[fact.relation]
        before, _, after = relation.templates[wording].partition("[X]")
        prompt = _capital(f"{before}{fact.subject}{after}")
        return Item(f"{key}.{wording}", fact.relation, prompt, relation.answers, (fact.answer,))

    def _info(self, kept: Sequence[Item], excluded: Mapping[str, int]) -> TaskInfo:
        worded = "all wordings" if self.template == "all" else f"template {self.template}"
        return TaskInfo(
            name=self.name,
            protocol=f"BEAR, {worded}: log-likelihood of the whole sentence over the relation's answers",
            score_class="log_likelihood",
            pooled=self.pooled,
            tie_rule=TIE_RULE,
            data_version=self._book.version,
            spec_digest=self.spec_digest(),
            items_digest=digest_sequence(item.digest for item in kept),
            n_items=len(kept),
            chance=chance_share(kept),
            majority=_majority(kept),
            excluded=dict(sorted(excluded.items())),
            limit=self.limit,
        )


def _key(fact: BearFact) -> str:
    """Short, and without the data's own text: baselines hold none."""
    return f"{fact.relation}:{digest_json([fact.relation, fact.subject])[:12]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fill(prompt: str, answer: str) -> str:
    """
    >>> _fill("[Y] is the capital of Latvia.", "riga")
    'Riga is the capital of Latvia.'
    """
    return _capital(prompt.replace("[Y]", answer))


def _majority(items: Sequence[Item]) -> float:
    """The accuracy of always giving the relation's commonest answer."""
    right: dict[str, Counter[int]] = defaultdict(Counter)
    for item in items:
        right[item.group][item.gold[0]] += 1
    return sum(max(counts.values()) for counts in right.values()) / len(items)
