"""The pages under test: the README, CONTRIBUTING and everything in docs/."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

Blocks = Callable[..., list[str]]


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def page(request: pytest.FixtureRequest) -> Path:
    """Each page."""
    return request.param


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    """The fenced blocks of a page that are in a language."""

    def find(page: Path, language: str) -> list[str]:
        return [match["text"] for match in FENCE.finditer(page.read_text()) if match["language"] == language]

    return find


@pytest.fixture
def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())
