"""The four files of a report, from a bundle, as bytes; and onto the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
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
        "page": page,
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


_DEPTH = 7
"""Levels of report.json that are broken into lines; what lies deeper, such as one flip, stands on one line."""


def _json(plain: dict[str, Any]) -> bytes:
    """Reviewable JSON. A lone surrogate of a broken data set becomes its escape: the file stays valid UTF-8 and JSON."""
    return "".join([*_lines(plain, 0), "\n"]).encode("utf-8", errors="backslashreplace")


def _lines(value: Any, depth: int) -> Iterator[str]:
    value = _fields(value) if is_dataclass(value) else value
    if depth >= _DEPTH or not value or not isinstance(value, (dict, list, tuple)):
        yield json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_fields)
        return
    named = isinstance(value, dict)
    entries = (
        [(f"{json.dumps(key, ensure_ascii=False)}: ", value[key]) for key in sorted(value)]
        if named
        else [("", entry) for entry in value]
    )
    indent = "\n" + " " * (depth + 1)
    yield "{" if named else "["
    for i, (name, entry) in enumerate(entries):
        yield f"{',' if i else ''}{indent}{name}"
        yield from _lines(entry, depth + 1)
    yield "\n" + " " * depth + ("}" if named else "]")


def _fields(view: Any) -> dict[str, Any]:
    """A view's fields by name, one level deep."""
    return {field.name: getattr(view, field.name) for field in fields(view)}
