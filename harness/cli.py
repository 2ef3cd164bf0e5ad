"""The command line: ``harness measure | judge | report | baseline | noise | recover | analyze | export | env | selftest |
store | models | index | doctor``.

The same three verbs as the pytest plugin. Exit codes: 0 pass, 1 regression, 4 a request that can't be met, 10 inconclusive
where the policy fails it, 11 invalid, 130 stopped by the user, 141 when nobody read the output to its end.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.analyze import add_command as add_analyze
from harness.commands.baseline import add_commands as add_baseline_commands
from harness.commands.env import add_command as add_env
from harness.commands.export import add_command as add_export
from harness.commands.recover import add_command as add_recover
from harness.commands.selftest import add_command as add_selftest
from harness.commands.store import add_commands as add_store_commands
from harness.commands.terminal import Terminal, make_parser, place_of
from harness.core.command import DATA_VARIABLE, DEFAULT_BASELINES, DEFAULT_DEVICE, DEFAULT_MATRIX, DEFAULT_PROFILE
from harness.core.errors import EXIT_INVALID, EXIT_PASS, EXIT_USAGE, ConfigError, HarnessError
from harness.core.records import CellFailure, CellRun
from harness.core.verdicts import CellVerdict
from harness.execution.matrix import Matrix, read_matrix

if TYPE_CHECKING:
    from harness.execution.local import MeasureOptions
    from harness.execution.progress import Progress

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""As a shell has it: who reads only the first line does not learn whether all passed."""

_WITHOUT_MATRIX = frozenset({"baseline", "doctor", "env", "index", "store", "ls", "verify", "prune"})
"""Commands that ask for no cells, and those whose actions do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except HarnessError as error:
        told = place_of(parsed).complete(str(error)) if hasattr(parsed, "matrix") else str(error)
        print(f"harness: {told}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("harness: stopped; finished blocks are stored and will not be measured again.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - a bug must not end with the code of a regression
        traceback.print_exception(error)
        print("harness: nothing was decided: this is a bug of the harness, please report the lines above.", file=sys.stderr)
        return EXIT_INVALID


# ------------------------------------------------------------------------------------------------ the parser


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        prog="harness",
        description="Which knowledge did a compressed language model keep, and did anything regress against its baseline?",
        epilog="In daily use: `pytest suites/ -k llama_4bit`, which measures, judges and reports in one go. "
        "Exit codes: 0 passed, 1 REGRESSED, 4 a request that can't be met, 10 INCONCLUSIVE where the policy is `release`, "
        "11 INVALID.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    measure = _command(commands, "measure", _measure, "measure cells; leaves records in the run folder")
    measure.add_argument("cells", nargs="+", metavar="CELL", help="cell id, for instance llama_4bit-rtn_none")
    _measuring(measure)
    measure.add_argument("--limit", type=int, metavar="N", help="only N items of each task, a stable sample")
    _run_folder(measure)
    measure.add_argument(
        "--baseline-dir", type=Path, default=DEFAULT_BASELINES, metavar="DIR", help="where trained recoveries lie, too"
    )

    judge = _command(commands, "judge", _judge, "judge a run against the baselines; needs no model and no torch")
    _run_folder(judge)
    _policy(judge)

    report = _command(commands, "report", _report, "judge a run and write its report; needs no model and no torch")
    _run_folder(report)
    _policy(report)
    report.add_argument(
        "--table", choices=("md", "csv", "latex"), help="print the leaderboard (cells x tasks) instead of writing the report"
    )
    report.add_argument("--readme", type=Path, metavar="FILE", help="also put the result table between this file's markers")

    terminal = Terminal(_command, _measuring, _measure_options, print, _progress)
    add_baseline_commands(commands, terminal)
    add_export(commands, terminal)
    add_env(commands, terminal)
    add_selftest(commands, terminal)
    add_recover(commands, terminal)
    add_analyze(commands, terminal)
    add_store_commands(commands, terminal)

    models = _command(commands, "models", _models, "the models of a profile; --fetch gets and converts them")
    models.add_argument("--fetch", action="store_true", help="download and convert what is not in the cache yet")

    index = _command(commands, "index", _index, "one page over the reports of many runs")
    index.add_argument("folder", nargs="?", type=Path, default=Path("reports"), metavar="DIR", help="default: %(default)s")
    index.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/index.html")

    doctor = _command(commands, "doctor", _doctor, "what this machine can run and what is missing")
    doctor.add_argument(
        "--data", type=Path, default=_env_data(), metavar="DIR", help="offline mirror of data sets (default: $HARNESS_DATA)"
    )
    return parser


Runner = Callable[[argparse.Namespace], int]


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Runner | None, about: str
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    made.set_defaults(run=run)
    if name not in _WITHOUT_MATRIX:
        made.add_argument(
            "--profile", default=DEFAULT_PROFILE, metavar="NAME", help="profile of the matrix (default: %(default)s)"
        )
        made.add_argument("--matrix", type=Path, default=DEFAULT_MATRIX, metavar="FILE", help="default: %(default)s")
    return made


def _measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=DEFAULT_DEVICE, help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument(
        "--data", type=Path, default=_env_data(), metavar="DIR", help="offline mirror of data sets (default: $HARNESS_DATA)"
    )
    parser.add_argument("--fresh", action="store_true", help="use nothing that is stored: compress and compute again")


def _run_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        type=Path,
        dest="folder",
        default=Path("reports/latest"),
        metavar="DIR",
        help="run folder (default: %(default)s)",
    )


def _policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", choices=("commit", "release"), default="commit", help="what fails (default: commit)")
    parser.add_argument("--baseline-dir", type=Path, default=DEFAULT_BASELINES, metavar="DIR", help="default: %(default)s")


def _env_data() -> Path | None:
    found = os.environ.get(DATA_VARIABLE)
    return Path(found) if found else None


# ------------------------------------------------------------------------------------------------ the commands


def _measure_options(args: argparse.Namespace) -> MeasureOptions:
    from harness.execution.local import MeasureOptions

    return MeasureOptions(
        device=args.device,
        data=_folder(args.data),
        limit=_positive(getattr(args, "limit", None)),
        fresh=args.fresh,
        baseline_dir=args.baseline_dir,
    )


def _matrix(args: argparse.Namespace) -> Matrix:
    return read_matrix(args.matrix.resolve(), args.profile)


def _measure(args: argparse.Namespace) -> int:
    from harness.core.run_folder import UNFINISHED, keep_only, write_cell
    from harness.execution.local import crashed, measure_cell
    from harness.execution.progress import LogToProgress
    from harness.execution.store import Store
    from harness.review import size_warning

    matrix = _matrix(args)
    plans = [matrix.plan(cell) for cell in args.cells]
    options = _measure_options(args)
    progress = _progress()
    code = EXIT_PASS
    for plan in plans:  # before any record of an earlier run goes: a policy that can't be read is refused here
        if (warning := size_warning(matrix, plan, args.baseline_dir, options.limit)) is not None:
            print(f"harness: {warning}", file=sys.stderr)
    for plan in plans:
        write_cell(args.folder, CellFailure(plan.cell, plan.profile, UNFINISHED))
        with LogToProgress(progress):
            try:
                run: CellRun | CellFailure = measure_cell(
                    matrix, plan, tuple(plan.tasks), options=options, store=Store.default(), progress=progress
                )
            except HarnessError as error:
                reason = place_of(args).complete(str(error))
                told = reason if reason.startswith(plan.cell.id) else f"{plan.cell.id}: {reason}"
                print(f"harness: {told}", file=sys.stderr)
                run, code = CellFailure(plan.cell, plan.profile, reason), error.exit_code
            except Exception as error:  # noqa: BLE001 - a crash (out of memory, a library's own error) is INVALID
                run, code = crashed(plan, error), EXIT_INVALID
                print(f"harness: {plan.cell.id}: {run.reason}", file=sys.stderr)
        write_cell(args.folder, run)
    keep_only(args.folder, {plan.cell.id for plan in plans})
    if code == EXIT_PASS:
        judging = f"`harness report --run {shlex.quote(str(args.folder))}`"
        print(place_of(args).complete(f"measured: {args.folder}; next: {judging}"))
    return code


def _judge(args: argparse.Namespace) -> int:
    from harness.gate import exit_code
    from harness.review import Review

    verdicts = [verdict for _, verdict in Review(args.folder, _matrix(args), args.policy, args.baseline_dir).judge()]
    _print_verdicts(verdicts)
    return exit_code(v for cell in verdicts for v in cell.all)


def _report(args: argparse.Namespace) -> int:
    from harness.gate import exit_code
    from harness.report import make_leaderboard, render_leaderboard, update_readme
    from harness.review import Review

    review = Review(args.folder, _matrix(args), args.policy, args.baseline_dir)
    verdicts = [verdict for _, verdict in review.judge()]
    code = exit_code(v for cell in verdicts for v in cell.all)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    made = {"started_at": now, "ended_at": now, "command": shlex.join(["harness", *sys.argv[1:]])}
    if args.table is not None:
        print(render_leaderboard(make_leaderboard(review.bundle(**made, exit_code=code)), args.table), end="")
        return code
    page, warnings = review.write_report(**made, exit_code=code)
    _print_verdicts(verdicts)
    for line in warnings:
        print(f"{'warning':<13} {line}")
    print(f"report: {page}")
    if args.readme is not None:
        changed = update_readme(args.readme, args.folder / "report.json")
        print(f"{args.readme}: result table {'replaced' if changed else 'is up to date'}")
    return code


def _print_verdicts(verdicts: list[CellVerdict]) -> None:
    from harness.core.verdicts import RECOVERED
    from harness.review import why_no_recovery

    for cell in verdicts:
        for verdict in cell.all:
            print(f"{verdict.status.value:<13} {verdict.cell}-{verdict.task}  {verdict.reason}")
            if verdict.choice is not None and verdict.choice.warning:
                print(f"{'early warning':<13} {verdict.cell}-{verdict.task}  {verdict.choice.warning}")
        if (reason := why_no_recovery(cell)) is not None:
            print(f"{'not judged':<13} {cell.cell.id}-{RECOVERED}  {reason}")


def _models(args: argparse.Namespace) -> int:
    from harness.execution.local import resolve_model
    from harness.execution.store import Store

    matrix, store = _matrix(args), Store.default()
    for name, entry in {plan.cell.model: plan.model for plan in matrix.cells.values()}.items():
        print(f"{name}: {entry.source} ({entry.family})")
        if args.fetch:
            found = resolve_model(entry, matrix.path.parent, store, _progress())
            print(f"  in {found.folder}\n  weights {found.weights_digest}\n  tokenizer {found.tokenizer_digest}")
    if not args.fetch:
        print(f"cache: {store.root}; --fetch gets what is missing and shows digests")
    return EXIT_PASS


def _index(args: argparse.Namespace) -> int:
    from harness.report import write_index

    if not args.folder.is_dir():
        raise ConfigError(
            f"there is no folder {args.folder}: expected one that holds report folders of runs; correct the path."
        )
    print(f"index: {write_index(args.folder, args.out or args.folder / 'index.html')}")
    return EXIT_PASS


def _doctor(args: argparse.Namespace) -> int:
    from harness.execution.doctor import examine

    findings = list(examine(args.data))
    for finding in findings:
        print(f"{'ok ' if finding.is_fine else 'NO '} {finding.what:<20} {finding.found}")
        if not finding.is_fine and finding.remedy:
            print(f"    {'':<20} -> {finding.remedy}")
    return EXIT_PASS if all(finding.is_fine for finding in findings) else EXIT_USAGE


def _positive(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit expects a number of items of at least 1, got {limit}.")
    return limit


def _folder(data: Path | None) -> Path | None:
    if data is not None and not data.is_dir():
        raise ConfigError(f"--data (or HARNESS_DATA) expects a folder, and {str(data)!r} is none.")
    return data


def _progress() -> Progress:
    from harness.execution.progress import Progress

    def write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return Progress(write=write, is_tty=sys.stderr.isatty())
