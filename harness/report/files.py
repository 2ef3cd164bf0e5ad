"""The four files of a report, from a bundle, as bytes; and onto the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from harness.core.serial import atomic_path
from harness.report.bundle import RunBundle
from harness.report.junit import junit_xml
from harness.report.lines import json_pieces
from harness.report.raw import raw_report
from harness.report.render import render
from harness.report.summary import summarize
from harness.report.view import view_page

REPORT_SCHEMA_VERSION = 1
"""Of report.json; raised when a key changes its meaning or goes away. New keys do not raise it."""


def report(bundle: RunBundle) -> dict[str, bytes]:
    """The files of a report by name: index.html, report.json, summary.md, junit.xml. Same bundle, same bytes."""
    return {name: b"".join(pieces) for name, pieces in _files(bundle)}


def write_report(folder: Path, bundle: RunBundle) -> Path:
    """Write a report's files into a folder, each atomically; returns the path of its page."""
    for name, pieces in _files(bundle):
        with atomic_path(folder / name) as neighbour, neighbour.open("wb") as stream:
            stream.writelines(pieces)
    return folder / "index.html"


def _files(bundle: RunBundle) -> Iterator[tuple[str, Iterable[bytes]]]:
    page = view_page(bundle)
    plain = {
        "schema_version": REPORT_SCHEMA_VERSION,
        "page": page,
        "run": raw_report(bundle),
    }
    yield "index.html", render(page)
    yield "report.json", _json(plain)
    yield "summary.md", [summarize(bundle, plain).encode("utf-8")]
    yield "junit.xml", [junit_xml(bundle)]


def _json(plain: dict[str, Any]) -> Iterator[bytes]:
    """Reviewable JSON. A lone surrogate of a broken data set becomes its escape: the file stays valid UTF-8 and JSON."""
    return (piece.encode("utf-8", errors="backslashreplace") for piece in chain(json_pieces(plain), "\n"))
