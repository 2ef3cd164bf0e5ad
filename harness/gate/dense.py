"""The dense floor: which record of a model's dense cell a compressed cell is held against, where the policy asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.baseline import Baseline
from harness.baseline.record import make_baseline
from harness.core.command import propose_command
from harness.core.records import CellRun, Provenance
from harness.gate.comparison import Incomparable, again


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """The dense cell of a model: as measured in the same run, and as accepted. None: it was not."""

    measured: CellRun | None = None
    stored: Baseline | None = None


def dense_record(run: CellRun, dense: Dense) -> Baseline | Incomparable:
    """What a run is held against: the dense cell as measured in the same run, where every item was; else as accepted.

    Only a record of the very model that the run was compressed from will do; Incomparable, with what to do, without one.
    """
    cell = run.record.cell.dense
    found = [make_baseline(dense.measured, "")] if _is_whole_for(run, dense.measured) and dense.measured else []
    found += [dense.stored] if dense.stored is not None else []
    if not found:
        return Incomparable(
            f"the policy sets a floor, and {cell.id} neither has an accepted baseline nor was measured whole in this run: "
            f"{propose_command(cell.id)} makes one for review."
        )
    differing = [_differences(made.record.provenance, run.record.provenance) for made in found]
    for made, parts in zip(found, differing, strict=True):
        if not parts:
            return made
    what = ", ".join(differing[0])
    return Incomparable(f"the record of {cell.id} is of another model than this cell's (other {what}): {again(cell)}.")


def _is_whole_for(run: CellRun, measured: CellRun | None) -> bool:
    """Whether every item of all tasks that the run pools was measured, as limited as the run itself."""
    if measured is None:
        return False
    for name, task in run.runs.items():
        if task.info.pooled:
            found = measured.runs.get(name)
            if found is None or found.info.limit != task.info.limit or len(found.outcomes) != found.info.n_items:
                return False
    return True


def _differences(dense: Provenance, now: Provenance) -> list[str]:
    """What of the model itself differs between the dense cell's record and that which a run was compressed from."""
    return [
        word
        for word, known, found in (
            ("dense weights", dense.dense_digest, now.dense_digest),
            ("model config", dense.config_digest, now.config_digest),
            ("tokenizer", dense.tokenizer_digest, now.tokenizer_digest),
        )
        if known != found
    ]
