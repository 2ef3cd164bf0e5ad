"""The raw half of report.json: records as they are, numbers unrounded, every flip."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from harness.core.records import CellFailure, CellRun, Outcomes
from harness.core.serial import as_mapping
from harness.report.bundle import Reference, RunBundle, cell_of
from harness.report.dense import accuracy_of, compare_dense
from harness.report.listing import comparisons, listed, shares
from harness.report.pairs import Answer, Flip, comparable, count_groups, option_of
from harness.report.scores import pick_options
from harness.report.status import cell_status, overall_status


def raw_report(bundle: RunBundle) -> dict[str, Any]:
    """A run as plain data: fractions for accuracies and losses, nats for margins, bytes, seconds."""
    flipped: dict[str, dict[str, dict[str, Any]]] = {}
    compared = comparisons(bundle)
    for (run, reference, found), share in zip(compared, shares(compared, MOST_SCORED), strict=True):
        place = flipped.setdefault(run.cell, {}).setdefault(run.info.name, {})
        scored = {flip.item.id for flip in listed(found, share)}
        place[reference.replace(" ", "_")] = [_flip(flip, with_options=flip.item.id in scored) for flip in found]
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
            "against_dense": {},
            "flips": {},
            "relations": {},
        }
    against = {task: asdict(found) for task, found in compare_dense(bundle, entry).items()}
    return made | {
        "failure": None,
        "record": as_mapping(entry.record),
        "accuracy": {name: _accuracy(run.outcomes) for name, run in entry.runs.items()},
        "against_dense": against,
        "flips": flipped,
        "relations": {name: _relations(bundle, entry, name) for name in entry.runs},
    }


def _accuracy(outcomes: Outcomes) -> dict[str, Any] | None:
    measured = accuracy_of(outcomes)
    return None if measured is None else asdict(measured)


def _relations(bundle: RunBundle, entry: CellRun, name: str) -> list[dict[str, Any]]:
    run, cell = entry.runs[name], entry.record.cell
    baseline = comparable(run, bundle.baselines.get(cell.id))
    return [asdict(group) for group in count_groups(run, baseline, comparable(run, bundle.dense.get(cell.model)))]


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


def _flip(flip: Flip, with_options: bool) -> dict[str, Any]:
    item, was, now = flip.item, flip.reference, flip.candidate
    return {
        "item": item.id,
        "digest": item.digest,
        "group": item.group,
        "prompt": item.prompt,
        "gold": [item.options[g] for g in item.gold],
        "lost": flip.lost,
        "answer_reference": option_of(item, was),
        "answer_candidate": option_of(item, now),
        "text_reference": was.text,
        "text_candidate": now.text,
        "margin_reference_nats": was.margin_nats,
        "margin_candidate_nats": now.margin_nats,
        "rank_reference": was.rank,
        "rank_candidate": now.rank,
        "near_tie": flip.near_tie,
        "n_options": len(item.options),
        "options": _options(flip) if with_options else None,
    }


def _options(flip: Flip) -> list[dict[str, Any]]:
    return [
        {
            "text": flip.item.options[i],
            "reference_nats": _score(flip.reference, i),
            "candidate_nats": _score(flip.candidate, i),
        }
        for i in sorted(pick_options(flip, MOST_OPTIONS))
    ]


def _score(answer: Answer, i: int) -> float | None:
    """An option's score; None where it was not kept, or is no number that JSON can hold."""
    score = None if answer.logliks_nats is None else answer.logliks_nats[i]
    return score if score is not None and math.isfinite(score) else None
