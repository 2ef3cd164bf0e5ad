"""A nightly run: the page stays light, and says what it leaves out."""

from __future__ import annotations

import json

import pytest

from harness.report import report

pytestmark = pytest.mark.slow


def test_a_run_of_24_cells_and_13_tasks_fits_a_page_of_15_megabytes(synthetic, large):
    files = report(large.make_large_bundle(synthetic))
    page = files["index.html"].decode("utf-8")
    assert len(files["index.html"]) < 15_000_000
    assert page.count('<tr class="scores">') <= 600
    assert "5,000 of " in page
    assert "report.json has all" in page
    assert len(files["summary.md"]) < 200_000, "GitHub takes no more than a megabyte"
    flips = [
        flip
        for cell in json.loads(files["report.json"])["run"]["cells"]
        for task in cell["flips"].values()
        for found in task.values()
        for flip in found
    ]
    assert len(flips) > 50_000
    assert f"5,000 of {len(flips):,} flips" in page
