"""Which prompts were chosen, for every cell of a run that chooses among several, beside its controls: the cells that ask each
of the same prompts alone, or draw one at random. Descriptive, not judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.core.digest import digest_text
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellRun, TaskRun
from harness.core.verdicts import ChoiceShift, Estimate
from harness.report.answers import LEVEL, right_on
from harness.report.bundle import RunBundle
from harness.stats.choices import Worth, category_of, count_choices, worth_of_choosing
from harness.stats.intervals import wilson

_RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Chosen:
    """One task of one cell that chooses. ``lengths``: of its prompts, in tokens. ``counts``: of ``n_items`` items those behind
    each prompt; ``n_several`` of them stand behind more than one and count in equal parts. ``before``: the baseline's, as
    shares. ``worth`` is None without the cells of the single prompts, and ``missing`` says which; ``drawn`` is the accuracy of
    the cell that draws a prompt at random."""

    cell: Cell
    task: str
    mode: str
    lengths: tuple[int, ...]
    n_items: int
    counts: tuple[float, ...]
    n_several: int
    before: tuple[float, ...] | None
    shift: ChoiceShift | None
    worth: Worth | None
    missing: str
    drawn: Estimate | None

    @property
    def always(self) -> int | None:
        """The prompt that every item was asked behind, if there is one."""
        first = int(np.argmax(self.counts))
        return first if self.counts[first] == self.n_items and not self.n_several else None


@lru_cache(maxsize=1)
def find_choices(bundle: RunBundle) -> tuple[Chosen, ...]:
    """Every task of every cell that chooses by attention, in the bundle's order. Kept for the bundle at hand."""
    return tuple(_find(bundle))


def _find(bundle: RunBundle) -> Iterator[Chosen]:
    runs = [entry for entry in bundle.cells if isinstance(entry, CellRun)]
    for run in runs:
        if _choice_of(run) not in (None, _RANDOM):
            yield from (
                _chosen(bundle, run, task, _controls(runs, run))
                for task in run.runs.values()
                if task.outcomes.choices is not None and len(task.outcomes)
            )


def _choice_of(run: CellRun) -> object:
    return run.record.recovery_recipe.get("choice") if "lengths" in run.record.recovery_recipe else None


def _controls(runs: list[CellRun], chooser: CellRun) -> dict[object, CellRun]:
    """The cells with the same prompts over the same model, by what they choose: a number, or "random"."""
    cell, tensors = chooser.record.cell, chooser.record.recovery_tensors
    alike = [
        run
        for run in runs
        if (run.record.cell.model, run.record.cell.compression) == (cell.model, cell.compression)
        and run.record.recovery_tensors == tensors
    ]
    return {choice: run for run in alike if isinstance(choice := _choice_of(run), int) or choice == _RANDOM}


def _chosen(bundle: RunBundle, run: CellRun, task: TaskRun, controls: dict[object, CellRun]) -> Chosen:
    cell, recipe, name = run.record.cell, run.record.recovery_recipe, task.info.name
    lengths = tuple(int(length) for length in recipe["lengths"])
    choices = task.outcomes.choices or ()
    verdict = bundle.verdict_of(cell.id)
    case = next((case for case in (verdict.tasks if verdict else ()) if case.task == name), None)
    known = bundle.baselines[cell.id].outcomes.get(name) if cell.id in bundle.baselines else None
    before = None if known is None else _choices_on(task, known)
    singles = {
        choice: right_on(task, one.runs[name].outcomes)
        for choice, one in controls.items()
        if isinstance(choice, int) and name in one.runs
    }
    lacking = [number for number in range(len(lengths)) if singles.get(number) is None]
    missing, worth = "", None
    if task.info.score_class == "perplexity":
        missing = "nothing of a perplexity is right or wrong"
    elif len(task.outcomes) < task.info.n_items:
        missing = "it was decided early, and a part of its items is no fair sample: measure it in full (--harness-full)"
    elif lacking:
        told = ", ".join(str(number) for number in lacking)
        missing = (
            f"each prompt alone must be asked the same items in this run; cells with choice = {told} are missing or not "
            "measured whole"
        )
    else:
        rights = [right for number in range(len(lengths)) if (right := singles[number]) is not None]
        rng = np.random.default_rng(int(digest_text(f"choices:{cell.id}:{name}")[:12], 16))
        worth = worth_of_choosing(task.outcomes.correct, np.stack(rights), LEVEL, rng)
    drawn = controls.get(_RANDOM)
    is_drawn = drawn is not None and name in drawn.runs and task.info.score_class != "perplexity"
    right = right_on(task, drawn.runs[name].outcomes) if drawn is not None and is_drawn else None
    return Chosen(
        cell=cell,
        task=name,
        mode=str(recipe.get("mode", "exact")),
        lengths=lengths,
        n_items=len(choices),
        counts=tuple(count_choices(choices, len(lengths)).tolist()),
        n_several=sum(category_of(row) < 0 for row in choices),
        before=None if not before else _shares_of(before, len(lengths)),
        shift=None if case is None else case.choice,
        worth=worth,
        missing=missing,
        drawn=None if right is None else wilson(int(right.sum()), len(right), LEVEL),
    )


def _choices_on(task: TaskRun, known: Outcomes) -> tuple[tuple[int, ...], ...] | None:
    """What the baseline chose for the items of a run, which may be a part of its own; None where it knows of no choice."""
    if known.choices is None:
        return None
    now = set(task.outcomes.digests)
    return tuple(row for digest, row in zip(known.digests, known.choices, strict=True) if digest in now)


def _shares_of(before: tuple[tuple[int, ...], ...], n_prompts: int) -> tuple[float, ...] | None:
    """The baseline's items behind each prompt as shares of them; None where it had more prompts than there are now."""
    if max(map(max, before)) >= n_prompts:
        return None
    return tuple((count_choices(before, n_prompts) / len(before)).tolist())
