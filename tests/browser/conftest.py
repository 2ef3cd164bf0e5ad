"""One headless Chromium for the session, or a skip that says why there is none; and the pages to look at."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from harness.report import write_index, write_report

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium():
    path = (
        os.environ.get("CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if path is None:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`, or set CHROMIUM to one")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def _load(stem: str) -> ModuleType:
    path = Path(__file__).parents[1] / "report" / f"{stem}.py"
    spec = importlib.util.spec_from_file_location(f"browser_{stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return _load("synthetic")


@pytest.fixture(scope="session")
def page_file(tmp_path_factory, synthetic) -> Path:
    """A report of the synthetic run, on disk."""
    return write_report(tmp_path_factory.mktemp("report"), synthetic.make_bundle(150))


@pytest.fixture(scope="session")
def families_file(tmp_path_factory, synthetic) -> Path:
    """A report over three families with generated answers and a history."""
    return write_report(tmp_path_factory.mktemp("families"), _load("families").make_families_bundle(synthetic))


@pytest.fixture(scope="session")
def many_file(tmp_path_factory, synthetic) -> Path:
    """A report with as many flips and tasks as a page takes."""
    bundle = _load("large").make_large_bundle(synthetic, n_cells=4, n_tasks=13, n_items=10_000)
    return write_report(tmp_path_factory.mktemp("many"), bundle)


@pytest.fixture(scope="session")
def index_file(tmp_path_factory, synthetic, families_file) -> Path:
    """An index over five runs, a hostile one and a broken one."""
    root = tmp_path_factory.mktemp("runs")
    for day in (1, 2, 3):
        at = {"started_at": f"2031-05-0{day}T07:00:00Z", "ended_at": f"2031-05-0{day}T07:01:00Z"}
        write_report(root / f"day-{day}", replace(synthetic.make_green_bundle(60), **at))
    write_report(root / "<b>day</b-4>", replace(synthetic.make_bundle(60), profile="<img src=x onerror=alert(2)>"))
    shutil.copytree(families_file.parent, root / "families")
    (root / "<script>alert(3)<script>").mkdir()
    (root / "<script>alert(3)<script>" / "report.json").write_text("{")
    return write_index(root, root / "index.html")


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where screenshots go: ``HARNESS_SCREENSHOTS`` where that is set, else pytest's temporary folder (``-s`` prints it)."""
    folder = Path(os.environ.get("HARNESS_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"screenshots: {folder}")
    return folder


@pytest.fixture
def open_page(chromium, page_file):
    """Opens a page; what it complains of and asks for is in ``page.complaints`` and ``page.requests``."""
    contexts = []

    def opened(width: int = 1280, scheme: str = "light", file: Path = page_file, fragment: str = "", **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(file.as_uri() + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()
