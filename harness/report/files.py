"""The four files of a report, from a bundle, as bytes; and onto the disk."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from harness.core.serial import atomic_path
from harness.report.bundle import RunBundle
from harness.report.junit import junit_xml
from harness.report.lines import write_json
from harness.report.raw import raw_report
from harness.report.render import render
from harness.report.summary import summarize
from harness.report.view import view_page

REPORT_SCHEMA_VERSION = 1
"""Of report.json; raised when a key changes its meaning or goes away. New keys do not raise it."""


Writer = Callable[[BinaryIO], object]
"""Writes one file."""


_PIECES = 1024
"""Pieces of JSON that are encoded at once: most are a few characters long."""


def report(bundle: RunBundle) -> dict[str, bytes]:
    """The files of a report by name: index.html, report.json, summary.md, junit.xml. Same bundle, same bytes."""
    return {name: _bytes(write) for name, write in _writers(bundle).items()}


def write_report(folder: Path, bundle: RunBundle) -> Path:
    """Write a report's files into a folder, each atomically; returns the path of its page."""
    for name, write in _writers(bundle).items():
        with atomic_path(folder / name) as neighbour, neighbour.open("wb") as stream:
            write(stream)
    return folder / "index.html"


def _writers(bundle: RunBundle) -> dict[str, Writer]:
    page = view_page(bundle)
    plain = {
        "schema_version": REPORT_SCHEMA_VERSION,
        "page": page,
        "run": raw_report(bundle),
    }
    return {
        "index.html": lambda stream: stream.writelines(render(page)),
        "report.json": lambda stream: _write_json(plain, stream),
        "summary.md": lambda stream: stream.write(summarize(bundle, plain).encode("utf-8")),
        "junit.xml": lambda stream: stream.write(junit_xml(bundle)),
    }


def _bytes(write: Writer) -> bytes:
    stream = BytesIO()
    write(stream)
    return stream.getvalue()


def _write_json(plain: dict[str, Any], stream: BinaryIO) -> None:
    """Reviewable JSON. A lone surrogate of a broken data set becomes its escape: the file stays valid UTF-8 and JSON."""

    pieces: list[str] = []

    def write(text: str) -> None:
        pieces.append(text)
        if len(pieces) >= _PIECES:
            flush()

    def flush() -> None:
        stream.write("".join(pieces).encode("utf-8", errors="backslashreplace"))
        pieces.clear()

    write_json(plain, write)
    write("\n")
    flush()
