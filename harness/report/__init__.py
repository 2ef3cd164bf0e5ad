"""Records in, a report out: one HTML page, one JSON file, a Markdown summary and JUnit XML, pure and repeatable.

``report(bundle)`` returns the files by name. It reads no model and no clock: the same records give the same bytes. The page is
made of sections (see ``report.sections``); numbers become text in ``report.format`` and nowhere else. ``write_index`` draws
one page over the report.json of many runs.
"""

from __future__ import annotations

from harness.report.bundle import NotRun, Reference, RunBundle
from harness.report.files import report, write_report
from harness.report.hints import early_warnings
from harness.report.history import Accepted, History, read_history
from harness.report.index import write_index
from harness.report.leaderboard import make_leaderboard
from harness.report.leaderboard_text import render_leaderboard
from harness.report.readme import replace_results, update_readme
from harness.report.summary import summary_table

__all__ = [
    "Accepted",
    "History",
    "NotRun",
    "Reference",
    "RunBundle",
    "early_warnings",
    "make_leaderboard",
    "read_history",
    "render_leaderboard",
    "replace_results",
    "report",
    "summary_table",
    "update_readme",
    "write_index",
    "write_report",
]
