"""Cells built in memory, for the tests of the gate and (loaded from there) of the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.baseline import Baseline, NoiseRun
from harness.baseline.record import make_baseline
from harness.core.digest import digest_sequence, digest_text
from harness.core.outcomes import Outcomes
from harness.core.records import (
    ENGINE_IDENTITY,
    SCHEMA_VERSION,
    Cell,
    CellRecord,
    CellRun,
    CompressionRecord,
    Item,
    ItemOutcome,
    Provenance,
    TaskInfo,
    TaskRun,
)
from harness.gate import Policy, read_policy

CELL = Cell("llama", "4bit-rtn", "none")


class Builder:
    """Builds items, outcomes, runs and baselines; everything not said is the same in all of them."""

    def items(self, name: str, n: int) -> tuple[Item, ...]:
        return tuple(Item(f"{name}-{i}", f"r{i % 8}", f"fact {i} is [Y]", ("a", "b", "c", "d"), (i % 4,)) for i in range(n))

    def right(self, n: int, n_right: int, lost: int = 0, gained: int = 0) -> np.ndarray:
        """``n_right`` items right, ``lost`` of them then wrong and ``gained`` others right; mixed, as fed items are."""
        correct = np.arange(n) < n_right
        correct[:lost] = False
        correct[n_right : n_right + gained] = True
        return correct[np.random.default_rng(n).permutation(n)]

    def outcomes(self, items: tuple[Item, ...], correct: np.ndarray, logliks: bool = True) -> Outcomes:
        rows = [
            ItemOutcome(
                item.gold[0] if ok else (item.gold[0] + 1) % 4,
                bool(ok),
                1 if ok else 2,
                0.5 if ok else -0.5,
                False,
                (-1.0, -2.5),
            )
            for item, ok in zip(items, correct, strict=True)
        ]
        made = Outcomes.of(tuple(item.digest for item in items), rows)
        return made if logliks else replace(made, option_logliks_nats=None)

    def task(self, name: str, correct: np.ndarray, cell: Cell = CELL, **changes: Any) -> TaskRun:
        items = changes.pop("items", None) or self.items(name, len(correct))
        run_changes = {key: changes.pop(key) for key in ("scorer", "origin") if key in changes}
        outcomes = self.outcomes(items, correct)
        info = TaskInfo(
            name=name,
            protocol="sentence",
            score_class="log_likelihood",
            pooled=True,
            tie_rule="wrong",
            data_version="1",
            spec_digest=digest_text("spec " + name),
            items_digest=digest_sequence(outcomes.digests),
            n_items=len(items),
            chance=0.1,
            majority=0.12,
            excluded={},
        )
        made = TaskRun(cell.id, replace(info, **changes), items, outcomes, "plain 1", "measured")
        return replace(made, **run_changes)

    def run(
        self,
        tasks: Mapping[str, TaskRun],
        *,
        cell: Cell = CELL,
        weights: str = "w1",
        recovery: str = "none",
        stability: str = "stable",
        engine: Mapping[str, str] | None = None,
        profile: str = "embedded",
    ) -> CellRun:
        compression = CompressionRecord(
            method="rtn",
            recipe={"bits": 4, "group": 64},
            recipe_digest=digest_text("rtn 4"),
            stability=stability,  # type: ignore[arg-type]
            effective_bits=4.25,
            size_bytes=1000,
            n_weights_compressed=90,
            n_weights_total=100,
            wall_s=1.0,
        )
        provenance = Provenance(
            model_source="dir:tiny",
            dense_digest=digest_text("dense"),
            weights_digest=digest_text(weights),
            config_digest=digest_text("config"),
            tokenizer_digest=digest_text("tokenizer"),
            recovery_digest=digest_text(recovery),
            engine={**dict.fromkeys(ENGINE_IDENTITY, "1"), "threads": "2", **(engine or {})},
            harness_version="0.1.0",
            commit="abc",
            measured_at="2025-01-01T00:00:00+00:00",
        )
        record = CellRecord(
            schema_version=SCHEMA_VERSION,
            cell=cell,
            profile=profile,
            family="decoder",
            compression=compression,
            provenance=provenance,
            tasks={name: task.info for name, task in tasks.items()},
            scorers={name: task.scorer for name, task in tasks.items()},
            origins={name: task.origin for name, task in tasks.items()},
            wall_s=dict.fromkeys(tasks, 1.0),
        )
        return CellRun(record, tasks)

    def cut(self, run: CellRun, n_items: int) -> CellRun:
        """The run as it stood when ``n_items`` of each task were fed."""

        def part(task: TaskRun) -> TaskRun:
            out = task.outcomes
            kept = replace(
                out,
                digests=out.digests[:n_items],
                correct=out.correct[:n_items],
                answers=out.answers[:n_items],
                ranks=out.ranks[:n_items],
                margins_nats=out.margins_nats[:n_items],
                near_ties=out.near_ties[:n_items],
                option_logliks_nats=None if out.option_logliks_nats is None else out.option_logliks_nats[:n_items],
            )
            return replace(task, items=task.items[:n_items], outcomes=kept)

        return CellRun(run.record, {name: part(task) for name, task in run.runs.items()})

    def one(self, n: int, n_right: int, lost: int = 0, gained: int = 0, weights: str = "w2", **task: Any) -> CellRun:
        """A run of one task, ``facts``."""
        return self.run({"facts": self.task("facts", self.right(n, n_right, lost, gained), **task)}, weights=weights)

    def baseline(self, run: CellRun, noise: tuple[NoiseRun, ...] = ()) -> Baseline:
        return make_baseline(run, "for a test", noise)

    def noise(
        self, accuracies: tuple[float, ...] = (0.50, 0.51, 0.52), tasks: tuple[str, ...] = ("facts",), n_flips: int = 90
    ) -> tuple[NoiseRun, ...]:
        """Re-compressions of these accuracies; the stored run is the middle one."""
        flips = [0 if i == len(accuracies) // 2 else n_flips for i in range(len(accuracies))]
        return tuple(
            NoiseRun(f"seed {i}", i, 1 + i % 2, None, dict.fromkeys(tasks, a), dict.fromkeys(tasks, f))
            for i, (a, f) in enumerate(zip(accuracies, flips, strict=True))
        )


@pytest.fixture(scope="session")
def build() -> Builder:
    return Builder()


@pytest.fixture(scope="session")
def policy() -> Policy:
    return read_policy(Path(__file__).parents[2] / "suites" / "policy.toml")
