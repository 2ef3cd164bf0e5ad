"""Perplexity beside the tasks, against the dense model: where one says that something was lost and the other does not.

A perplexity is compared text by text (paired t on nats a word, or a byte). What a task lost is the ``loss`` of
``report.dense``, as everywhere in the report: by items (Tango), and for relations like these (cluster-robust t and bootstrap)
where a task's relations stand for others; of fewer than ten of them it is that of these items alone. Hoang et al. (2023) and
Jaiswal et al. (2023) found both kinds of disagreement: perplexity hardly moves while knowledge goes, or moves alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from harness.core.outcomes import Outcomes
from harness.core.records import Cell
from harness.core.verdicts import POOLED, Estimate
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.dense import compared_dense
from harness.report.pairs import Against, Compared, Pair, compared
from harness.report.view import anchor
from harness.stats.continuous import PairedT, paired_t

LEVEL = 0.95
DENSE: Against = "dense model"


@dataclass(frozen=True, slots=True)
class PerplexityRow:
    """One task beside the perplexity. ``loss`` is the share of items lost net of the dense model's, in points."""

    task: str
    loss: str
    interval: str
    word: str
    disagrees: bool


@dataclass(frozen=True, slots=True)
class PerplexityTable:
    """One perplexity task of one compressed cell; ``change`` is in nats a word (or byte), positive = less likely now."""

    cell: str
    task: str
    id: str
    now: str
    dense: str
    change: str
    interval: str
    n_texts: str
    summary: str
    rows: tuple[PerplexityRow, ...]


@dataclass(frozen=True, slots=True)
class PerplexityView:
    """All of them."""

    title: str
    tables: tuple[PerplexityTable, ...]


def view_perplexity(bundle: RunBundle) -> PerplexityView:
    """The perplexities of a run, each beside the tasks of its cell."""
    return PerplexityView("Perplexity beside the tasks", tuple(_tables(bundle)))


def mean_nats(outcomes: Outcomes, words: np.ndarray) -> float:
    """-Σ log-likelihood / Σ words over all texts: the logarithm of lm-eval's perplexity, which may be too large for a number.
    0 where no text has words that are known."""
    n_words = float(words.sum())
    return float(-_logliks_nats(outcomes).sum()) / n_words if n_words else 0.0


def count_words(*answers: Outcomes) -> np.ndarray:
    """How many words (or bytes) each text has: its log-likelihood over its margin. A model that is certain of a text has 0 for
    both, and the next one's answer tells; 0 words where all of them are certain: such a text is left out of the mean."""
    words = np.zeros(len(answers[0]))
    for outcomes in answers:
        is_open = (words == 0) & (outcomes.margins_nats != 0)
        words[is_open] = _logliks_nats(outcomes)[is_open] / outcomes.margins_nats[is_open]
    return words


def _logliks_nats(outcomes: Outcomes) -> np.ndarray:
    """The texts' log-likelihoods. Raises ValueError where scores were not kept."""
    if outcomes.option_logliks_nats is None:
        raise ValueError("a perplexity needs the texts' log-likelihoods")
    return outcomes.option_logliks_nats.values


def _tables(bundle: RunBundle) -> Iterable[PerplexityTable]:
    found = compared(bundle)
    for (cell, name), one in found.items():
        made = one.pairs.get(DENSE)
        if one.run.info.score_class != "perplexity" or made is None or Cell.parse(cell).is_dense or len(one.run.outcomes) < 2:
            continue
        losses = {
            task: kept.loss
            for task, kept in compared_dense(bundle)[cell].items()
            if task != POOLED and found[cell, task].run.info.score_class != "perplexity"
        }
        yield _table(name, one, made, losses)


def _table(name: str, one: Compared, made: Pair, losses: Mapping[str, Estimate]) -> PerplexityTable:
    now, was = one.run.outcomes, made.reference.take(made.places)
    change = paired_t(was.margins_nats - now.margins_nats, 0.0, LEVEL)
    rows = tuple(_row(task, loss, change) for task, loss in losses.items())
    n = sum(row.disagrees for row in rows)
    return PerplexityTable(
        cell=one.run.cell,
        task=fmt.visible(name),
        id=anchor("perplexity", one.run.cell, name),
        now=fmt.perplexity(mean_nats(now, count_words(now, was))),
        dense=fmt.perplexity(mean_nats(was, count_words(was, now))),
        change=_signed(change.mean.value),
        interval=f"[{_signed(change.mean.low)}, {_signed(change.mean.high)}]",
        n_texts=fmt.count(len(now)),
        summary=f"{_moved(change)}; {fmt.plural(n, 'task')} of {len(rows)} say otherwise" if rows else _moved(change),
        rows=rows,
    )


def _row(task: str, loss: Estimate, change: PairedT) -> PerplexityRow:
    is_lost, is_worse = loss.low > 0, change.mean.low > 0
    words = {
        (True, True): "both fell",
        (False, False): "neither fell clearly",
        (True, False): "knowledge fell, perplexity did not",
        (False, True): "perplexity rose, the task did not clearly fall",
    }
    return PerplexityRow(
        task=fmt.visible(task),
        loss=fmt.points(loss.value),
        interval=fmt.points_interval(loss.low, loss.high),
        word=words[is_lost, is_worse],
        disagrees=is_lost != is_worse,
    )


def _moved(change: PairedT) -> str:
    if change.mean.low > 0:
        return "less likely texts than the dense model finds them"
    return "likelier texts than the dense model finds them" if change.mean.high < 0 else "no clear change of perplexity"


def _signed(nats: float) -> str:
    return f"{'+' if nats > 0 else ''}{fmt.nats(nats)}"
