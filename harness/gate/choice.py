"""An early warning, never red: whether a recovery that chooses among prompts chooses as it did in the baseline.

The choice moves before accuracy does: it is read off the attention, and an item may be as right behind another prompt.
"""

from __future__ import annotations

import numpy as np

from harness.core.verdicts import ChoiceShift
from harness.gate.comparison import Comparison, Incomparable
from harness.stats.choices import category_of, count_choices, p_same_choices

WARNING_LEVEL = 0.01
"""The chance of a warning where choices move to and fro by noise alone; nothing hangs on it, so it is not corrected."""


def choice_shift(found: Comparison | Incomparable) -> ChoiceShift | None:
    """How the choice moved on a task's items; None where the run or the baseline has none."""
    if isinstance(found, Incomparable) or found.choices is None or not found.digests:
        return None
    before, now = found.choices
    n_prompts = 1 + max(max(row) for rows in found.choices for row in rows)
    counts = [count_choices(rows, n_prompts) for rows in (before, now)]
    p_value = p_same_choices([category_of(row) for row in before], [category_of(row) for row in now])
    n_moved = sum(old != new for old, new in zip(before, now, strict=True))
    warning = ""
    if p_value < WARNING_LEVEL:
        warning = (
            f"{found.name}: the choice of prompts moved: {n_moved:,} of {len(now):,} items are asked behind another prompt "
            f"than in the baseline ({_shares(counts[0])} of them behind each then, {_shares(counts[1])} now, p {p_value:.1g})."
            " It fails nothing; see whether the prompts, the compression or the selection changed."
        )
    return ChoiceShift(
        n_items=len(now),
        before=tuple(counts[0].tolist()),
        now=tuple(counts[1].tolist()),
        n_moved=n_moved,
        p_value=p_value,
        warning=warning,
    )


def _shares(counts: np.ndarray) -> str:
    """The share of the items behind each prompt, in percent.

    >>> _shares(np.array([1.0, 3.0, 0.0]))
    '25 / 75 / 0 %'
    """
    return " / ".join(f"{100 * count / counts.sum():.0f}" for count in counts) + " %"
