"""The raw half of report.json: records as they are, numbers unrounded, every flip."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.core.records import CellFailure, CellRun, Outcomes
from harness.core.serial import as_mapping
from harness.report.bundle import Reference, RunBundle, cell_of
from harness.report.dense import accuracy_of, compare_dense
from harness.report.pairs import Flip, comparable, compared_flips, count_groups
from harness.report.status import cell_status, overall_status


def raw_report(bundle: RunBundle) -> dict[str, Any]:
    """A run as plain data: fractions for accuracies and losses, nats for margins, bytes, seconds."""
    flipped: dict[str, dict[str, dict[str, Any]]] = {}
    for run, reference, found in compared_flips(bundle):
        place = flipped.setdefault(run.cell, {}).setdefault(run.info.name, {})
        place[reference.replace(" ", "_")] = [_flip(flip) for flip in found]
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


def _flip(flip: Flip) -> dict[str, Any]:
    item = flip.item
    return {
        "item": item.id,
        "digest": item.digest,
        "group": item.group,
        "prompt": item.prompt,
        "gold": [item.options[g] for g in item.gold],
        "lost": flip.lost,
        "answer_reference": flip.answer_reference,
        "answer_candidate": flip.answer_candidate,
        "margin_reference_nats": flip.margin_reference_nats,
        "margin_candidate_nats": flip.margin_candidate_nats,
        "near_tie": flip.near_tie,
        "options": [
            {"text": text, "reference_nats": was, "candidate_nats": now}
            for text, (was, now) in zip(item.options, flip.logliks_nats or ((None, None),) * len(item.options), strict=True)
        ],
    }
