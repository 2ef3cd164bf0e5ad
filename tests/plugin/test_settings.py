"""What every pytest run pays for the plugin, and the words of its options."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

from harness.baseline import WriteMode
from harness.gate import Mode
from harness.plugin.settings import POLICIES, WRITE_MODES


def test_the_options_offer_what_the_gate_and_the_baselines_know():
    assert get_args(Mode) == POLICIES
    assert get_args(WriteMode) == WRITE_MODES


def test_a_pytest_run_that_judges_nothing_loads_nothing_for_it():
    heavy = ("torch", "scipy", "pyarrow", "jinja2", "pandas")
    code = f"import sys, harness.plugin, harness.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
