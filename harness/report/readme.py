"""The result table of a README, between its markers, from a report.json."""

from __future__ import annotations

import json
from pathlib import Path

from harness.core.errors import FileFormatError
from harness.core.serial import read_bytes, write_atomic
from harness.report.summary import summary_table

BEGIN = "<!-- results:begin -->"
END = "<!-- results:end -->"


def replace_results(readme: str, table: str) -> str:
    """The README with ``table`` between its markers, everything else untouched.

    Raises FileFormatError without one pair of markers.

    >>> replace_results("a\\n<!-- results:begin -->\\nold\\n<!-- results:end -->\\nb\\n", "new")
    'a\\n<!-- results:begin -->\\nnew\\n<!-- results:end -->\\nb\\n'
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise FileFormatError(f"the README needs {BEGIN} and, after it, {END}, each once: put them where the results belong.")
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table.strip()}\n{END}{after}"


def update_readme(readme: Path, report_json: Path) -> bool:
    """Write a report's result table into a README; returns whether the file changed."""
    what = read_bytes(report_json)
    try:
        plain = json.loads(what)
    except ValueError as error:
        raise FileFormatError(f"{report_json} is not valid JSON ({error}): make the report again.") from error
    old = read_bytes(readme).decode("utf-8")
    new = replace_results(old, summary_table(plain))
    if new != old:
        write_atomic(readme, new.encode("utf-8"))
    return new != old
