"""Which flips a reader gets to see where not all fit: the same share of every comparison, both directions, baselines first.

More room never takes a flip away that less room gave: what the page lists is always among what report.json has in full.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.records import TaskRun
from harness.report.budget import share_out
from harness.report.bundle import RunBundle
from harness.report.pairs import Flip, compared_flips
from harness.report.view import anchor

Comparison = tuple[TaskRun, str, tuple[Flip, ...]]
"""One task of one cell, the reference's name, and what flipped, lost ones first."""

MOST_ROWS = 5000
"""Flips that the page lists, all comparisons together; report.json has every one."""

SHARE_OF_DENSE = 0.4
"""Of the room, what comparisons with the dense model get where those with baselines would fill it."""


def comparisons(bundle: RunBundle) -> list[Comparison]:
    """Every comparison of a run, those with baselines first: they are what the gate judges."""
    return sorted(compared_flips(bundle), key=lambda one: one[1] != "baseline")


def shares(compared: Sequence[Comparison], room: int) -> tuple[int, ...]:
    """How many flips of each comparison there is room for; ``compared`` as ``comparisons`` orders them."""
    sizes = [len(found) for _, _, found in compared]
    n_base = sum(name == "baseline" for _, name, _ in compared)
    for_base = share_out(sizes[:n_base], room - min(sum(sizes[n_base:]), int(room * SHARE_OF_DENSE)))
    return for_base + share_out(sizes[n_base:], room - sum(for_base))


def split(found: Sequence[Flip], share: int) -> tuple[int, int]:
    """How many lost and how many gained flips are in a share: half of it each, if there are as many."""
    n_lost = sum(flip.lost for flip in found)
    n_gained = len(found) - n_lost
    lost = min(n_lost, share - min(n_gained, share // 2))
    return lost, min(n_gained, share - lost)


def listed(found: Sequence[Flip], share: int) -> list[Flip]:
    """The flips in a share, lost ones first, of each direction those that moved most."""
    n_lost, n_gained = split(found, share)
    lost = [flip for flip in found if flip.lost]
    return [*lost[:n_lost], *found[len(lost) : len(lost) + n_gained]]


def flips_anchor(cell: str, task: str, against: str, lost: bool) -> str:
    """The id of the first listed flip of a comparison in one direction."""
    return anchor("flips", cell, task, against, "lost" if lost else "gained")


def listed_anchors(bundle: RunBundle) -> frozenset[str]:
    """The ids that ``flips_anchor`` gives for what the page really lists: its other parts link to no others."""
    compared = comparisons(bundle)
    return frozenset(
        flips_anchor(run.cell, run.info.name, name, lost)
        for (run, name, found), share in zip(compared, shares(compared, MOST_ROWS), strict=True)
        for lost, n in zip((True, False), split(found, share), strict=True)
        if n
    )
