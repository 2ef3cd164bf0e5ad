"""The gate: policy (margins, error rates, families of tests) and judge (a measured cell x its baseline x policy -> verdicts).

Pure: records in, verdicts out; no model, no clock, no files but the policy's own. ``judge`` is the one verb;
``undecided`` tells a measuring run which tasks it still has to feed.
"""

from harness.gate.dense import Dense
from harness.gate.feasibility import Feasibility, cell_feasibility, feasibility
from harness.gate.judge import exit_code, judge, undecided
from harness.gate.policy import Family, Mode, Policy, read_policy
from harness.gate.sibling import Sibling, sibling_left_out

__all__ = [
    "Dense",
    "Family",
    "Feasibility",
    "Mode",
    "Policy",
    "Sibling",
    "cell_feasibility",
    "exit_code",
    "feasibility",
    "judge",
    "read_policy",
    "sibling_left_out",
    "undecided",
]
