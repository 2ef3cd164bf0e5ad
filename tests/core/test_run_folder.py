"""A run on disk: what an earlier run left goes, what others keep there stays."""

from __future__ import annotations

from pathlib import Path

from harness.core.records import Cell, CellFailure
from harness.core.run_folder import keep_only, read_run, write_cell


def test_what_an_earlier_run_left_goes_and_nothing_else(tmp_path: Path) -> None:
    """A report folder may be one's own: `--harness-report-dir=.` beside a folder that is called records, too."""
    old, new = Cell("llama", "none", "none"), Cell("llama", "4bit-rtn", "none")
    for cell in (old, new):
        write_cell(tmp_path, CellFailure(cell, "embedded", "not measured"))
    theirs = [tmp_path / "records" / "2024" / "sales.csv", tmp_path / "records" / "my_own_data" / "cell.csv"]
    for path in theirs:
        path.parent.mkdir()
        path.write_text("precious")
    keep_only(tmp_path, {new.id})
    assert all(path.read_text() == "precious" for path in theirs)
    assert not (tmp_path / "records" / old.id).exists()
    for path in theirs:
        path.unlink()
        path.parent.rmdir()
    assert [run.cell for run in read_run(tmp_path) if isinstance(run, CellFailure)] == [new]
