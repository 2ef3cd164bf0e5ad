"""Items and outcomes of lm-eval's tasks: what each metric compares, in its own arithmetic. Knows nothing of lm-eval's code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.core.errors import ScoreError
from harness.core.outcomes import UNPARSED
from harness.core.records import Item, ItemOutcome
from harness.knowledge.near_tie import is_near_tie
from harness.scoring import NEAR_TIE_NATS, Generated, Score, TaskKind

KINDS: Mapping[str, TaskKind] = {
    "multiple_choice": "continuation",
    "loglikelihood": "continuation",
    "loglikelihood_rolling": "rolling",
    "generate_until": "generation",
}

CHOICE_TIE_RULE = "lm-eval's: of equally likely options the first is given, right or wrong"
GREEDY_TIE_RULE = "of equally likely next tokens the first in the vocabulary is the model's own"

PERPLEXITY_TIE_RULE = "nothing is right or wrong: a text's log-likelihood by word or byte"

NO_GOLD = "documents without a right option"
NOT_SAMPLED = "documents outside the fixed sample"
NO_OPTIONS = "documents without options"
NULL_FIELD = "documents with a missing (null) field, which would be asked as the word None"
REPEATED = "documents that repeat an earlier one of their task"
EMPTY_OPTION = "documents with an empty option, which has no length to divide by"

NOTHING_FOUND = "[invalid]"
"""What lm-eval's filters give for a text that holds nothing they look for."""

SEED = "lm_eval-1"
"""Part of the digest that draws a limited sample."""


def option_scores(metric: str, logliks_nats: Sequence[float], choices: Sequence[str]) -> tuple[float, ...]:
    """What a metric compares: sums, sums by character (acc_norm) or byte (acc_bytes), or the gain over no context
    (acc_mutual_info, whose second half of the sums is without).

    >>> option_scores("acc_norm", [-6.0, -4.0], ["twelve", "no"])
    (-1.0, -2.0)
    """
    conditional = logliks_nats[: len(choices)]
    if metric == "acc_mutual_info":
        return tuple(a - b for a, b in zip(conditional, logliks_nats[len(choices) :], strict=True))
    return tuple(loglik / divisor for loglik, divisor in zip(conditional, _divisors(metric, choices), strict=True))


def choice_outcome(
    item: Item,
    scores: Sequence[float],
    choices: Sequence[str],
    *,
    metric: str,
    correct: bool,
    near_tie_nats: float = NEAR_TIE_NATS,
) -> ItemOutcome:
    """The outcome where options compete; of equal scores the first wins, as in lm-eval. ``correct`` is lm-eval's verdict.

    Raises ScoreError for a NaN or an infinity. The margin, and what counts as a near-tie, are in the metric's own units:
    nats, or nats by character or byte of the ``choices``.
    """
    if not all(math.isfinite(score) for score in scores):
        raise ScoreError(f"{item.id}: a score is NaN or infinite: the model's weights or its dtype are broken.")
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    right = [i for i in order if i in item.gold]
    wrong = [i for i in order if i not in item.gold]
    margin = scores[right[0]] - scores[wrong[0]] if wrong else 0.0
    n_sums = 2 if metric == "acc_mutual_info" else 1  # a difference of two is as noisy as both together
    noise = [n_sums * near_tie_nats / 2 / divisor for divisor in _divisors(metric, choices)]
    return ItemOutcome(
        answer=order[0],
        correct=correct,
        rank=1 + sum(order.index(i) < order.index(right[0]) for i in wrong),
        margin_nats=margin,
        near_tie=is_near_tie(scores, item.gold, noise),
        option_logliks_nats=tuple(scores),
    )


def greedy_outcome(item: Item, scores: Sequence[Score], *, correct: bool, near_tie_nats: float = NEAR_TIE_NATS) -> ItemOutcome:
    """The outcome where an option is right if the model would write it unasked: the first such one, or none. A near-tie where
    one of its tokens is ahead of the likeliest other one, or behind it, by less than ``near_tie_nats``."""
    logliks_nats = [score.loglik_nats for score in scores]
    if not all(math.isfinite(loglik) for loglik in logliks_nats):
        raise ScoreError(f"{item.id}: a score is NaN or infinite: the model's weights or its dtype are broken.")
    written = [i for i, score in enumerate(scores[: len(item.options)]) if score.is_greedy]
    return ItemOutcome(
        answer=written[0] if written else -1,
        correct=correct,
        rank=1 if correct else len(item.options) + 1,
        margin_nats=0.0,
        near_tie=any(abs(score.lead_nats) < near_tie_nats for score in scores[: len(item.options)]),
        option_logliks_nats=tuple(logliks_nats[: len(item.options)]),
    )


def generated_outcome(item: Item, made: Generated, taken: object, *, correct: bool) -> ItemOutcome:
    """The outcome of a generated text, of which the task's filter took ``taken``: the accepted answer that it is, or the first
    one where the metric accepts it by other means, or none. An answer that is not right and is empty, never came to an end, or
    is none by the task's own filter is unparsed."""
    same = [i for i, option in enumerate(item.options) if isinstance(taken, str) and _fold(option) == _fold(taken)]
    is_read = made.is_ended and not (isinstance(taken, str) and _fold(taken) in ("", NOTHING_FOUND))
    return ItemOutcome(
        answer=(same or [item.gold[0]])[0] if correct else -1 if is_read else UNPARSED,
        correct=correct,
        rank=1 if correct else len(item.options) + 1,
        margin_nats=0.0,
        near_tie=False,
        option_logliks_nats=(),
        text=made.text,
    )


def perplexity_outcome(item: Item, loglik_nats: float, weight: float) -> ItemOutcome:
    """The outcome of a text: never right; ``margin_nats`` is its log-likelihood by word or byte, the one option's score all of
    it. Raises ScoreError for a NaN or an infinity."""
    if not math.isfinite(loglik_nats):
        raise ScoreError(f"{item.id}: a score is NaN or infinite: the model's weights or its dtype are broken.")
    return ItemOutcome(
        answer=-1,
        correct=False,
        rank=len(item.options) + 1,
        margin_nats=loglik_nats / weight,
        near_tie=False,
        option_logliks_nats=(loglik_nats,),
    )


def _fold(text: str) -> str:
    return text.strip().casefold()


def _divisors(metric: str, choices: Sequence[str]) -> list[float]:
    if metric == "acc_norm":
        return [float(len(choice)) for choice in choices]
    if metric == "acc_bytes":
        return [float(len(choice.encode("utf-8"))) for choice in choices]
    return [1.0] * len(choices)


# ------------------------------------------------------------------------------------------------ items


def gold_positions(gold: Any, options: Sequence[str]) -> tuple[int, ...]:
    """The right options' positions from what a task gives as target: a position, an option's text, or several positions.

    >>> gold_positions("no", ["yes", "no"]), gold_positions([0, 7], ["a", "b"]), gold_positions(-1, ["a"])
    ((1,), (0,), ())
    """
    if isinstance(gold, str):
        return (list(options).index(gold),) if gold in options else ()
    positions = gold if isinstance(gold, list | tuple) else [gold]
    return tuple(sorted({int(i) for i in positions if isinstance(i, int) and 0 <= i < len(options)}))


def blanked(contexts: Sequence[str], continuation: str) -> tuple[str, tuple[str, ...]]:
    """One prompt with a blank, and what goes into it, from contexts that differ in one place.

    >>> blanked(["As Sam ran, the cup", "As Sam ran, the plate"], " fell.")
    ('As Sam ran, the [Y] fell.', ('cup', 'plate'))
    """
    start = _first_difference(contexts)
    return f"{contexts[0][:start]}[Y]{continuation}", tuple(context[start:] for context in contexts)


def majority_share(items: Sequence[Item]) -> float:
    """The accuracy of always giving the commonest right answer: the same text, the same text behind what an item's options
    have in common (super_glue's multirc puts the answer in question before "yes" and "no"), or the same place where the
    prompt lists the options. A model that does not see them can't know a place: lm-eval's sciq has the right one always last.
    """
    texts = Counter(text for item in items for text in {item.options[i] for i in item.gold})
    competing = [item for item in items if len(item.gold) < len(item.options)]
    ends = Counter(end for item in competing for end in {ending(item.options)[i] for i in item.gold})
    listing = (item for item in items if len(item.options) > 1 and all(option in item.prompt for option in item.options))
    places = Counter(i for item in listing for i in item.gold)
    return max((*texts.values(), *ends.values(), *places.values())) / len(items)


def ending(options: Sequence[str]) -> tuple[str, ...]:
    """Options without the whole words that all of them begin with.

    >>> ending(["42. Is that so? Yes", "42. Is that so? No"]), ending(["New York"])
    (('Yes', 'No'), ('New York',))
    """
    if len(options) < 2:
        return tuple(options)
    start = _first_difference(options)
    return tuple(option[start:] for option in options)


def _first_difference(texts: Sequence[str]) -> int:
    """Where the first word begins in which texts differ."""
    low, high = min(texts), max(texts)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return max(low.rfind(space, 0, same) for space in " \n") + 1
