"""The leaderboard as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from typing import Literal

from harness.core.records import Cell
from harness.report import format as fmt
from harness.report.leaderboard import LEVEL, Column, Entry, Leaderboard

Kind = Literal["md", "csv", "latex"]

_LATEX = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", fmt.NBSP: "~",
                        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})  # fmt: skip


def render_leaderboard(board: Leaderboard, kind: Kind) -> str:
    """The table as text, with a line at the end of each row. CSV has one line an entry, in plain fractions."""
    return {"md": _markdown, "csv": _csv, "latex": _latex}[kind](board)


def _markdown(board: Leaderboard) -> str:
    head = ["Cell", *(_title(column) for column in board.columns)]
    lines = [head, ["---", *("---:" for _ in board.columns)]]
    lines += [[f"`{cell.id}`", *(_shown(board, cell, column, "**", "**") for column in board.columns)] for cell in board.rows]
    table = "".join(f"| {' | '.join(_in_cell(text) for text in line)} |\n" for line in lines)
    return f"{table}\n{_note(board)}\n"


def _latex(board: Leaderboard) -> str:
    lines = [" & ".join(["Cell", *(_title(column).translate(_LATEX) for column in board.columns)])]
    for cell in board.rows:
        shown = [_shown(board, cell, column, "", "").translate(_LATEX) for column in board.columns]
        bold = [
            f"\\textbf{{{text}}}" if _is_best(board, cell, c) else text for text, c in zip(shown, board.columns, strict=True)
        ]
        lines.append(" & ".join([cell.id.translate(_LATEX), *bold]))
    rows = " \\\\\n".join([lines[0] + " \\\\\n\\hline\n" + lines[1] if len(lines) > 1 else lines[0], *lines[2:]])
    columns = "l" + "r" * len(board.columns)
    return f"% {_note(board)}\n\\begin{{tabular}}{{{columns}}}\n{rows} \\\\\n\\end{{tabular}}\n"


def _csv(board: Leaderboard) -> str:
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["cell", "task", "measure", "mean", "value", "low", "high", "level", "method", "n_items", "n_all", "is_best"])
    for cell in board.rows:
        for column in board.columns:
            entry = board.entries.get((cell, column))
            if entry is not None:
                made, kind = entry.mean, "macro" if column.is_macro else "micro"
                numbers = [repr(made.value), repr(made.low), repr(made.high), made.level, made.method]
                write([cell.id, column.task, column.measure, kind, *numbers, entry.n_items, entry.n_all, entry.is_best])
    return out.getvalue()


def _title(column: Column) -> str:
    """
    >>> _title(Column("facts", "right", False)), _title(Column("lama", "P@10", True))
    ('facts', 'lama, P@10, macro')
    """
    parts = [fmt.visible(column.task), *([column.measure] if column.measure != "right" else [])]
    return ", ".join([*parts, *(["macro"] if column.is_macro else [])])


def _shown(board: Leaderboard, cell: Cell, column: Column, before: str, after: str) -> str:
    entry = board.entries.get((cell, column))
    if entry is None:
        return "–"
    text = f"{fmt.percent(entry.mean.value)} {fmt.percent_interval(entry.mean.low, entry.mean.high)}{_part(entry)}"
    return f"{before}{text}{after}" if entry.is_best else text


def _part(entry: Entry) -> str:
    return "" if entry.n_items == entry.n_all else f" ({fmt.count(entry.n_items)} of {fmt.count(entry.n_all)})"


def _is_best(board: Leaderboard, cell: Cell, column: Column) -> bool:
    entry = board.entries.get((cell, column))
    return entry is not None and entry.is_best


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _note(board: Leaderboard) -> str:
    unasked = "".join(
        f" The baseline of {cell.id} holds none of the items asked here of {fmt.visible(task)}.".replace("\n", " ")
        for cell, task in board.unasked
    )
    macro = " Macro: the mean over relations." if any(column.is_macro for column in board.columns) else ""
    return (
        f"Shares of right answers with {fmt.percent(LEVEL).replace('.0', '')} intervals, cluster-robust where items come in "
        f"relations.{macro} Bold: better than every other row by paired tests at 5{fmt.NBSP}%; dense cells are references."
        f"{unasked}"
    )
