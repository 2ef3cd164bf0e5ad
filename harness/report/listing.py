"""Which flips a reader gets to see where not all fit: the same share of every comparison, both directions, baselines first.

More room never takes a flip away that less room gave: what the page lists is always among what report.json has in full.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.report.budget import share_out
from harness.report.bundle import RunBundle
from harness.report.pairs import Flips, compared_flips
from harness.report.view import anchor

MOST_ROWS = 5000
"""Flips that the page lists, all comparisons together; report.json has every one."""

SHARE_OF_DENSE = 0.4
"""Of the room, what comparisons with the dense model get where those with baselines would fill it."""


def comparisons(bundle: RunBundle) -> list[Flips]:
    """Every comparison of a run, those with baselines first: they are what the gate judges."""
    return sorted(compared_flips(bundle), key=lambda found: found.against != "baseline")


def shares(compared: Sequence[Flips], room: int) -> tuple[int, ...]:
    """How many flips of each comparison there is room for; ``compared`` as ``comparisons`` orders them."""
    sizes = [len(found) for found in compared]
    n_base = sum(found.against == "baseline" for found in compared)
    for_base = share_out(sizes[:n_base], room - min(sum(sizes[n_base:]), int(room * SHARE_OF_DENSE)))
    return for_base + share_out(sizes[n_base:], room - sum(for_base))


def split(n_lost: int, n_gained: int, share: int) -> tuple[int, int]:
    """How many lost and how many gained flips are in a share: half of it each, if there are as many.

    >>> split(10, 10, 6), split(1, 10, 6), split(1, 2, 6)
    ((3, 3), (1, 5), (1, 2))
    """
    lost = min(n_lost, share - min(n_gained, share // 2))
    return lost, min(n_gained, share - lost)


def listed(found: Flips, share: int) -> Flips:
    """The flips in a share, lost ones first, of each direction those that moved most."""
    lost, gained = split(found.n_lost, found.n_gained, share)
    return found.only(np.r_[:lost, found.n_lost : found.n_lost + gained])


def flips_anchor(cell: str, task: str, against: str, lost: bool) -> str:
    """The id of the first listed flip of a comparison in one direction."""
    return anchor("flips", cell, task, against, "lost" if lost else "gained")


def listed_anchors(bundle: RunBundle) -> frozenset[str]:
    """The ids that ``flips_anchor`` gives for what the page really lists: its other parts link to no others."""
    compared = comparisons(bundle)
    return frozenset(
        flips_anchor(found.run.cell, found.run.info.name, found.against, lost)
        for found, share in zip(compared, shares(compared, MOST_ROWS), strict=True)
        for lost, n in zip((True, False), split(found.n_lost, found.n_gained, share), strict=True)
        if n
    )
