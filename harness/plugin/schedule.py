"""How pytest-xdist hands out tests: the cases of a cell go to one worker, because the first of them measures it; so do the
recovered cells of a compressed one, because they are judged beside it."""

from __future__ import annotations

import re
from typing import Any

from xdist.scheduler import LoadScopeScheduling

_CASE = re.compile(r"\[(?P<cells>[a-z0-9.\-]+_[a-z0-9.\-]+)_[a-z0-9.][^\[]*-[^\[]*\]$")


class CellScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Scopes are compressed models; every other test is a scope of its own."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """What must stay together with a test: all cells of its model and compression, else nothing.

    >>> scope_of("suites/test_knowledge.py::test_knowledge[llama_4bit-rtn_none-facts_blank]")
    'llama_4bit-rtn'
    >>> scope_of("tests/test_x.py::test_y")
    'tests/test_x.py::test_y'
    """
    found: Any = _CASE.search(nodeid)
    return str(found["cells"]) if found else nodeid
