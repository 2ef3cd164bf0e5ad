"""A regression gate for compressed language models: which knowledge was kept, which was lost, did anything regress?

Three verbs: measure -> judge -> report. `harness --help` and `pytest --help` (group "knowledge retention gate") are the doors.
"""

from harness.core.errors import HarnessError
from harness.core.records import Cell, CellRun, TaskRun
from harness.core.verdicts import CellVerdict, Status, Verdict

__all__ = ["Cell", "CellRun", "CellVerdict", "HarnessError", "Status", "TaskRun", "Verdict"]
