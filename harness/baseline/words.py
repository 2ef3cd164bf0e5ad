"""Baselines and proposals as lines of text for a terminal. Numbers are points of all items: hundredths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from harness.baseline.changes import Changes, UnitChange, UnitState, points
from harness.baseline.proposal import Proposal
from harness.baseline.record import Baseline

_HEADER = ("", "items", "before", "now", "lost", "gained", "95 % interval of the loss", "A/A spread", "A/A flips")


def describe_baseline(baseline: Baseline, tag: str | None) -> Iterator[str]:
    """A baseline in a few lines; ``tag``: of its release anchor."""
    made = baseline.record
    yield f"{made.cell.id}: {made.reason} (commit {made.provenance.commit[:12]}, {made.provenance.measured_at})"
    for name, task in made.tasks.items():
        noise = f"; {_describe_noise(baseline, name)}" if made.noise else ""
        yield f"  {name:<14} {task.n_correct:,}/{task.info.n_items:,} right{noise}"
    size = f"{made.compression.effective_bits:.2f} bits a weight, {made.compression.size_bytes:,} bytes"
    yield f"  {size}, weights {made.provenance.weights_digest[:12]}"
    if tag is not None:
        yield f"  release anchor: {tag}"


def describe_diff(proposal: Proposal, changes: Changes, loosens: tuple[str, ...]) -> Iterator[str]:
    """What a proposal changes: a table in points, the differences in words, and what it loosens."""
    told = proposal.record
    against = "no accepted baseline" if told.replaces is None else f"the accepted baseline {told.replaces[:12]}"
    yield f"{told.cell.id}: a proposal ({told.kind}) against {against}: {proposal.baseline.record.reason}"
    if changes.is_nothing:
        yield "  nothing differs"
    else:
        yield from (f"  {line}" for line in _table([_HEADER, *(_row(unit) for unit in changes.units)]))
    for unit in changes.units:
        yield from (f"  {unit.name}: {rule}" for rule in unit.rules)
    yield from (f"  differs: {difference}" for difference in changes.differences)
    yield from (f"  loosens: {phrase}" for phrase in loosens)
    yield from (f"  note: {remark}" for remark in told.remarks)


def describe_noise(baseline: Baseline, m1: Mapping[str, float]) -> Iterator[str]:
    """What the A/A runs of a baseline show, a column a task; ``m1``: the loss that a PASS then excludes, by task and pool."""
    made, noise = baseline.record, baseline.record.noise
    if noise is None:
        return
    units = list(noise.sigma)
    n_pooled = sum(task.info.n_items for task in made.tasks.values() if task.info.pooled)
    yield f"{made.cell.id}: {len(noise.runs)} A/A runs, accuracy and flips against the stored run (points of all items)"
    rows = [("", *units), ("items", *(f"{made.tasks[u].info.n_items if u in made.tasks else n_pooled:,}" for u in units))]
    for run in noise.runs:
        cells = [f"{100 * run.accuracy[u]:.2f}, {run.n_flips[u]:,} flips" if u in made.tasks else "" for u in units]
        rows.append((f"{run.label}, stored" if run is noise.runs[0] else run.label, *cells))
    rows.append(("spread (sigma)", *(points(noise.sigma[unit]) for unit in units)))
    rows.append(("flip rate, at most (f_ref)", *(points(noise.flip_rate[unit]) for unit in units)))
    rows.append(("loss that PASS excludes (m1)", *(points(m1[unit]) if unit in m1 else "uninformative" for unit in units)))
    yield from (f"  {line}" for line in _table(rows))


def _describe_noise(baseline: Baseline, name: str) -> str:
    noise = baseline.record.noise
    if noise is None:
        return ""
    spread, flips = points(noise.sigma[name]), points(noise.flip_rate[name])
    return f"{len(noise.runs)} A/A runs: spread {spread} pt, at most {flips} pt flip"


def _row(unit: UnitChange) -> tuple[str, ...]:
    before, now, counts, loss = unit.before, unit.now, unit.counts, unit.loss
    return (
        unit.name,
        _pair(before, now, lambda state: f"{state.n_items:,}"),
        "none" if before is None else f"{100 * before.accuracy:.2f}",
        "none" if now is None else f"{100 * now.accuracy:.2f}",
        "" if counts is None else f"{counts.n_lost:,}",
        "" if counts is None else f"{counts.n_gained:,}",
        "" if loss is None else f"{100 * loss.low:.2f} to {100 * loss.high:.2f}",
        _pair(before, now, lambda state: points(state.sigma)),
        _pair(before, now, lambda state: points(state.flip_rate)),
    )


def _pair(before: UnitState | None, now: UnitState | None, told: Callable[[UnitState], str]) -> str:
    """A value that is the same on both sides once, else as a change."""
    texts = [told(state) for state in (before, now) if state is not None]
    return " -> ".join(dict.fromkeys(texts))


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for name, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *aligned]).rstrip()
