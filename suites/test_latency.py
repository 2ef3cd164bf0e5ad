"""What recovering costs in time: prefill and one more token, without recovery, behind a prompt, choosing among prompts (IDP),
with LoRA beside the weights and merged, at batch sizes 1 and 8.

`pytest suites/ -m latency` measures it, with pytest-benchmark; a plain `pytest suites/` leaves it out. Nothing here fails for
being slow: what takes longer than it should is a warning. `harness report` draws the ratios.
"""

from __future__ import annotations

import statistics
import warnings
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.core.latency import Phase
    from harness.execution.latency import LatencyBench


@pytest.mark.latency
@pytest.mark.parametrize("batch", [1, 8], ids=["batch1", "batch8"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_latency(harness_latency: LatencyBench, phase: Phase, batch: int, benchmark: Any) -> None:
    """Every round times each side once, so pytest-benchmark's own figure is of a round; those of the sides are beside it."""
    if benchmark.disabled:
        pytest.skip("timing is switched off (--benchmark-disable)")
    rounds, number = harness_latency.rounds(phase, batch)
    benchmark.group = f"{harness_latency.record.model}, all sides"
    benchmark.pedantic(rounds, rounds=number)
    harness_latency.keep(phase, batch, rounds.seconds)
    benchmark.extra_info["median_s"] = {name: statistics.median(seconds) for name, seconds in rounds.seconds.items()}
    for sentence in harness_latency.surprises(phase, batch):
        warnings.warn(sentence, stacklevel=1)
