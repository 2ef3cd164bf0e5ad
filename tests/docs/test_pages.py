"""What the pages name exists: links, commands, options, make targets, settings, and TOML that can be read."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cli import _parser
from harness.core.serial import read_toml
from harness.execution.matrix import MatrixFile, read_matrix
from harness.plugin.settings import add_options

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[2]
POLICY = REPOSITORY / "suites" / "policy.toml"

LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
PLACEHOLDER = re.compile(r"\s…|\s\.\.\.")

Blocks = Callable[..., list[str]]


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = (match["text"].replace("`", "").lower() for match in HEADING.finditer(page.read_text()))
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in headings}


def test_every_relative_link_leads_somewhere(page: Path, prose: str) -> None:
    for target in (match["target"] for match in LINK.finditer(prose)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors_of(there), f"{target}: there is no such heading"


def commands(page: Path, prose: str, blocks: Blocks) -> Iterator[str]:
    """Every command line of a page: the lines of its shell blocks (continued ones joined), and code in its text."""
    for language in ("", "sh", "console"):
        for text in blocks(page, language):
            yield from (line.strip().removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines())
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose))


def harness_commands(page: Path, prose: str, blocks: Blocks) -> list[list[str]]:
    found = []
    for line in commands(page, prose, blocks):
        words = shlex.split(PLACEHOLDER.sub(" TEXT", line), comments=True) if line.startswith("harness ") else []
        if len(words) > 1 and not words[1].endswith(":"):  # `harness: …` is a message, not a command
            found.append(words[1:])
    return found


def test_every_harness_command_is_one_that_the_parser_takes(page: Path, prose: str, blocks: Blocks) -> None:
    for words in harness_commands(page, prose, blocks):
        assert _parses(words) or _is_a_name(words), f"harness {shlex.join(words)} is not a command"


def _parses(words: list[str]) -> bool:
    try:
        _parser().parse_args(words)
    except SystemExit as ended:
        return ended.code == 0  # --help
    return True


def _is_a_name(words: list[str]) -> bool:
    """Whether the words only name a command, as a text does: `harness baseline`."""
    parser = _parser()
    for word in words:
        choices = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), {})
        if word not in choices:
            return False
        parser = choices[word]
    return True


class Options:
    """Hears which options the plugin declares."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def getgroup(self, name: str, description: str = "") -> Options:
        return self

    def addoption(self, *names: str, **settings: Any) -> None:
        self.names.update(names)


def test_every_option_of_the_plugin_that_a_page_names_exists(page: Path) -> None:
    assert_options_exist(page)


@pytest.mark.parametrize("workflow", sorted((REPOSITORY / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_every_option_of_the_plugin_that_a_workflow_gives_exists(workflow: Path) -> None:
    assert_options_exist(workflow)


def assert_options_exist(page: Path) -> None:
    options = Options()
    add_options(options)  # type: ignore[arg-type]
    named = set(re.findall(r"--harness-[a-z-]+", page.read_text()))
    assert named <= options.names, f"no such option: {sorted(named - options.names)}"


def test_every_make_target_that_a_page_names_exists(page: Path, prose: str, blocks: Blocks) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in commands(page, prose, blocks) if re.match(r"make [a-z]", line)}
    assert named <= targets, f"no such target: {sorted(named - targets)}"


def test_every_toml_block_reads(page: Path, blocks: Blocks) -> None:
    for text in blocks(page, "toml"):
        tomllib.loads(text)


def test_the_matrix_of_the_five_minute_page_declares_one_cell(blocks: Blocks, tmp_path: Path) -> None:
    """The page's first block is a whole matrix, as it stands."""
    text = blocks(REPOSITORY / "docs" / "gate-your-checkpoint.md", "toml")[0]
    path = tmp_path / "matrix.toml"
    path.write_text(text)
    read_toml(path, MatrixFile)
    assert list(read_matrix(path, "mine").cells) == ["chat_none_none"]


# ------------------------------------------------------------------------------------------------ the policy's page


def settings_of(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from settings_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize(("key", "value"), list(settings_of(tomllib.loads(POLICY.read_text()))))
def test_the_policy_page_explains_every_setting_with_its_shipped_value(key: str, value: Any) -> None:
    page = (REPOSITORY / "docs" / "policy.md").read_text()
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    rows = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1, f"docs/policy.md has {len(rows)} rows for `{key}`"
    assert rows[0].split("|")[2].strip() == shown, f"docs/policy.md does not show that {key} is {shown}"
