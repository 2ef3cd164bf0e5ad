"""Pages from their views; the only importer of Jinja2.

Autoescape is on for every template and an undefined name is an error. A content security policy with the digests of the
page's own style and script lets nothing else run or load, should foreign text ever get past the escaping.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined  # noqa: TID251 -- this is the one place
from markupsafe import Markup

from harness.report.view import PageView

if TYPE_CHECKING:
    from harness.report.index import IndexView

_HOME = "harness.report"
_STYLES = ("page.css", "tables.css", "drawings.css", "narrow.css")
_SCRIPTS = ("page.js", "tables.js")


def render(page: PageView) -> Iterator[bytes]:
    """A run's page as one self-contained HTML file in UTF-8, in pieces."""
    return _render("page.html", (section.package for section in page.sections), page=page)


def render_index(index: IndexView) -> bytes:
    """The index of runs as one self-contained HTML file in UTF-8."""
    return b"".join(_render("index.html", (), index=index))


_PIECES = 4096
"""Pieces of a page that are encoded at once: most are a few characters long."""


def _render(template: str, packages: Iterable[str], **views: Any) -> Iterator[bytes]:
    homes = dict.fromkeys([_HOME, *packages])
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in homes]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = _own(_STYLES), _own(_SCRIPTS)
    pieces = environment.get_template(template).generate(
        **views, style=style, script=script, style_hash=_hash(style), script_hash=_hash(script)
    )
    return (text.encode("utf-8") for text in iter(lambda: "".join(islice(pieces, _PIECES)), ""))


def _own(names: Iterable[str]) -> Markup:
    """Files of our own that go into the page as they are."""
    home = files(_HOME) / "templates"
    text = "".join((home / name).read_text(encoding="utf-8") for name in names)
    return Markup(text)  # noqa: S704 -- shipped with the project, holds nothing foreign


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
