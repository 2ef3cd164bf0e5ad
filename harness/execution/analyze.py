"""Looking inside of cells, beside the dense model of each: what `harness analyze` does."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from harness.compression.calibration import CalibrationText, load_text, shipped_text
from harness.core.errors import ConfigError
from harness.core.records import SCHEMA_VERSION
from harness.core.regimes import Regimes
from harness.execution.engine import describe_engine
from harness.execution.local import MeasureOptions, make_candidate
from harness.execution.matrix import CellPlan, Matrix
from harness.execution.progress import Progress
from harness.execution.store import Store

if TYPE_CHECKING:
    from harness.execution.candidate import Candidate

LEAST_TEXTS, LEAST_TOKENS = 2, 8
"""Below these an interval over texts, or a mean over tokens, says nothing."""


@dataclass(frozen=True, slots=True)
class LookedAt:
    """On what cells are compared: the first ``n_tokens`` tokens of ``n_texts`` documents of a file, or of the shipped text.

    Raises ConfigError for too few of them.
    """

    text: Path | None = None
    n_texts: int = 16
    n_tokens: int = 64

    def __post_init__(self) -> None:
        for option, given, least in (("--texts", self.n_texts, LEAST_TEXTS), ("--tokens", self.n_tokens, LEAST_TOKENS)):
            if given < least:
                raise ConfigError(f"{option} expects at least {least}, got {given}.")

    def read(self) -> CalibrationText:
        """The text. Raises ConfigError, FileFormatError."""
        return shipped_text() if self.text is None else load_text(self.text)


def analyze_cells(
    matrix: Matrix,
    plans: Sequence[CellPlan],
    at: LookedAt,
    *,
    options: MeasureOptions,
    store: Store,
    progress: Progress,
) -> Iterator[Regimes]:
    """The regimes of each cell, the cells of one model after each other; their dense model is looked at once.

    Raises ConfigError for a dense cell, which is what the others are compared with, and other HarnessErrors.
    """
    for plan in plans:
        if plan.cell.is_dense:
            raise ConfigError(
                f"{plan.cell.id} is the dense model itself, which cells are compared with: name a compressed or a recovered "
                "one."
            )
    text = at.read()
    for model in dict.fromkeys(plan.cell.model for plan in plans):
        candidates = deque(
            make_candidate(matrix, plan, options=options, store=store, progress=progress)
            for plan in plans
            if plan.cell.model == model
        )
        yield from _of_one_model(candidates, text, at, progress)


def _of_one_model(candidates: deque[Candidate], text: CalibrationText, at: LookedAt, progress: Progress) -> Iterator[Regimes]:
    """The regimes of one model's cells; takes each out of the queue, so that its model is let go before the next is made."""
    from harness.analysis.observe import cut_texts
    from harness.analysis.regimes import compare, keep_dense

    digests = [candidate.recovery_digest() for candidate in candidates]  # first: a missing artifact is known before work
    with tempfile.TemporaryDirectory(prefix="harness-analyze-") as name:
        folder = Path(name)
        dense = candidates[0].dense_model()
        texts = cut_texts(text, dense, n_texts=at.n_texts, n_tokens=at.n_tokens)
        progress.start(f"{candidates[0].plan.cell.dense.id}: looked at")
        keep_dense(dense, texts, folder, progress.update)
        del dense  # one model is in memory at a time
        for recovery_digest in digests:
            candidate = candidates.popleft()
            plan, model = candidate.plan, candidate.model()
            progress.start(f"{plan.cell.id}: looked at")
            made = compare(model, texts, folder, progress.update)
            del model
            yield Regimes(
                schema_version=SCHEMA_VERSION,
                cell=plan.cell,
                dense_digest=candidate.dense.weights_digest,
                weights_digest=candidate.weights().weights_digest,
                recovery_digest=recovery_digest,
                recovery_method=plan.recovery[0],
                text=text.name,
                text_digest=text.digest,
                n_texts=at.n_texts,
                n_tokens=at.n_tokens,
                roots=made.roots,
                even_share=made.even_share,
                stacks=made.stacks,
                engine={**describe_engine(candidate.device, candidate.dtype, scores=False), "attention": "eager"},
                measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            )
