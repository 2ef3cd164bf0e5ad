"""What the lines of ``compression_matrix.py`` say: the table, and the findings of Namburi et al. 2023 with their intervals.

A loss is positive where the second cell knows less than the first. Tasks of LAMA take relations as clusters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from harness.core.verdicts import Estimate, PairedCounts
from harness.stats.clusters import Clusters, cluster_interval, p_loss_above_clustered
from harness.stats.intervals import wilson
from harness.stats.multiplicity import holm
from harness.stats.paired import mcnemar_midp, tango_interval
from harness.stats.retention import retention

LEVEL = 0.95
CLUSTERED = ("lama_trex",)
SHARES = (10, 30, 50, 70, 90)
WORDS = {"all": "", "attention": "attention-", "feed-forward": "feed-forward-"}
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a cell: which items are right, and their relations."""

    right: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, slots=True)
class Tested:
    """One comparison: what it says, its loss in fractions of all items, and the two-sided p-value of no loss."""

    words: str
    loss: Estimate
    p: float


def show_table(rows: Sequence[Row]) -> None:
    """One line for each task of each cell."""
    print(
        f"{'cell':<44} {'task':<11} {'n':>4} {'accuracy':>20} {'kept of dense':>20} {'lost':>5} {'gained':>6} "
        f"{'bits':>6} {'MB':>7} {'zeros':>6} {'error':>6} {'made s':>7} {'asked s':>7}"
    )
    dense = {row["model"]: row for row in rows if row["compression"] == "none"}
    for row in rows:
        name = f"{row['model']}_{row['compression']}"
        if row["refused"]:
            print(f"{name:<44} {row['refused']}")
        for task, made in row["tasks"].items():
            now = _task(row, task)
            right = wilson(int(now.right.sum()), len(now.right), LEVEL)
            kept, lost, gained = "", "", ""
            if row is not dense.get(row["model"]) and row["model"] in dense:
                before = _task(dense[row["model"]], task, made["items"])
                counts = _counts(before.right, now.right)
                found = retention(counts, int(before.right.sum()), LEVEL)
                kept = _percent(found) if isinstance(found, Estimate) else "undefined"
                lost, gained = str(counts.n_lost), str(counts.n_gained)
            print(
                f"{name:<44} {task:<11} {len(now.right):>4} {_percent(right):>20} {kept:>20} {lost:>5} {gained:>6} "
                f"{row['bits']:>6.2f} {row['size_bytes'] / 1e6:>7.1f} {_share(row['sparsity'])} {_share(row['error_mean'])} "
                f"{row['wall_s']:>7.1f} {made['wall_s']:>7.1f}"
            )


def show_findings(rows: Sequence[Row]) -> None:
    """Each finding of the paper: every test of it, and whether it is seen, reversed, or open at this number of items."""
    cells = {(row["model"], row["compression"]): row for row in rows if not row["refused"]}
    for title, tests in (
        ("pruning all layers together loses more than attention or feed-forward alone, at one share", list(_together(cells))),
        ("feed-forward loses more than attention, at one share or bits", list(_parts(cells))),
        ("the step from 50 % to 70 % loses more than that from 30 % to 50 %", list(_steps(cells))),
    ):
        print(f"\n{title} ({len(tests)} tests):")
        if not tests:
            print("  nothing measured yet")
            continue
        adjusted = holm(np.array([test.p for test in tests]))
        says = [_says(test.loss, p) for test, p in zip(tests, adjusted, strict=True)]
        for test, p, said in zip(tests, adjusted, says, strict=True):
            print(f"  {said:<9} {test.words:<66} {_points(test.loss)}  p = {test.p:.2g}, adjusted {p:.2g}")
        print(f"  seen {says.count('seen')}, reversed {says.count('reverse')}, open {says.count('open')}")


def _says(loss: Estimate, p: float) -> str:
    return "open" if p > 1 - LEVEL else "seen" if loss.value > 0 else "reverse"


# ------------------------------------------------------------------------------------------------ the findings


def _together(cells: Mapping[tuple[str, str], Row]) -> Iterator[Tested]:
    for share in SHARES:
        for part in ("attention", "feed-forward"):
            yield from _against(
                cells, f"{share}pct-{WORDS[part]}magnitude", f"{share}pct-magnitude", f"{share} % of {part} -> all"
            )


def _parts(cells: Mapping[tuple[str, str], Row]) -> Iterator[Tested]:
    methods = [f"{share}pct-{{}}magnitude" for share in SHARES]
    methods += ["8bit-{}int8-dynamic", "4bit-{}rtn", "3bit-{}rtn", "20pct.8bit-{}steps", "40pct.8bit-{}steps"]
    for method in methods:
        one, other = (method.format(WORDS[part]) for part in ("attention", "feed-forward"))
        yield from _against(cells, one, other, method.format("[attention -> feed-forward] "))


def _against(cells: Mapping[tuple[str, str], Row], first: str, second: str, words: str) -> Iterator[Tested]:
    for model in dict.fromkeys(model for model, _ in cells):
        before, after = cells.get((model, first)), cells.get((model, second))
        if before is not None and after is not None:
            for task, made in after["tasks"].items():
                was, now = _task(before, task, made["items"]), _task(after, task)
                yield _tested(f"{model} {task}: {words}", was, now, clustered=task in CLUSTERED)


def _tested(words: str, was: Task, now: Task, *, clustered: bool) -> Tested:
    if not clustered:
        counts = _counts(was.right, now.right)
        low, high = tango_interval(counts.n_lost, counts.n_gained, counts.n_items, LEVEL)
        tails = mcnemar_midp(counts.n_lost, counts.n_gained), mcnemar_midp(counts.n_gained, counts.n_lost)
        return Tested(words, Estimate(counts.loss, low, high, LEVEL, "tango"), _two_sided(*map(float, tails)))
    numbers = np.unique(now.groups, return_inverse=True)[1]
    counts = Clusters.of(was.right & ~now.right, ~was.right & now.right, numbers)
    tails = p_loss_above_clustered(counts, 0.0), p_loss_above_clustered(counts.turned(), 0.0)
    return Tested(words, cluster_interval(counts, LEVEL), _two_sided(*map(float, tails)))


def _steps(cells: Mapping[tuple[str, str], Row]) -> Iterator[Tested]:
    """The difference of two falls, item by item: its mean with a t interval over items, or over relations."""
    for model in dict.fromkeys(model for model, _ in cells):
        for scope, words in WORDS.items():
            found = [cells.get((model, f"{share}pct-{words}magnitude")) for share in (30, 50, 70)]
            if any(row is None for row in found):
                continue
            at_30, at_50, at_70 = (row for row in found if row is not None)
            for task, made in at_70["tasks"].items():
                before, middle, after = (_task(row, task, made["items"]) for row in (at_30, at_50, at_70))
                falls = [int(a.right.sum() - b.right.sum()) for a, b in ((before, middle), (middle, after))]
                bends = 2.0 * middle.right - before.right - after.right
                units = _by_group(bends, after.groups) if task in CLUSTERED else bends
                told = f"{model} {task}: {scope}, {falls[0]} items to 50 %, {falls[1]} to 70 %"
                yield _mean_tested(told, units, len(bends))


def _mean_tested(words: str, units: np.ndarray, n_items: int) -> Tested:
    n, mean = len(units), float(units.sum() / n_items)
    error = math.sqrt(n * float(units.var(ddof=1))) / n_items
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error)) if error > 0 else 1.0
    return Tested(words, Estimate(mean, max(-2.0, mean - half), min(2.0, mean + half), LEVEL, "t"), p)


# ------------------------------------------------------------------------------------------------ what they do alike


def _task(row: Row, name: str, items: str | None = None) -> Task:
    made = row["tasks"][name]
    if items is not None and made["items"] != items:
        raise SystemExit(f"{row['model']}_{row['compression']} was asked other items of {name} than another cell")
    return Task(np.array([one == "1" for one in made["right"]]), np.array(made["groups"]))


def _counts(was: np.ndarray, now: np.ndarray) -> PairedCounts:
    n_lost, n_gained = int((was & ~now).sum()), int((~was & now).sum())
    return PairedCounts(n_lost, n_gained, len(now) - n_lost - n_gained)


def _by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.array([values[groups == group].sum() for group in sorted(set(groups.tolist()))])


def _two_sided(one: float, other: float) -> float:
    return min(1.0, 2 * min(one, other))


def _percent(found: Estimate) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _points(found: Estimate) -> str:
    return f"{100 * found.value:+6.1f} pt [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _share(value: float | None) -> str:
    return f"{'':>6}" if value is None else f"{100 * value:>5.1f}%"
