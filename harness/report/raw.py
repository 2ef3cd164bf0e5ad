"""The raw half of report.json: records as they are, numbers unrounded, every flip."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellFailure, CellRun, Item, TaskRun
from harness.core.serial import as_mapping
from harness.report.answers import find_answers, find_groups
from harness.report.bundle import Reference, RunBundle, cell_of
from harness.report.choices import find_choices
from harness.report.dense import accuracy_in, compared_dense
from harness.report.hints import hints
from harness.report.lines import Rows, quote
from harness.report.listing import comparisons, listed, shares
from harness.report.pairs import Flip, Flips, compared, kl_nats
from harness.report.scores import pick_options
from harness.report.status import cell_status, overall_status


def raw_report(bundle: RunBundle) -> dict[str, Any]:
    """A run as plain data: fractions for accuracies and losses, nats for margins, bytes, seconds."""
    flipped: dict[str, dict[str, dict[str, Any]]] = {}
    compared = comparisons(bundle)
    for found, share in zip(compared, shares(compared, MOST_SCORED), strict=True):
        place = flipped.setdefault(found.run.cell, {}).setdefault(found.run.info.name, {})
        place[found.against.replace(" ", "_")] = _flips(found, share)
    return {
        "profile": bundle.profile,
        "policy": bundle.policy,
        "status": overall_status(bundle).word,
        "exit_code": bundle.exit_code,
        "command": bundle.command,
        "started_at": bundle.started_at,
        "ended_at": bundle.ended_at,
        "cells": [_cell(bundle, entry, flipped.get(cell_of(entry).id, {})) for entry in bundle.cells],
        "dense": {model: _reference(bundle.dense[model]) for model in bundle.dense},
        "latencies": [as_mapping(made) for made in bundle.latencies],
        "regimes": [as_mapping(made) for made in bundle.regimes],
        "hints": asdict(hints(bundle)),
        "not_run": [{"cell": left.cell.id, "task": left.task, "reason": left.reason} for left in bundle.not_run],
    }


def _cell(bundle: RunBundle, entry: CellRun | CellFailure, flipped: dict[str, dict[str, Any]]) -> dict[str, Any]:
    cell = cell_of(entry)
    verdict = bundle.verdict_of(cell.id)
    baseline = bundle.baselines.get(cell.id)
    made: dict[str, Any] = {
        "id": cell.id,
        "cell": as_mapping(cell),
        "status": cell_status(verdict).word,
        "verdict": None if verdict is None else as_mapping(verdict),
        "baseline": None if baseline is None else _reference(baseline),
    }
    if isinstance(entry, CellFailure):
        return made | {
            "failure": entry.reason,
            "record": None,
            "accuracy": {},
            "answers": {},
            "against_dense": {},
            "flips": {},
            "relations": {},
            "choices": {},
            "recovered": {},
            "knowledge_groups": [],
        }
    against = {task: asdict(found) for task, found in compared_dense(bundle)[cell.id].items()}
    return made | {
        "failure": None,
        "record": as_mapping(entry.record),
        "accuracy": {name: _accuracy(bundle, cell, run) for name, run in entry.runs.items()},
        "answers": {name: _answers(run) for name, run in entry.runs.items()},
        "against_dense": against,
        "flips": flipped,
        "relations": {name: compared(bundle)[cell.id, name].groups for name in entry.runs},
        "recovered": {one.task: asdict(one) for one in find_answers(bundle) if one.cell == cell},
        "knowledge_groups": [asdict(part) for part in find_groups(bundle).get(cell, ())],
        "choices": {one.task: asdict(one) for one in find_choices(bundle) if one.cell == cell},
    }


def _answers(run: TaskRun) -> dict[str, int]:
    """How many items were answered right, wrong, or so that no answer could be read; and of how many the context was cut. Of a
    perplexity nothing is right or wrong."""
    outcomes, is_asked = run.outcomes, run.info.score_class != "perplexity"
    right, unparsed = int(outcomes.correct.sum()), outcomes.n_unparsed
    counted = {"right": right, "wrong": len(outcomes) - right - unparsed, "unparsed": unparsed} if is_asked else {}
    return {**counted, "context_cut": outcomes.n_cut}


def _accuracy(bundle: RunBundle, cell: Cell, run: TaskRun) -> dict[str, Any] | None:
    measured = accuracy_in(bundle, cell, run)
    return None if measured is None else asdict(measured)


def _reference(reference: Reference) -> dict[str, Any]:
    return {
        "cell": reference.cell.id,
        "source": reference.source,
        "provenance": as_mapping(reference.provenance),
        "compression": as_mapping(reference.compression),
        "tasks": {name: as_mapping(reference.tasks[name]) for name in reference.tasks},
        "scorers": dict(reference.scorers),
    }


MOST_SCORED = 20_000
"""Flips whose options are listed, all comparisons together; of others ``options`` is null, and the records have them."""

MOST_OPTIONS = 100
"""Options listed of one flip: where a task ranks a whole vocabulary, the right ones, both answers, and the best."""


def _flips(found: Flips, share: int) -> Rows | list[Any]:
    """Every flip of a comparison; those in ``share`` with their options."""
    return Rows(partial(_columns, found, np.isin(found.here, listed(found, share).here))) if len(found) else []


def _columns(found: Flips, scored: np.ndarray) -> dict[str, Iterable[str]]:
    """Flips as columns of JSON text; ``scored`` says which of them have their options."""
    items, now, was = found.items(), found.run.outcomes, found.pair.reference
    here, there = found.here, found.there
    options, diverged = map(_options, found.only(scored)), kl_nats(found.pair)
    return {
        "item": (quote(item.id) for item in items),
        "digest": (quote(now.digests[i]) for i in here.tolist()),
        "group": (quote(item.group) for item in items),
        "prompt": (quote(item.prompt) for item in items),
        "gold": (f"[{', '.join([quote(item.options[g]) for g in item.gold])}]" for item in items),
        "lost": _bools(was.correct[there]),
        "answer_reference": map(_option, items, was.answers[there].tolist()),
        "answer_candidate": map(_option, items, now.answers[here].tolist()),
        "text_reference": _texts(was, there),
        "text_candidate": _texts(now, here),
        "margin_reference_nats": map(repr, was.margins_nats[there].tolist()),
        "margin_candidate_nats": map(repr, now.margins_nats[here].tolist()),
        "rank_reference": map(str, was.ranks[there].tolist()),
        "rank_candidate": map(str, now.ranks[here].tolist()),
        "kl_nats": repeat("null", len(here)) if diverged is None else map(repr, diverged[here].tolist()),
        "near_tie": _bools(was.near_ties[there] | now.near_ties[here]),
        "n_options": (str(len(item.options)) for item in items),
        "options": (next(options) if one else "null" for one in scored.tolist()),
    }


def _bools(column: np.ndarray) -> list[str]:
    return ["true" if one else "false" for one in column.tolist()]


def _option(item: Item, answer: int) -> str:
    return quote(item.options[answer]) if 0 <= answer < len(item.options) else "null"


def _texts(outcomes: Outcomes, places: np.ndarray) -> Iterable[str]:
    texts = outcomes.texts
    return repeat("null", len(places)) if texts is None else (quote(texts[i]) for i in places.tolist())


def _options(flip: Flip) -> str:
    """The options of a flip as JSON text."""
    n_options = len(flip.item.options)
    listed = range(n_options) if n_options <= MOST_OPTIONS else sorted(pick_options(flip, MOST_OPTIONS))
    before, now, texts = flip.reference.logliks_nats, flip.candidate.logliks_nats, flip.item.options
    rows = (
        f'{{"candidate_nats": {_score(now, i)}, "reference_nats": {_score(before, i)}, "text": {quote(texts[i])}}}'
        for i in listed
    )
    return f"[{', '.join(rows)}]"


def _score(scores: tuple[float, ...] | None, i: int) -> str:
    """An option's score; null where it was not kept, or is no number that JSON can hold."""
    return repr(scores[i]) if scores is not None and math.isfinite(scores[i]) else "null"
