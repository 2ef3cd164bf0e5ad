"""What recovering costs in time, measured for `suites/test_latency.py`: the sides of one model, its rounds, its record."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.core.latency import Latency, Phase, Side, Timing, write_latency
from harness.core.records import SCHEMA_VERSION
from harness.core.verdicts import Estimate
from harness.execution.engine import describe_engine
from harness.execution.local import MeasureOptions, make_candidate
from harness.execution.matrix import Matrix
from harness.execution.progress import Progress
from harness.execution.store import Store
from harness.stats.latency import time_ratio

if TYPE_CHECKING:
    from harness.analysis.sides import Bench
    from harness.analysis.timing import Rounds

CONTEXT_TOKENS = 64
NEW_TOKENS = 8
BUDGET_S = 30.0
"""About how long the rounds of one phase and batch size may take."""

EXPECTED = 1.03
"""What choosing among prompts, and merged LoRA, may take of the time without: 3 % more. Beyond it there is a warning."""


def latency_models(matrix: Matrix) -> list[str]:
    """The models of a profile that have every side: its decoders."""
    return list(dict.fromkeys(plan.cell.model for plan in matrix.cells.values() if plan.model.family == "decoder"))


@dataclass(slots=True)
class LatencyBench:
    """One model's sides. What is kept is written to ``folder`` at once, so that a stopped run leaves what it has."""

    sides: Sequence[Bench]
    record: Latency
    folder: Path
    _timings: dict[tuple[Phase, int], Timing] = field(default_factory=dict)

    @classmethod
    def open(cls, matrix: Matrix, model: str, *, device: str, folder: Path, store: Store, progress: Progress) -> LatencyBench:
        """Load a model of the matrix, dense: simulated quantization costs the same. Raises HarnessError."""
        from harness.analysis.sides import PROMPT_TOKENS, make_sides

        plan = next(plan for plan in matrix.cells.values() if plan.cell.model == model)
        candidate = make_candidate(matrix, plan, options=MeasureOptions(device=device), store=store, progress=progress)
        sides = make_sides(candidate.dense_model())
        record = Latency(
            schema_version=SCHEMA_VERSION,
            model=model,
            profile=matrix.profile,
            context_tokens=CONTEXT_TOKENS,
            new_tokens=NEW_TOKENS,
            prompt_tokens=PROMPT_TOKENS,
            sides=tuple(one.side for one in sides),
            timings=(),
            engine=describe_engine(candidate.device, candidate.dtype, scores=False),
            measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        return cls(sides, record, folder)

    def rounds(self, phase: Phase, batch: int) -> tuple[Rounds, int]:
        """Rounds of one phase, warm, and how many of them fit into the budget."""
        from harness.analysis.timing import n_rounds, prepare

        rng = np.random.default_rng([batch, phase == "decode"])
        rounds = prepare(self.sides, phase, batch=batch, context_tokens=CONTEXT_TOKENS, new_tokens=NEW_TOKENS, rng=rng)
        rounds()
        started = time.perf_counter()
        rounds()
        number = n_rounds(time.perf_counter() - started, budget_s=BUDGET_S)
        rounds.forget()
        return rounds, number

    def keep(self, phase: Phase, batch: int, seconds: Mapping[str, Sequence[float]]) -> Path:
        """Add a phase's seconds (of decoding: those of all new tokens) to the record; gives its file back."""
        per = NEW_TOKENS if phase == "decode" else 1
        by_side = {name: tuple(one / per for one in rows) for name, rows in seconds.items()}
        self._timings[phase, batch] = Timing(phase, batch, by_side)
        return write_latency(self.folder, replace(self.record, timings=tuple(self._timings.values())))

    def surprises(self, phase: Phase, batch: int) -> list[str]:
        """What took clearly longer than expected, a sentence each."""
        timing = self._timings[phase, batch]
        found = []
        for side in self.record.sides:
            over = self._as_cheap_as(side)
            ratio = None if over is None else time_ratio(timing, side.name, over)
            if isinstance(ratio, Estimate) and ratio.low > EXPECTED:
                found.append(
                    f"{self.record.model}, {phase}, batch {batch}: {side.name} takes {ratio.value:.2f} [{ratio.low:.2f}, "
                    f"{ratio.high:.2f}] times as long as {over}: expected at most {EXPECTED:.2f}."
                )
        return found

    def _as_cheap_as(self, side: Side) -> str | None:
        """The side that another should take no longer than: IDP than one prompt, merged LoRA than nothing."""
        named = {one.method: one.name for one in self.record.sides}
        if side.method == "idp":
            return named["prompt"]
        return named["none"] if side.method == "lora" and side.n_extra == 0 else None
