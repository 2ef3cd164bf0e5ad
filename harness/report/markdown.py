"""Markdown tables and foreign text in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.report.format import visible

_MEANINGFUL = re.compile(
    r"""[\\`*\[\]<|~&@$]          # markup wherever it stands
      | (?<![^\W_])_ | _(?![^\W_])  # an underscore at a word's edge; inside a word it is only itself
      | (?<=:)(?=//) | (?<=www)\.    # what would become a link by itself
      | ^[-+=>\#]                   # what starts a list, a quote or a heading
    """,
    re.VERBOSE,
)


def escape(text: str, longest: int | None = None) -> str:
    """Foreign text as Markdown that shows exactly it: no markup, no HTML, no link, no mention, on one line.

    >>> print(escape("a|b <b>*x* snake_case _y_ https://evil.example"))
    a\\|b \\<b>\\*x\\* snake_case \\_y\\_ https:\\//evil.example
    """
    return _MEANINGFUL.sub(r"\\\g<0>", visible(text, longest).replace("\t", " ").replace("\n", " ⏎ "))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A Markdown table of cells that are already Markdown; ``right`` says which columns align right.

    >>> print(table(["cell", "loss"], [["a", "+1"]], [False, True]))
    | cell | loss |
    |---|---:|
    | a | +1 |
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under {len(header)} headings")
    lines = [header, ["---:" if r else "---" for r in right], *rows]
    made = ["| " + " | ".join(line) + " |" for line in lines]
    made[1] = "|" + "|".join(lines[1]) + "|"
    return "\n".join(made)
