"""The whole report against committed files.

A change of the page on purpose: ``UPDATE_GOLDENS=1 pytest tests/report/test_goldens.py``, then read the diff of tests/golden.
The page's style and script are left out (a change of colour is no change of content); the floats of report.json are compared
to nine digits, because their last bits belong to the machine's libm.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from harness.core.serial import write_atomic
from harness.report import report, write_index

GOLDEN = Path(__file__).parents[1] / "golden"


def normalize(name: str, data: bytes) -> str:
    text = data.decode("utf-8")
    if name == "sections.html":
        return "".join(re.findall(r'<section id="(?:sizes|history)".*?</section>\n', text, flags=re.DOTALL))
    if name == "index.html":
        text = re.sub(r"(<(style|script)>).*?(</\2>)", r"\1\3", text, flags=re.DOTALL)
        return re.sub(r"sha256-[A-Za-z0-9+/=]+", "sha256-…", text)
    if name == "report.json":
        return json.dumps(_rounded(json.loads(text)), indent=1, sort_keys=True) + "\n"
    return text


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(found) for key, found in value.items()}
    return [_rounded(found) for found in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def made(synthetic, families_files, tmp_path_factory):
    made = {
        "full": report(synthetic.make_bundle(24)),
        "green": report(synthetic.make_green_bundle(24)),
        "empty": report(synthetic.make_empty_bundle()),
        "families": {"sections.html": families_files["index.html"]},
    }
    root = tmp_path_factory.mktemp("runs")
    for run in ("full", "green", "empty"):
        for name, data in made[run].items():
            write_atomic(root / run / name, data)
    write_atomic(root / "broken" / "report.json", b"{")
    return made | {"runs": {"index.html": write_index(root, root / "index.html").read_bytes()}}


FILES = [
    *(("full", name) for name in ("index.html", "report.json", "summary.md", "junit.xml")),
    *(("green", name) for name in ("summary.md", "junit.xml")),
    *(("empty", name) for name in ("index.html", "report.json", "summary.md", "junit.xml")),
    ("families", "sections.html"),
    ("runs", "index.html"),
]


@pytest.mark.parametrize(("run", "name"), FILES)
def test_every_file_is_as_committed(made, run, name):
    text = normalize(name, made[run][name])
    path = GOLDEN / f"{run}.{name}"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    assert path.exists(), f"{path} is missing: UPDATE_GOLDENS=1 pytest {__file__}"
    expected = path.read_bytes().decode("utf-8")
    assert text == expected, f"{name} changed; if on purpose: UPDATE_GOLDENS=1 pytest {Path(__file__).name}, and read the diff"
