"""The builder of cells is that of the gate's tests; without packages it is loaded by its path."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location("gate_cells", Path(__file__).parents[1] / "gate" / "conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_CELLS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_CELLS)

build = _CELLS.build
