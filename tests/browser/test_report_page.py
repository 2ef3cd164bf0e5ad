"""The page in a real browser: quiet, closed, operable by keyboard, dark and light, narrow and on paper.

Screenshots go to pytest's temporary folder (its path is printed with ``-s``), or to ``HARNESS_SCREENSHOTS`` where that is set.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    folder = Path(os.environ.get("HARNESS_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"screenshots: {folder}")
    return folder


@pytest.fixture
def open_page(chromium, page_file):
    contexts = []

    def opened(width: int = 1280, scheme: str = "light", **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_without_a_complaint_or_a_request(open_page, page_file, shots, width, scheme):
    page = open_page(width, scheme)
    page.screenshot(path=shots / f"{scheme}-{width}.png")
    assert page.complaints == []
    assert page.requests == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "only tables may scroll sideways, in their boxes"


def test_the_background_follows_the_system_and_the_button(open_page):
    page = open_page(scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    names = []
    for _ in range(3):
        page.get_by_role("button", name="Theme").click()
        names.append((page.locator("#theme-name").inner_text(), page.evaluate(ground) == dark))
    assert names == [("light", False), ("dark", True), ("system", True)]


def test_the_choice_of_theme_survives_a_reload(open_page):
    page = open_page(scheme="light")
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.reload()
    assert page.locator("#theme-name").inner_text() == "dark"


def test_a_keyboard_reaches_the_verdict_first_and_opens_flips(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    summary = page.locator("details.flips > summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details.flips').open")


def test_a_link_to_flips_opens_them(open_page):
    page = open_page()
    link = page.locator("a[href='#flips--llama_3bit-rtn_none--facts--baseline']").first
    link.click()
    assert page.evaluate("document.getElementById('flips--llama_3bit-rtn_none--facts--baseline').open")


def test_open_all_and_close_all(open_page):
    page = open_page()
    page.get_by_role("button", name="Open all").click()
    assert page.locator("details.flips:not([open])").count() == 0
    page.get_by_role("button", name="Close all").click()
    assert page.locator("details.flips[open]").count() == 0


def test_without_scripts_everything_is_there_but_the_buttons(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("button:visible").count() == 0
    assert page.locator("details.flips").count() > 5


def test_paper_gets_the_flips_and_no_buttons(open_page, shots):
    page = open_page()
    page.pdf(path=shots / "print.pdf", prefer_css_page_size=True)
    assert (shots / "print.pdf").read_bytes().startswith(b"%PDF-")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.flips:not([open])").count() == 0
    assert page.locator("button:visible").count() == 0
    assert page.locator("nav:visible").count() == 0


CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return Array.from(canvas.getImageData(0, 0, 1, 1).data);
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const light = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {};
  document.querySelectorAll('main *, header *, footer *').forEach((e) => {
    const own = Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('svg') || !e.checkVisibility()) return;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = e.tagName + '.' + e.className;
    if (ratio < 4.5 && !(found[name] < ratio)) found[name] = ratio;
  });
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(open_page, scheme):
    page = open_page(scheme=scheme)
    page.get_by_role("button", name="Open all").click()
    assert page.evaluate(CONTRASTS) == {}, "WCAG AA asks for 4.5"


def test_a_script_that_got_past_the_escaping_would_not_run(open_page, page_file, tmp_path):
    text = page_file.read_text(encoding="utf-8")
    attack = (
        "<script>document.title = 'pwned'</script><img src='https://evil.invalid/x.png' onerror=\"document.title = 'pwned'\">"
    )
    broken = tmp_path / "index.html"
    broken.write_text(text.replace("</main>", attack + "</main>"), encoding="utf-8")
    page = open_page()
    failures = []
    page.on("requestfailed", lambda request: failures.append((request.url, request.failure)))
    page.goto(broken.as_uri())
    page.wait_for_load_state("networkidle")
    assert page.title().startswith("REGRESSED")
    assert failures == [("https://evil.invalid/x.png", "csp")], "the browser itself blocks it, before the network"
