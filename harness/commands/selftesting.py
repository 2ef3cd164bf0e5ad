"""What ``harness selftest`` does: the gate's own error rates, power and cost, for this matrix, policy and recorded cells."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from harness.baseline import load_baseline, load_release
from harness.baseline.load import release_home
from harness.commands.terminal import Terminal, matrix_of
from harness.core.errors import EXIT_PASS, BaselineError, ConfigError, FileFormatError
from harness.core.records import Cell, CellFailure, CellRun
from harness.core.run_folder import read_cell, read_run, write_cell
from harness.core.serial import storage_errors, write_json
from harness.execution.matrix import CellPlan, Matrix
from harness.gate import read_policy
from harness.gate.promises import Promise, Shown, UnitRates
from harness.gate.recorded import Recorded, problem_of, run_of_baseline
from harness.gate.replay import Check
from harness.gate.selftest import CellRates, LossRates, SelfTest, self_test
from harness.report.format import NBSP, percent
from harness.review import POLICY, family_of

EXIT_BROKEN = 1
"""A promised rate is missed, or not shown; or records did not get the verdict that they have to get."""

_UNIT_HEAD = [
    "unit",
    "anchor",
    "items",
    "m0",
    "red at m0",
    "allowed",
    "m1",
    "PASS at m1",
    "allowed",
    "PASS unchanged",
    "says it finds",
]


def run(terminal: Terminal, args: argparse.Namespace) -> int:
    """Run the self-test and print what it found."""
    _check_options(args)
    matrix = matrix_of(args)
    policy_file = args.policy_file or matrix.path.parent / POLICY
    cells, untested = _recorded_cells(args, matrix, policy_file)
    progress = terminal.progress()
    progress.start(f"testing the gate on {_cells(len(cells))}")
    found = self_test(
        cells,
        profile=matrix.profile,
        n_commits=args.commits,
        seed=args.seed,
        flips=args.flips,
        untested=untested,
        tell=progress.update,
    )
    files = _check_files(args.baseline_dir, cells)
    terminal.say_all(_told(found, policy_file, args.folder, files))
    if args.json is not None:
        write_json(args.json, found)
        terminal.say(f"all numbers: {args.json}")
    return EXIT_PASS if found.is_kept and files.is_kept else EXIT_BROKEN


def _check_options(args: argparse.Namespace) -> None:
    if args.commits < 1:
        raise ConfigError(f"--commits expects a number of at least 1, got {args.commits}.")
    if args.seed < 0:
        raise ConfigError(f"--seed expects a number of at least 0, got {args.seed}.")
    if args.flips is not None and not 0 <= args.flips < 1:
        raise ConfigError(f"--flips expects a share of the items, at least 0 and below 1, got {args.flips}.")


# ------------------------------------------------------------------------------------------------ what is tested


def _recorded_cells(args: argparse.Namespace, matrix: Matrix, policy_file: Path) -> tuple[list[Recorded], dict[str, str]]:
    """The cells that have what it takes, and why the others have not.

    Floors are left out: what a cell lost against its dense one is no change. So a cell with a floor is tested at the level
    that it would have without one, which is higher: more false alarms, more power.
    """
    policy, family = replace(read_policy(policy_file), dense_floor=()), family_of(matrix)
    runs = {} if args.folder is None else {_cell(one).id: one for one in read_run(args.folder)}
    cells, untested = [], {}
    for plan in matrix.cells.values():
        last = load_baseline(args.baseline_dir, matrix.profile, plan.cell)
        entry: CellRun | CellFailure | None = runs.get(plan.cell.id)
        if last is not None and args.folder is None:
            entry = run_of_baseline(last, plan.model.family, tuple(plan.tasks))
        if last is None or not isinstance(entry, CellRun):
            untested[plan.cell.id] = _why_not(entry, has_baseline=last is not None)
            continue
        release = load_release(args.baseline_dir, matrix.profile, plan.cell)
        recorded = Recorded(_declared(entry, plan), last, release, policy, family)
        problem = problem_of(recorded, tuple(plan.tasks))
        if problem is None:
            cells.append(recorded)
        else:
            untested[plan.cell.id] = problem
    if not cells:
        told = "; ".join(f"{cell}: {why}" for cell, why in untested.items())
        raise BaselineError(
            f"no cell of profile {matrix.profile!r} can be tested ({told}): `harness baseline propose CELL` makes baselines."
        )
    return cells, untested


def _declared(run: CellRun, plan: CellPlan) -> CellRun:
    return CellRun(run.record, {name: run.runs[name] for name in plan.tasks if name in run.runs})


def _why_not(entry: CellRun | CellFailure | None, *, has_baseline: bool) -> str:
    if not has_baseline:
        return "it has no baseline"
    return entry.reason if isinstance(entry, CellFailure) else "it is not in the run"


def _cell(run: CellRun | CellFailure) -> Cell:
    return run.cell if isinstance(run, CellFailure) else run.record.cell


# ------------------------------------------------------------------------------------------------ files


def _check_files(baseline_dir: Path, cells: Iterable[Recorded]) -> Check:
    """Copies of every outcome file, of baselines and of runs, cut in the middle: none may be read."""
    problems, n = [], 0
    with tempfile.TemporaryDirectory(prefix="harness-selftest-") as folder:
        for recorded in cells:
            for path in _files(Path(folder), baseline_dir, recorded):
                n += 1
                if not _is_refused(path, recorded):
                    problems.append(f"{path.relative_to(folder)} was read although half of it is missing")
    return Check("item files that are cut in the middle are refused", n, tuple(problems))


def _files(folder: Path, baseline_dir: Path, recorded: Recorded) -> Iterator[Path]:
    """Copies of a cell's outcome files, one at a time, each cut; the folder around it is whole again afterwards."""
    cell, profile = recorded.last.record.cell, recorded.last.record.profile
    write_cell(folder / "run", recorded.candidate())
    homes = [(folder / "run" / "records" / cell.id, "*.outcomes.parquet")]
    for source in (baseline_dir / profile / cell.id, release_home(baseline_dir, profile, cell)):
        if source.is_dir():
            copy = folder / source.relative_to(baseline_dir)
            copy.mkdir(parents=True)
            for path in source.iterdir():
                (copy / path.name).write_bytes(path.read_bytes())
            homes.append((copy, "*.parquet"))
    with storage_errors(folder):
        for home, pattern in homes:
            for path in sorted(home.glob(pattern)):
                whole = path.read_bytes()
                path.write_bytes(whole[: len(whole) // 2])
                yield path
                path.write_bytes(whole)


def _is_refused(path: Path, recorded: Recorded) -> bool:
    """Whether a cell with this damaged file is refused where the gate would read it."""
    cell, profile = recorded.last.record.cell, recorded.last.record.profile
    try:
        if "records" in path.parts:
            read_cell(path.parent)
        elif path.parent.parent.name == "release":
            load_release(path.parents[3], profile, cell)
        else:
            load_baseline(path.parents[2], profile, cell)
    except (FileFormatError, BaselineError):
        return True
    return False


# ------------------------------------------------------------------------------------------------ what is told


def _told(found: SelfTest, policy_file: Path, folder: Path | None, files: Check) -> Iterator[str]:
    source = "the accepted baselines" if folder is None else f"the records of {folder}"
    rates = "as was measured" if found.flips is None else f"on {_plain(percent(found.flips))} of the items"
    yield f"The gate on {_cells(len(found.cells))} of profile {found.profile!r}, by {policy_file}."
    yield f"Losses are injected into {source}; items flip {rates} when nothing changes."
    yield f"{found.n_commits:,} commits of each kind are simulated, seed {found.seed}."
    yield from (f"not tested: {cell}: {why}" for cell, why in found.untested.items())
    yield ""
    yield "Every cell loses the same: share of commits that are red (95 % interval), share of the items that were fed"
    yield from _table(
        ["lost everywhere", "red commits", "", "items used"],
        [[_loss(one, index), *_red(one), _plain(percent(one.used))] for index, one in enumerate(found.commits)],
    )
    yield ""
    yield "One cell loses: share of commits on which it is red / share of its items that were fed"
    yield from _table(
        ["cell", "items", "anchors", *(_loss(one, index) for index, one in enumerate(found.commits))],
        map(_cell_row, found.cells),
    )
    yield "* compressed again: it moves by itself, so only all of its items decide"
    yield ""
    yield "Each cell's pool and tasks, exactly (no simulation): margins in points; chance to be red, or to pass"
    units = [(cell.cell, one) for cell in found.cells for one in cell.units]
    yield from _table(
        _UNIT_HEAD,
        [_unit_row(cell, one) for cell, one in units],
    )
    power = _plain(percent(found.power, 0))
    yield f'"says it finds": the loss that reports say is found with {power}, and how often it really is'
    yield ""
    yield "Promises"
    yield from _promises(found.promises)
    yield from map(_check_line, (*found.checks, files))
    yield from (f"  {problem}" for check in (*found.checks, files) for problem in check.problems)
    yield ""
    n_bad = sum(one.shown is not Shown.KEPT for one in found.promises) + sum(not one.is_kept for one in (*found.checks, files))
    yield f"{n_bad} promises are broken or not shown" if n_bad else "every promise is kept"


def _promises(promises: Iterable[Promise]) -> Iterator[str]:
    """One line for each simulated promise and each that is not kept; the exact ones that are, counted."""
    exact = [one for one in promises if one.n_commits is None]
    for one in (
        *(one for one in promises if one.n_commits is not None),
        *(one for one in exact if one.shown is not Shown.KEPT),
    ):
        sign, bound = (">=", one.low) if one.at_least else ("<=", one.high)
        limit = "" if one.n_commits is None else f", at 99.9 % confidence {sign} {_plain(percent(bound))}"
        found = f"{sign} {_plain(percent(one.limit, 2))}; found {_plain(percent(one.found, 2))}{limit}"
        yield f"{one.shown.value:<9} {one.name}: {found}"
    n_kept = sum(one.shown is Shown.KEPT for one in exact)
    rest = "red at m0 and PASS at m1 no more often than allowed, PASS unchanged where it is promised"
    yield f"{'kept' if n_kept == len(exact) else 'MISSED':<9} {n_kept} of {len(exact)} exact chances: {rest}"


def _check_line(check: Check) -> str:
    told = f"{check.n_tried:,} tried" + (f", {len(check.problems):,} problems" if check.problems else "")
    return f"{'kept' if check.is_kept else 'BROKEN':<9} {check.name}: {told}"


def _loss(one: LossRates, index: int) -> str:
    what = f"{100 * one.loss:.3g} pt" if one.loss else "nothing"
    return f"{what} (m0)" if index == 1 else what


def _red(one: LossRates) -> list[str]:
    return [_plain(percent(one.red, 2)), f"({100 * one.red_low:.2f} to {100 * one.red_high:.2f})"]


def _cell_row(cell: CellRates) -> list[str]:
    losses = [f"{_plain(percent(one.red))} / {100 * one.used:.0f} %" for one in cell.losses]
    return [cell.cell + (" *" if cell.at_full_n else ""), f"{cell.n_items:,}", "+".join(cell.anchors), *losses]


def _unit_row(cell: str, one: UnitRates) -> list[str]:
    detectable = "no loss" if one.detectable is None else f"{100 * one.detectable:.2f} pt"
    if one.red_at_detectable is not None:
        detectable += f" in {_plain(percent(one.red_at_detectable))}"
    return [
        f"{cell}-{one.unit}",
        one.anchor,
        f"{one.n_items:,}",
        f"{100 * one.m0:.2f}",
        _plain(percent(one.red_at_m0, 3)),
        _plain(percent(one.level_fail, 3)),
        f"{100 * one.m1:.2f}",
        _plain(percent(one.passes_at_m1)),
        _plain(percent(one.level_pass)),
        _plain(percent(one.passes_unchanged)) + ("" if one.feasible else " (not promised)"),
        detectable,
    ]


def _table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Columns, the first to the left and the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        yield "  " + "  ".join(cells).rstrip()


def _plain(text: str) -> str:
    return text.replace(NBSP, " ")


def _cells(number: int) -> str:
    return "1 cell" if number == 1 else f"{number} cells"
