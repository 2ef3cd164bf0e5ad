"""LAMA (Petroni et al. 2019): does a model fill the blank of a fact's sentence with the object?

The object is ranked among all words of a candidate vocabulary, each one token of the model, at the blank: P@1 is whether it
comes first, and its rank gives P@10 and MRR. A decoder reads up to the blank, so relations whose template goes on behind it
are left out there, and counted; ``whole_sentence`` asks them (and any other) by the likelihood of the whole sentence over the
relation's own objects. As in LAMA each (subject, object) is a fact of its own: another right object counts as a wrong word.
Relations are what P@1 is first averaged over ("macro"): the report has both means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from harness.core.digest import digest_json, digest_sequence, digest_text
from harness.core.errors import ConfigError, ModelError, ScoreError
from harness.core.probes import NGRAM_WORDS
from harness.core.records import Item, ItemOutcome, TaskInfo
from harness.knowledge.facts import TIE_RULE, at_blank, rank_options, scores_of
from harness.knowledge.lama_facts import LamaTable
from harness.knowledge.lama_items import (
    MOST_WORDS,
    SEED,
    Asked,
    blank_items,
    majority_share,
    sample_relations,
    select,
    sentence_items,
)
from harness.knowledge.lama_uhn import CommonNames, read_names
from harness.knowledge.sample import chance_share, reasons, sample
from harness.knowledge.words import Vocabulary, make_vocabulary, read_words
from harness.scoring import NEAR_TIE_NATS, Answer, Blank, Question, Standing, TaskKind, Tokenizer

PROTOCOL = "lama/1"
EVIDENCE_WORDS = 13
"""Words of an overlap with natural text that counts (Brown et al. 2020)."""


@dataclass(frozen=True, kw_only=True)
class Lama:
    """LAMA's facts of one ``part`` (trex, google_re, conceptnet, squad), or LAMA-shaped facts of one's own (``file``, JSON
    lines).

    ``relations``: these only. ``evidence``: the sentences that the facts were found in, in place of templates. ``candidates``:
    "words", the model's own, or "objects", those of the data, without the articles that a decoder likes to go on with;
    or ``vocabulary``, a file of words that compared models share. ``whole_sentence``: rank the relation's
    objects by whole sentences. ``unhelpful_names``: leave out what names give away, "in" the subject or also "by" a person's
    name, which needs ``names``. ``per_relation``: a fixed sample of so many facts of each relation. ``pooled``: whether the
    items enter the cell's pool.
    """

    part: str | None = None
    file: Path | None = None
    relations: Sequence[str] = ()
    evidence: bool = False
    candidates: str = "words"
    vocabulary: Path | None = None
    whole_sentence: bool = False
    unhelpful_names: str | None = None
    names: Path | None = None
    per_relation: int | None = None
    pooled: bool = True
    limit: int | None = None
    data: Path | None = None
    family: str | None = None
    name = "lama"
    clusters: ClassVar[bool] = True
    keeps_option_scores = False

    def __post_init__(self) -> None:
        if (self.part is None) == (self.file is None):
            raise ConfigError('a lama task has either `part = "trex"` (or another part) or `file = "<JSON lines>"`: give one.')
        if self.unhelpful_names not in (None, "in", "by"):
            raise ConfigError(f'{self._called}: unhelpful_names is {self.unhelpful_names!r}, expected "in" or "by".')
        if (self.unhelpful_names == "by") != (self.names is not None):
            raise ConfigError(
                f'{self._called}: unhelpful_names = "by" and `names` go together: the filter needs a list of what a masked '
                "language model guesses from names, and no model is named here; make one with scripts/list_common_names.py."
            )
        if self.per_relation is not None and (type(self.per_relation) is not int or self.per_relation < 1):
            raise ConfigError(f"{self._called}: per_relation is {self.per_relation!r}, expected 1 or more.")
        if isinstance(self.relations, str) or not all(isinstance(name, str) for name in self.relations):
            raise ConfigError(f"{self._called}: relations is {self.relations!r}, expected a list of names.")
        if self.candidates not in ("words", "objects"):
            raise ConfigError(f'{self._called}: candidates is {self.candidates!r}, expected "words" or "objects".')
        if self.vocabulary is not None and (self.whole_sentence or self.candidates == "objects"):
            raise ConfigError(
                f"{self._called}: `vocabulary` names the candidates, and so do `whole_sentence` and `candidates`: keep one."
            )

    @property
    def kind(self) -> TaskKind:
        """Whole sentences, or a rank at the blank."""
        return "sentence" if self.whole_sentence else "ranking"

    @property
    def probe_words(self) -> int:
        """Natural text shares short runs of words with any other."""
        return EVIDENCE_WORDS if self.evidence else NGRAM_WORDS

    def spec_digest(self) -> str:
        """The digest of data, protocol, lists and choices; a limit leaves it as it is."""
        lists = [None if words is None else digest_sequence(map(digest_text, words)) for words in (self._words,)]
        names = None if self._names is None else digest_json([self._names.model, self._names.words])
        choices = [self.evidence, self.whole_sentence, self.unhelpful_names, self.per_relation, sorted(self.relations)]
        data = [self.part, self._table.source.digest([self._table.split])]
        return digest_json([PROTOCOL, TIE_RULE, SEED, MOST_WORDS, data, choices, lists, names])

    def probe_sentences(self) -> Iterable[str]:
        """Every right sentence, whatever the limit."""
        return (prompt.replace("[Y]", fact.object) for fact, prompt in self._askable[0])

    def build(self, tokenizer: Tokenizer) -> tuple[TaskInfo, tuple[Item, ...]]:
        """One item a fact, in the data's order. Raises ConfigError, ModelError when none can be asked."""
        askable, excluded = self._askable
        excluded = excluded.copy()
        vocabulary = None if self.whole_sentence else make_vocabulary(tokenizer, self._words)
        if vocabulary is None:
            items = sentence_items(askable, tokenizer, excluded, takes_out=self.family == "seq2seq")
        else:
            self._vocabularies[_mark(vocabulary)] = vocabulary
            items = blank_items(askable, vocabulary, tokenizer, excluded, reads_left=self.family == "decoder")
        items = sample_relations(items, self.per_relation, excluded)
        if not items:
            raise ModelError(f"{self._called}: none of its facts can be asked ({reasons(excluded)}); leave the task out.")
        kept = sample(items, self.limit, SEED)
        if vocabulary is not None:  # other words compete, so it is another item; the sample is the same all the same
            kept = tuple(replace(item, id=f"{item.id}@{_mark(vocabulary)}") for item in kept)
        return self._info(kept, excluded, vocabulary), kept

    def requests(self, item: Item) -> Sequence[Question]:
        """The blank with its candidates, or the whole sentence with each object."""
        if self.whole_sentence:
            return at_blank(item, "sentence")
        before, _, after = item.prompt.partition("[Y]")
        space = " " if before.endswith(" ") else ""
        vocabulary = self._vocabularies[item.id.rpartition("@")[2]]
        return (Blank(before.removesuffix(" "), f"{space}{item.options[0]}", after, vocabulary.candidates),)

    def outcome(self, item: Item, answers: Sequence[Answer], *, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
        """Where the object stands. Raises ScoreError."""
        if self.whole_sentence:
            logliks = [score.loglik_nats for score in scores_of(item, answers)]
            return rank_options(item, logliks, near_tie_nats=near_tie_nats)
        standings = [answer for answer in answers if isinstance(answer, Standing)]
        if len(standings) != 1:
            raise ScoreError(f"{item.id}: {len(standings)} standings came for one blank; the scorer lost some.")
        vocabulary = self._vocabularies[item.id.rpartition("@")[2]]
        return standing_outcome(standings[0], vocabulary, near_tie_nats=near_tie_nats)

    # -------------------------------------------------------------------------------------------- made once an object

    @property
    def _called(self) -> str:
        return f"the lama task {self.part or str(self.file)!r}"

    @cached_property
    def _table(self) -> LamaTable:
        return LamaTable.of_file(self.file) if self.file is not None else LamaTable.of_part(self.part or "", self.data)

    @cached_property
    def _words(self) -> tuple[str, ...] | None:
        """The candidate words; None: the model's own."""
        if self.candidates == "objects":
            return tuple(sorted({fact.object for fact in self._table.facts()}))
        return None if self.vocabulary is None else read_words(self.vocabulary)

    @cached_property
    def _names(self) -> CommonNames | None:
        return None if self.names is None else read_names(self.names)

    @cached_property
    def _vocabularies(self) -> dict[str, Vocabulary]:
        """Filled by ``build``: what competes at the items' blanks, by the mark in their ids."""
        return {}

    @cached_property
    def _askable(self) -> tuple[tuple[Asked, ...], Counter[str]]:
        """The facts that any model can be asked, each with its sentence and blank, and why the others can't."""
        facts = self._table.facts()
        if unknown := sorted(set(self.relations) - {fact.relation for fact in facts}):
            known = ", ".join(sorted({fact.relation for fact in facts}))
            raise ConfigError(f"{self._called} has no relation {unknown[0]!r}: it has {known}; correct the matrix.")
        return select(
            (fact for fact in facts if not self.relations or fact.relation in self.relations),
            evidence=self.evidence,
            leaves_out_names=self.unhelpful_names is not None,
            names=self._names,
        )

    def _info(self, kept: Sequence[Item], excluded: Mapping[str, int], vocabulary: Vocabulary | None) -> TaskInfo:
        asked = "evidence sentences" if self.evidence else "templates"
        protocol = f"LAMA {self.part or self._table.what}, {asked}: "
        if vocabulary is None:
            protocol += "log-likelihood of the whole sentence over the relation's objects"
        else:
            own = "the data's objects" if self.candidates == "objects" else "the model's own"
            which = self.vocabulary.name if self.vocabulary is not None else own
            left_out = f", {vocabulary.n_left_out} of the list left out" if vocabulary.n_left_out else ""
            protocol += f"rank at the blank among {len(vocabulary)} words ({which} {_mark(vocabulary)}{left_out})"
        return TaskInfo(
            name=self.name,
            protocol=protocol,
            score_class="log_likelihood",
            pooled=self.pooled,
            tie_rule=TIE_RULE,
            data_version=self._table.source.version,
            spec_digest=self.spec_digest(),
            items_digest=digest_sequence(item.digest for item in kept),
            n_items=len(kept),
            chance=chance_share(kept) if vocabulary is None else 1 / len(vocabulary),
            majority=majority_share(kept),
            excluded={reason: n for reason, n in sorted(excluded.items()) if n},
            limit=self.limit,
        )


# ------------------------------------------------------------------------------------------------ kernels


def standing_outcome(standing: Standing, vocabulary: Vocabulary, *, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
    """The outcome of a ranked object: ``rank`` is that among all candidates, ties counted against it; ``text`` is the
    likeliest word, and ``answer`` -1 where that is another one."""
    others = [
        loglik for token, loglik in zip(standing.best, standing.best_logliks_nats, strict=True) if token != standing.token
    ]
    margin = standing.loglik_nats - others[0]
    correct = standing.n_ahead == 0
    return ItemOutcome(
        answer=0 if correct else -1,
        correct=correct,
        rank=1 + standing.n_ahead,
        margin_nats=margin,
        near_tie=abs(margin) < near_tie_nats,
        option_logliks_nats=(standing.loglik_nats,),
        text=vocabulary.words[standing.best[0]],
    )


def _mark(vocabulary: Vocabulary) -> str:
    return vocabulary.digest[:8]
