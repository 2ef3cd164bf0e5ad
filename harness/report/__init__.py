"""Records in, a report out: one HTML page, one JSON file, a Markdown summary and JUnit XML, pure and repeatable.

``report(bundle)`` returns the files by name. It reads no model and no clock: the same records give the same bytes. The page is
made of sections (see ``report.sections``); numbers become text in ``report.format`` and nowhere else.
"""

from __future__ import annotations

from harness.report.bundle import NotRun, Reference, RunBundle
from harness.report.files import report, write_report
from harness.report.readme import replace_results, update_readme
from harness.report.summary import summary_table

__all__ = [
    "NotRun",
    "Reference",
    "RunBundle",
    "replace_results",
    "report",
    "summary_table",
    "update_readme",
    "write_report",
]
