"""``harness store ls | verify | prune``: what lies in the cache folder, whether it is whole, and throwing it away."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable

from harness.commands.terminal import Subparsers, Terminal
from harness.core.errors import EXIT_INVALID, EXIT_PASS, ConfigError

_DAYS = 30.0
_GB = 1e9
_SHOWN = 12


def add_commands(commands: Subparsers, terminal: Terminal) -> None:
    """Declare ``store`` with its actions."""
    store = terminal.add(commands, "store", None, "list, check and prune what is kept so that nothing is done twice")
    actions = store.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(name: str, about: str, run: Callable[[Terminal, argparse.Namespace], int]) -> argparse.ArgumentParser:
        return terminal.add(actions, name, lambda args: run(terminal, args), about)

    add("ls", "what lies there: kind, size, days since it was used", ls)
    add("verify", "read all of it; what is broken is told, and made again when it is needed; exit code 11 if any is", verify)
    pruned = add("prune", "remove what was not used for some time; models stay", prune)
    pruned.add_argument("--days", type=float, default=_DAYS, help="unused for so many days (default: %(default)g)")
    pruned.add_argument(
        "--max-gb",
        type=float,
        default=math.inf,
        help="then what was unused for longest, until all but models takes so many GB",
    )
    pruned.add_argument("--dry-run", action="store_true", help="only list it")


def ls(terminal: Terminal, args: argparse.Namespace) -> int:  # noqa: ARG001 - every action is called alike
    """List the store."""
    from harness.execution.inventory import entries
    from harness.execution.store import Store

    store, now = Store.default(), time.time()
    found = entries(store)
    for entry in found:
        days = f"{entry.days_unused(now):,.0f} d"
        terminal.say(f"{entry.kind:<10}  {entry.key[:_SHOWN]}  {_size(entry.size_bytes):>9}  {days:>6}  {entry.about}")
    terminal.say(f"{_total(entry.size_bytes for entry in found)} in {store.root}")
    return EXIT_PASS


def verify(terminal: Terminal, args: argparse.Namespace) -> int:  # noqa: ARG001 - every action is called alike
    """Check the store."""
    from harness.execution import inventory
    from harness.execution.store import Store

    n_checked = n_broken = 0
    for entry, fault in inventory.verify(Store.default()):
        n_checked += 1
        if fault is not None:
            n_broken += 1
            terminal.say(f"{entry.kind} {entry.key[:_SHOWN]} is broken and will be made again: {fault}")
    terminal.say(f"{n_checked} checked, {n_broken} broken")
    return EXIT_INVALID if n_broken else EXIT_PASS


def prune(terminal: Terminal, args: argparse.Namespace) -> int:
    """Prune the store."""
    from harness.execution import inventory
    from harness.execution.store import Store

    if not args.days >= 0:
        raise ConfigError(f"--days {args.days:g} is not possible: expected 0 or more.")
    if not args.max_gb >= 0:
        raise ConfigError(f"--max-gb {args.max_gb:g} is not possible: expected 0 or more.")
    store, most_bytes = Store.default(), args.max_gb * _GB
    removed = inventory.prune(store, unused_days=args.days, most_bytes=most_bytes, dry_run=args.dry_run)
    for entry in removed:
        terminal.say(f"{entry.kind:<10}  {entry.key[:_SHOWN]}  {_size(entry.size_bytes):>9}  {entry.about}")
    terminal.say(f"{_total(entry.size_bytes for entry in removed)} {'would be ' if args.dry_run else ''}removed")
    return EXIT_PASS


def _total(sizes_bytes: Iterable[int]) -> str:
    sizes = list(sizes_bytes)
    return f"{len(sizes)} {'entry' if len(sizes) == 1 else 'entries'}, {_size(sum(sizes))}"


def _size(n_bytes: int) -> str:
    """
    >>> _size(999), _size(93_400_000)
    ('0.0 MB', '93.4 MB')
    """
    return f"{n_bytes / 1e6:,.1f} MB"
