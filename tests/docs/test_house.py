"""Every module can be found by someone who reads the page about the house."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = {
    cells[1].strip().strip("`"): set(re.findall(r"`([a-z0-9_]+)/?`", cells[3]))
    for line in (ROOT / "docs" / "house.md").read_text(encoding="utf-8").splitlines()
    if len(cells := line.split("|")) == 5 and cells[1].strip() not in ("room", "---")
}
ROOMS = sorted(path.parent.name for path in (ROOT / "harness").glob("*/__init__.py"))


def modules(room: str) -> set[str]:
    return {path.stem for path in (ROOT / "harness" / room).glob("*.py") if path.stem != "__init__"}


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "plugin"])
def test_every_module_of_a_room_is_named_in_its_row_and_nothing_else_is(room: str) -> None:
    assert ROWS[room] - {"sections"} == modules(room)


def test_so_are_the_doors() -> None:
    assert ROWS["top"] - {"plugin"} == modules("plugin") | modules("")
