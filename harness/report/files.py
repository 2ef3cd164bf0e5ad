"""The four files of a report, from a bundle, as bytes; and onto the disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.core.serial import write_atomic
from harness.report.bundle import RunBundle
from harness.report.junit import junit_xml
from harness.report.raw import raw_report
from harness.report.render import render
from harness.report.summary import summarize
from harness.report.view import view_page

REPORT_SCHEMA_VERSION = 1
"""Of report.json; raised when a key changes its meaning or goes away. New keys do not raise it."""


def report(bundle: RunBundle) -> dict[str, bytes]:
    """The files of a report by name: index.html, report.json, summary.md, junit.xml. Same bundle, same bytes."""
    page = view_page(bundle)
    plain = {
        "schema_version": REPORT_SCHEMA_VERSION,
        "page": asdict(page),
        "run": raw_report(bundle),
    }
    return {
        "index.html": render(page),
        "report.json": _json(plain),
        "summary.md": summarize(bundle, plain).encode("utf-8"),
        "junit.xml": junit_xml(bundle),
    }


def write_report(folder: Path, bundle: RunBundle) -> Path:
    """Write a report's files into a folder, each atomically; returns the path of its page."""
    for name, data in report(bundle).items():
        write_atomic(folder / name, data)
    return folder / "index.html"


def _json(plain: dict[str, Any]) -> bytes:
    """Reviewable JSON. A lone surrogate of a broken data set becomes its escape: the file stays valid UTF-8 and JSON."""
    text = json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="backslashreplace") + b"\n"
