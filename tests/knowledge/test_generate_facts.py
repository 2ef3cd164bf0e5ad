"""The shipped facts are what the committed script makes, to the byte."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from harness.knowledge.factbook import FOLDER

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_facts.py"


def test_generating_the_facts_again_gives_the_same_bytes(tmp_path):
    pins = dict(re.findall(r'^#     "([a-z]+)==([\d.]+)",$', SCRIPT.read_text(encoding="utf-8"), re.MULTILINE))
    assert pins, "the script's header pins no packages"
    for name, pin in pins.items():
        try:
            if version(name) != pin:
                pytest.skip(f"the facts are made with {name} {pin}, installed is {version(name)}: pip install -e '.[dev]'")
        except PackageNotFoundError:
            pytest.skip(f"the facts are made with {name} {pin}, which is not installed: pip install -e '.[dev]'")
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, env={"PYTHONHASHSEED": "4"})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in FOLDER.iterdir())
    for path in FOLDER.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
