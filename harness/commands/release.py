"""``harness baseline freeze | unused``: anchors of releases, and what nobody needs any more."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from harness.baseline import find_unused, remove_unused
from harness.baseline import freeze as freeze_baselines
from harness.commands.terminal import Terminal, matrix_of, plans_of
from harness.core.errors import EXIT_PASS
from harness.execution.engine import read_commit


def freeze(terminal: Terminal, args: argparse.Namespace) -> int:
    """Freeze the accepted baselines as release anchors."""
    matrix, root = matrix_of(args), args.baseline_dir
    cells = [plan.cell for plan in plans_of(matrix, args.cells)]
    if not args.cells:
        cells = [cell for cell in cells if (root / matrix.profile / cell.id).exists()]
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    commit = read_commit(matrix.path.parent)
    new = freeze_baselines(root, matrix.profile, cells, tag=args.tag, commit=commit, frozen_at=now, replace=args.replace)
    for cell in cells:
        terminal.say(f"{cell.id}: {'frozen' if cell in new else 'is frozen already'} as {args.tag}")
    return EXIT_PASS


def unused(terminal: Terminal, args: argparse.Namespace) -> int:
    """List, and remove where asked, what no declared cell or task needs."""
    matrix, root = matrix_of(args), args.baseline_dir
    declared = {cell_id: tuple(plan.tasks) for cell_id, plan in matrix.cells.items()}
    found = find_unused(root, matrix.profile, declared)
    terminal.say_all([f"unused: {one}" for one in found] or [f"nothing is unused in {root / matrix.profile}"])
    if args.remove and found:
        terminal.say(f"removed: {len(remove_unused(root, matrix.profile, declared))}; commit it")
    elif found:
        terminal.say("--remove deletes these")
    return EXIT_PASS
