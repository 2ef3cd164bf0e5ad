"""The page from its view; the only importer of Jinja2.

Autoescape is on for every template and an undefined name is an error. A content security policy with the digests of the
page's own style and script lets nothing else run or load, should foreign text ever get past the escaping.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined  # noqa: TID251 -- this is the one place
from markupsafe import Markup

from harness.report.view import PageView

_HOME = "harness.report"


def render(page: PageView) -> bytes:
    """The page as one self-contained HTML file in UTF-8."""
    packages = dict.fromkeys([_HOME, *(section.package for section in page.sections)])
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = _own("page.css"), _own("page.js")
    html = environment.get_template("page.html").render(
        page=page, style=style, script=script, style_hash=_hash(style), script_hash=_hash(script)
    )
    return html.encode("utf-8")


def _own(name: str) -> Markup:
    """A file of our own that goes into the page as it is."""
    path = files(_HOME) / "templates" / name
    return Markup(path.read_text(encoding="utf-8"))  # noqa: S704 -- shipped with the project, holds nothing foreign


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
