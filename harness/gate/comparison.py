"""Putting a task's run beside its baseline: item by item, by content digest, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from jaxtyping import Bool, Int

from harness.baseline import Baseline, identity_differences
from harness.core.command import propose_command
from harness.core.digest import places_of
from harness.core.near_ties import settled
from harness.core.outcomes import Outcomes
from harness.core.records import Cell, CellRun, Item, Items, TaskInfo, TaskRun
from harness.core.verdicts import PairedCounts
from harness.gate.clusters import has_clusters, relation_numbers
from harness.gate.trail import Trail
from harness.stats.choices import Choices
from harness.stats.sequential import round_ends

RELABEL_LOOKUPS = 500
"""New items that are looked at for another right answer; a message needs no more."""

RELABEL_OPTIONS = 40
"""Options above which an item is not looked at: every one of them means a digest."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One task, before and now, over the same items in the order in which the run fed them.

    ``now`` is as it counts: where nothing but batches can have changed, a flip between two near-ties is none.
    ``n_all`` items would be fed if nothing stopped it; ``known`` are the digests of all the
    baseline's items, ``n_right_before`` of which it got right. ``reused``: nothing was
    measured, the outcomes are the baseline's own because nothing that decides them has changed. ``limited``: a sample.
    ``choices``: of prompts, before and now, where both know them.
    ``clusters``: a number for each item's relation, the same in every task, where relations stand for others; else None.
    """

    name: str
    info: TaskInfo
    digests: tuple[str, ...]
    before: Bool[np.ndarray, " n"]
    now: Bool[np.ndarray, " n"]
    n_all: int
    known: Sequence[str]
    n_right_before: int
    reused: bool
    limited: bool
    choices: tuple[Choices, Choices] | None = None
    clusters: Int[np.ndarray, " n"] | None = None

    @property
    def counts(self) -> PairedCounts:
        """Items lost, gained and unchanged."""
        lost = int(np.count_nonzero(self.before & ~self.now))
        gained = int(np.count_nonzero(~self.before & self.now))
        return PairedCounts(lost, gained, len(self.before) - lost - gained)

    @property
    def is_complete(self) -> bool:
        """Whether every item was fed."""
        return len(self.digests) == self.n_all

    def in_pool(self, cap: int) -> Bool[np.ndarray, " n"]:
        """Which items enter the pool when a task may give it at most ``cap``: those of the baseline's smallest digests,
        a fixed sample as digests are SHA-256. A limited run of no more than ``cap`` items is a fixed sample already."""
        if self.n_all <= cap:
            return np.ones(len(self.digests), dtype=np.bool_)
        last = np.partition(np.array(self.known), cap - 1)[cap - 1]
        return np.asarray(np.array(self.digests) <= last)

    def n_in_pool(self, cap: int) -> int:
        """How many items the task gives to the pool when all are fed."""
        return int(self.in_pool(cap).sum()) if self.is_complete else min(cap, self.n_all)

    def trail(self, kept: Bool[np.ndarray, " n"] | None = None) -> Trail:
        """The flips as they came, round by round; of ``kept`` items only, where given."""
        everything = np.ones(len(self.digests), dtype=np.bool_)
        return Trail.of(self.before, self.now, self.n_all, everything if kept is None else kept)


@dataclass(frozen=True, slots=True)
class Incomparable:
    """Why a task can't be compared: one sentence."""

    reason: str


def compare(run: CellRun, baseline: Baseline, name: str) -> Comparison | Incomparable:
    """One task of a run beside the baseline's; Incomparable unless both answered exactly the same items the same way."""
    task, cell = run.runs[name], run.record.cell.id
    if name not in baseline.record.tasks:
        command = propose_command(cell, replaces=True)
        return Incomparable(f"the baseline of {cell} has no task {name!r}: accept one with {command}.")
    changed = identity_differences(baseline.record.provenance, run.record.provenance)
    found = _pair(task, baseline, name, "baseline", again=not changed)
    if isinstance(found, Incomparable):
        return Incomparable(
            f"{found.reason}: nothing was compared; measure with the baseline's, or accept a new one with "
            f"{propose_command(cell, replaces=True)}."
        )
    n_fed, n_all = len(task.outcomes), task.info.n_items
    if 0 < n_fed < n_all and n_fed not in round_ends(n_all):
        return Incomparable(
            f"{n_fed:,} of {n_all:,} items are no whole number of rounds, and a run stops after rounds only: its records were "
            "cut off or chosen from; measure the cell again."
        )
    if task.origin != "baseline":
        return found
    if changed:
        return Incomparable(
            f"the run shows the baseline's own outcomes although {', '.join(changed)} changed: measure it again."
        )
    return replace(found, reused=True)


def compare_dense(run: CellRun, dense: Baseline, name: str) -> Comparison | Incomparable:
    """One task of a run beside the dense cell's; Incomparable unless both answered the same items the same way."""
    cell = dense.record.cell.id
    if name not in dense.record.tasks:
        return Incomparable(f"{cell} has no task {name!r}: {again(dense.record.cell)}.")
    same = not identity_differences(dense.record.provenance, run.record.provenance)
    found = _pair(run.runs[name], dense, name, "dense cell", again=same)
    return Incomparable(f"{found.reason}: {again(dense.record.cell)}.") if isinstance(found, Incomparable) else found


def again(dense: Cell) -> str:
    """What gives a record of the dense cell that cells can be held against."""
    return (
        f"measure {dense.id} in the same run, or accept a new baseline of it with {propose_command(dense.id, replaces=True)}"
    )


def _pair(task: TaskRun, before: Baseline, name: str, whose: str, *, again: bool) -> Comparison | Incomparable:
    """The items of a task and of a record of it, joined; the reason, without a remedy, where they can't be. ``again``: the
    same was measured twice, so that near-ties flip by noise alone."""
    known, stored = before.record.tasks[name], before.outcomes[name]
    if rules := _differing_rules(task, known.info, known.scorer, whose):
        return Incomparable("; ".join(rules))
    joined = _join(stored, known.info, task, whose)
    if isinstance(joined, Incomparable):
        return joined
    if task.info.spec_digest != known.info.spec_digest:
        return Incomparable("the task is set up differently (another specification digest, the same items)")
    is_clustered = has_clusters(task.info, known.info)
    if is_clustered and len(task.items) != len(task.outcomes):
        return Incomparable("its relations stand for others, and the run does not hold the items that tell which is which")
    return Comparison(
        name=name,
        info=known.info,
        digests=task.outcomes.digests,
        before=stored.correct[joined],
        now=settled(stored, joined, task.outcomes) if again else task.outcomes.correct,
        n_all=task.info.n_items,
        known=stored.digests,
        n_right_before=int(stored.correct.sum()),
        reused=False,
        limited=task.info.limit is not None,
        choices=_choices(stored, joined, task.outcomes),
        clusters=relation_numbers(task.items) if is_clustered else None,
    )


def _choices(stored: Outcomes, joined: Int[np.ndarray, " n"], now: Outcomes) -> tuple[Choices, Choices] | None:
    if stored.choices is None or now.choices is None:
        return None
    return [stored.choices[place] for place in joined.tolist()], now.choices


def _differing_rules(task: TaskRun, known: TaskInfo, scorer: str, whose: str) -> list[str]:
    pairs = (
        ("data version", known.data_version, task.info.data_version),
        ("protocol", known.protocol, task.info.protocol),
        ("kind of score", known.score_class, task.info.score_class),
        ("tie rule", known.tie_rule, task.info.tie_rule),
        ("scorer", scorer, task.scorer),
    )
    return [f"the {word} differs ({old!r} in the {whose}, {new!r} now)" for word, old, new in pairs if old != new]


def _join(before: Outcomes, known: TaskInfo, task: TaskRun, whose: str) -> Int[np.ndarray, " n"] | Incomparable:
    """Where each of the run's items, in the run's order, stands in the record before. A limited run, or one that was decided
    early, is compared on its own items."""
    now = task.outcomes
    if task.info.n_items == 0:
        return Incomparable("the run holds no item")
    if before.digests == now.digests and len(set(now.digests)) == len(now):
        return np.arange(len(before))
    place = places_of(before.digests)
    found = [place.get(digest) for digest in now.digests]
    places = [index for index in found if index is not None]
    n_known = len(set(places))
    is_early = len(now) < task.info.n_items and task.info.items_digest == known.items_digest
    is_part = (task.info.limit is not None or is_early) and len(places) == len(found)  # the baseline knows every item of it
    if len(places) < len(found) or (n_known < len(place) and not is_part):
        new = [digest for digest, index in zip(now.digests, found, strict=True) if index is None]
        return Incomparable(_items_sentence(task, len(before), new, set(before.digests).difference(now.digests), whose))
    if len(place) < len(before) or n_known < len(places):
        return Incomparable("the same item stands more than once among the outcomes")
    return np.array(places, dtype=np.intp)


def _items_sentence(task: TaskRun, n_before: int, new: list[str], missing: set[str], whose: str) -> str:
    relabelled = _count_relabelled(task.items, set(new), missing)
    told = f", {relabelled} of them re-labelled (the same question with another right answer)" if relabelled else ""
    cut = f" (the run was limited to {task.info.limit})" if task.info.limit is not None else ""
    return (
        f"its items are not the {whose}'s: of {n_before:,} there, {len(missing):,} are missing and "
        f"{len(new):,} are new{told}{cut}"
    )


def _count_relabelled(items: Items, new: set[str], missing: set[str]) -> int:
    """How many of the new items turn into a missing one when one option changes between right and wrong, or the one
    right answer moves; looked for in the first few hundred only."""
    if not missing:
        return 0
    candidates = (item for item in items if item.digest in new and len(item.options) <= RELABEL_OPTIONS)
    return sum(
        any(replace(item, gold=gold).digest in missing for gold in _other_golds(item))
        for item in islice(candidates, RELABEL_LOOKUPS)
    )


def _other_golds(item: Item) -> list[tuple[int, ...]]:
    moved = [(option,) for option in range(len(item.options))]
    toggled = [tuple(sorted(set(item.gold) ^ {option})) for option in range(len(item.options))]
    return [gold for gold in dict.fromkeys([*moved, *toggled]) if gold and gold != item.gold]
