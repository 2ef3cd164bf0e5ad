"""Facts: the project's own LAMA-shaped probe, asked in two ways.

``facts`` (primary) ranks at most 12 candidate answers by the log-likelihood of the whole sentence, as BEAR does (Wiland et
al. 2024). ``facts_blank`` asks at the blank and ranks the relation's single-token answers there, as LAMA does (Petroni
et al. 2019); it has its own N and is a guard, not more evidence. The data and their provenance lie in ``data/facts``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.core.digest import digest_json, digest_sequence, digest_text
from harness.core.errors import ModelError, ScoreError
from harness.core.probes import NGRAM_WORDS
from harness.core.records import Item, ItemOutcome, TaskInfo
from harness.knowledge.factbook import FOLDER, Fact, FactBook, Relation, fill, load_facts, prompt
from harness.knowledge.near_tie import is_near_tie
from harness.knowledge.sample import chance_share, reasons, sample
from harness.knowledge.sentences import askable_sentences
from harness.scoring import NEAR_TIE_NATS, Answer, Reading, Request, Score, TaskKind, Tokenizer

MAX_OPTIONS = 12
MAX_GOLD = 3
"""Right answers shown at most: of 14 neighbours of China, six among twelve would make guessing right half of the time."""

SEED = "facts-1"
"""Part of every digest that draws candidates. Another seed is another task: baselines would have to be measured again."""

TIE_RULE = "right only if a right answer scores above every wrong one; a tie counts as wrong"

NO_GOLD = "facts without a right answer of one token"
NO_WRONG = "facts without a wrong candidate of one token"
MERGED = "facts with an answer that this tokenizer joins with the words around the blank"
LONG_CANDIDATES = "candidate answers of more than one token (not facts)"


@dataclass(frozen=True)
class Facts:
    """Rank at most 12 candidates a fact by the likelihood of the whole sentence; every right one counts. ``family``: the
    model's, which says how it reads."""

    limit: int | None = None
    folder: Path = FOLDER
    family: str | None = None
    name = "facts"
    kind: ClassVar[TaskKind] = "sentence"
    probe_words: ClassVar[int] = NGRAM_WORDS
    keeps_option_scores = True
    clusters: ClassVar[bool] = False

    def spec_digest(self) -> str:
        """The digest of data, protocol and candidate draw; a limit leaves it as it is, because it only leaves items out."""
        return _spec_digest(self.name, load_facts(self.folder))

    def probe_sentences(self) -> Iterable[str]:
        """Every right sentence, whatever the limit."""
        return _right_sentences(load_facts(self.folder))

    def build(self, tokenizer: Tokenizer) -> tuple[TaskInfo, tuple[Item, ...]]:
        """One item a fact, in the file's order; sentences that the model can't read are left out and counted. Raises
        ModelError when none is left."""
        book = load_facts(self.folder)
        every = [_ranked_item(fact, book.relations[fact.relation]) for fact in book.facts]
        excluded: Counter[str] = Counter()
        items = _readable(self, every, "sentence", tokenizer, excluded, takes_out=self.family == "seq2seq")
        kept = sample(items, self.limit, SEED)
        protocol = f"log-likelihood of the whole sentence over at most {MAX_OPTIONS} candidates"
        return _info(self, protocol, book, kept, excluded), kept

    def requests(self, item: Item) -> tuple[Request, ...]:
        """The whole sentence with each option in the blank."""
        return at_blank(item, "sentence")

    def outcome(self, item: Item, answers: Sequence[Answer], *, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
        """Which sentence the model finds likeliest."""
        return rank_options(item, [score.loglik_nats for score in scores_of(item, answers)], near_tie_nats=near_tie_nats)


@dataclass(frozen=True)
class FactsBlank:
    """Rank the relation's single-token answers at the blank: P@1, and the rank for P@10 and MRR.

    What lies after the blank is read by encoders and encoder-decoders; a decoder reads from left to right. ``pooled``: whether
    the items enter the cell's pool; beside ``Facts`` they would count the same facts twice. ``family``: the model's.
    """

    limit: int | None = None
    folder: Path = FOLDER
    pooled: bool = False
    family: str | None = None
    name = "facts_blank"
    kind: ClassVar[TaskKind] = "blank"
    probe_words: ClassVar[int] = NGRAM_WORDS
    keeps_option_scores = False
    clusters: ClassVar[bool] = False

    def spec_digest(self) -> str:
        """The digest of data and protocol; a limit leaves it as it is, because it only leaves items out."""
        return _spec_digest(self.name, load_facts(self.folder))

    def probe_sentences(self) -> Iterable[str]:
        """Every right sentence, whatever the limit."""
        return _right_sentences(load_facts(self.folder))

    def build(self, tokenizer: Tokenizer) -> tuple[TaskInfo, tuple[Item, ...]]:
        """One item a fact that has a right and a wrong answer of one token. Raises ModelError when there is none."""
        book = load_facts(self.folder)
        vocabularies = {name: single_token_answers(tokenizer, relation) for name, relation in book.relations.items()}
        excluded = Counter({LONG_CANDIDATES: sum(len(r.answers) - len(vocabularies[n]) for n, r in book.relations.items())})
        items = []
        for fact in book.facts:
            item = _blank_item(fact, book.relations[fact.relation], vocabularies[fact.relation])
            if isinstance(item, Item):
                items.append(item)
            else:
                excluded[item] += 1
        if not items:
            raise ModelError(
                f"{self.name}: this tokenizer writes no answer as one token, so there is nothing to ask; leave the task out."
            )
        if self.family in ("encoder", "seq2seq"):  # a decoder reads up to the blank, cut on the left where that is too long
            items = _readable(self, items, "blank", tokenizer, excluded, takes_out=True)
        kept = sample(items, self.limit, SEED)
        protocol = "log-likelihood of single-token answers at the blank over the relation's vocabulary"
        return _info(self, protocol, book, kept, excluded), kept

    def requests(self, item: Item) -> tuple[Request, ...]:
        """Each option in the blank."""
        return at_blank(item, "blank")

    def outcome(self, item: Item, answers: Sequence[Answer], *, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
        """The rank of the best right answer among the wrong ones. Raises ScoreError when an option took several tokens."""
        scores = scores_of(item, answers)
        long = [option for option, score in zip(item.options, scores, strict=True) if score.n_tokens != 1]
        if long:
            raise ScoreError(f"{item.id}: {long[0]!r} took several tokens at the blank, expected one; the tokenizer changed.")
        return rank_options(item, [score.loglik_nats for score in scores], near_tie_nats=near_tie_nats)


# ------------------------------------------------------------------------------------------------ kernels


def choose_options(fact: Fact, relation: Relation) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The candidates of a fact and the positions of the right ones: at most 12, at most 3 of them right.

    Drawn and placed by SHA-256 of seed, fact and answer, so neither other facts nor the order of the answer set matter. An
    answer that joins the set later changes a fact only where it is itself drawn. ``fact.also`` is never a candidate.
    """

    gold = _draw(fact, "option", fact.answers)[:MAX_GOLD]
    wrong = _draw(fact, "option", _wrong_answers(fact, relation.answers))[: MAX_OPTIONS - len(gold)]
    options = tuple(_draw(fact, "place", [*gold, *wrong]))
    return options, tuple(i for i, option in enumerate(options) if option in gold)


def _draw(fact: Fact, purpose: str, answers: Iterable[str]) -> list[str]:
    return sorted(answers, key=lambda answer: digest_text(f"{SEED}\0{purpose}\0{fact.id}\0{answer}"))


def single_token_answers(tokenizer: Tokenizer, relation: Relation) -> tuple[str, ...]:
    """The answers that add exactly one token, and one of their own, to the words before the blank."""
    lead = relation.template[relation.template.index("[X]") + len("[X]") : relation.template.rindex("[Y]")].strip()
    base = tokenizer.encode(lead, add_special_tokens=False)
    tokens = {answer: tokenizer.encode(f"{lead} {answer}", add_special_tokens=False) for answer in relation.answers}
    single = {answer: ids[-1] for answer, ids in tokens.items() if len(ids) == len(base) + 1 and ids[:-1] == base}
    counts = Counter(single.values())
    return tuple(answer for answer in relation.answers if answer in single and counts[single[answer]] == 1)


def rank_options(item: Item, logliks_nats: Sequence[float], *, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
    """The outcome of an item from its options' scores. Raises ScoreError for a NaN, an infinity or a missing score.

    ``rank`` is that of the best right option among the wrong ones, ties counted against it (other right options do not
    push it down). ``answer`` is the likeliest option; of equal ones a wrong one, then the first.
    """
    if len(logliks_nats) != len(item.options):
        raise ScoreError(f"{item.id}: {len(logliks_nats)} scores came for {len(item.options)} options; the scorer lost some.")
    if not all(math.isfinite(loglik) for loglik in logliks_nats):
        raise ScoreError(f"{item.id}: a score is NaN or infinite: the model's weights or its dtype are broken.")
    gold = set(item.gold)
    best = max(logliks_nats[i] for i in gold)
    wrong = [loglik for i, loglik in enumerate(logliks_nats) if i not in gold]
    margin = best - max(wrong) if wrong else 0.0
    return ItemOutcome(
        answer=max(range(len(item.options)), key=lambda i: (logliks_nats[i], i not in gold, -i)),
        correct=not wrong or margin > 0,
        rank=1 + sum(loglik >= best for loglik in wrong),
        margin_nats=margin,
        near_tie=is_near_tie(logliks_nats, gold, [near_tie_nats / 2] * len(logliks_nats)),
        option_logliks_nats=tuple(logliks_nats),
    )


def at_blank(item: Item, reading: Reading) -> tuple[Request, ...]:
    """One request an option, put into the blank. The space before the blank belongs to the answer, as tokenizers have it."""
    before, _, after = item.prompt.rpartition("[Y]")
    space = " " if before.endswith(" ") else ""
    return tuple(Request(before.removesuffix(" "), f"{space}{option}", after, reading) for option in item.options)


def scores_of(item: Item, answers: Sequence[Answer]) -> list[Score]:
    """The answers as scores, one an option. Raises ScoreError."""
    scores = [answer for answer in answers if isinstance(answer, Score)]
    if len(scores) != len(item.options):
        raise ScoreError(f"{item.id}: {len(scores)} scores came for {len(item.options)} options; the scorer lost some.")
    return scores


# ------------------------------------------------------------------------------------------------ items and what they are


def _readable(
    task: Facts | FactsBlank,
    items: Sequence[Item],
    reading: Reading,
    tokenizer: Tokenizer,
    excluded: Counter[str],
    *,
    takes_out: bool,
) -> list[Item]:
    """The items whose sentences the model can read; ``excluded`` counts the others. Raises ModelError when none is left."""
    kept = askable_sentences(
        items, lambda item: at_blank(item, reading), tokenizer, excluded, takes_out=takes_out, merged=MERGED
    )
    if not kept:
        why = reasons(excluded)
        raise ModelError(f"{task.name}: none of its facts can be asked ({why}); leave it out, or word the facts otherwise.")
    return kept


def _ranked_item(fact: Fact, relation: Relation) -> Item:
    options, gold = choose_options(fact, relation)
    return Item(fact.id, fact.relation, prompt(relation, fact), options, gold)


def _blank_item(fact: Fact, relation: Relation, vocabulary: Sequence[str]) -> Item | str:
    """The item, or the reason why the blank can't be asked."""
    gold = set(fact.answers) & set(vocabulary)
    wrong = _wrong_answers(fact, vocabulary)
    if not gold:
        return NO_GOLD
    if not wrong:
        return NO_WRONG
    options = tuple(sorted(gold | wrong))
    return Item(
        fact.id, fact.relation, prompt(relation, fact), options, tuple(i for i, option in enumerate(options) if option in gold)
    )


def _wrong_answers(fact: Fact, answers: Iterable[str]) -> set[str]:
    return set(answers) - set(fact.answers) - set(fact.also)


def _right_sentences(book: FactBook) -> Iterable[str]:
    return (fill(prompt(book.relations[fact.relation], fact), answer) for fact in book.facts for answer in fact.answers)


def _spec_digest(name: str, book: FactBook) -> str:
    return digest_json([name, TIE_RULE, SEED, MAX_OPTIONS, MAX_GOLD, book.digest])


def _info(
    task: Facts | FactsBlank, protocol: str, book: FactBook, items: Sequence[Item], excluded: Mapping[str, int]
) -> TaskInfo:
    return TaskInfo(
        name=task.name,
        protocol=protocol,
        score_class="log_likelihood",
        pooled=isinstance(task, Facts) or task.pooled,
        tie_rule=TIE_RULE,
        data_version=book.version,
        spec_digest=task.spec_digest(),
        items_digest=digest_sequence(item.digest for item in items),
        n_items=len(items),
        chance=chance_share(items),
        majority=_majority(items),
        excluded=dict(sorted(excluded.items())),
        limit=task.limit,
    )


def _majority(items: Iterable[Item]) -> float:
    """The accuracy of always giving the relation's commonest right answer: knows the relation, not the subject."""
    right: dict[str, Counter[str]] = defaultdict(Counter)
    n_items = 0
    for item in items:
        n_items += 1
        right[item.group].update(item.options[i] for i in item.gold)
    return sum(max(counts.values()) for counts in right.values()) / n_items
