"""How pytest-xdist hands out tests: the cases of a cell go to one worker, because the first of them measures it."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

from harness.plugin.cases import CASE


class CellScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Scopes are cells; every other test is a scope of its own."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """What must stay together with a test: its cell up to the recovery's first hyphen, else nothing.

    >>> scope_of("suites/test_knowledge.py::test_knowledge[llama_4bit-rtn_none-facts_blank]")
    'llama_4bit-rtn_none'
    >>> scope_of("tests/test_x.py::test_y")
    'tests/test_x.py::test_y'
    """
    found: Any = CASE.search(nodeid)
    return str(found["cell"]) if found else nodeid
