"""The page in a real browser: quiet, closed, operable by keyboard, in both themes, with and without scripts."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

MANY = pytest.param("many_file", marks=pytest.mark.slow)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_without_a_complaint_or_a_request(open_page, page_file, shots, width, scheme):
    page = open_page(width, scheme)
    page.screenshot(path=shots / f"{scheme}-{width}.png")
    assert page.complaints == []
    assert page.requests == [page_file.as_uri()]


@pytest.mark.parametrize("name", ["families_file", MANY, "index_file"])
def test_no_other_page_complains_or_asks_for_anything(open_page, request, name):
    file = request.getfixturevalue(name)
    page = open_page(file=file)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.wait_for_timeout(100)
    assert page.complaints == []
    assert page.requests == [file.as_uri()]
    assert not page.title().startswith("pwned")


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


def test_a_keyboard_reaches_the_verdict_first_and_opens_parts(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    summary = page.locator("details.relations:not([open]) > summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")


@pytest.mark.parametrize(
    "section", ["matrix", "sizes", "cells", "flips", "relations", "history", "provenance", "not_measured"]
)
def test_the_contents_lead_to_their_sections_although_far_ones_are_drawn_late(open_page, section):
    page = open_page()
    page.locator(f"nav a[href='#{section}']").click()
    page.wait_for_timeout(150)
    top = page.evaluate(f"document.getElementById('{section}-title').getBoundingClientRect().top")
    bottom = page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 2")
    assert 0 <= top < 130 or bottom


def test_open_all_and_close_all(open_page):
    page = open_page()
    section = page.locator("#relations")
    section.get_by_role("button", name="Open all").click()
    assert section.locator("details.relations[open]").count() > 0
    assert section.locator("details.relations:not([open])").count() == 0
    section.get_by_role("button", name="Close all").click()
    assert section.locator("details.relations[open]").count() == 0


def test_a_link_to_folded_relations_opens_them(open_page):
    page = open_page(fragment="#relations--llama_none_none--facts")
    assert page.evaluate("document.getElementById('relations--llama_none_none--facts').open")


@pytest.mark.parametrize("name", ["page_file", "families_file", "index_file"])
def test_without_scripts_every_row_is_there_and_no_button(open_page, request, name):
    file = request.getfixturevalue(name)
    with_script = open_page(file=file)
    n = with_script.evaluate("document.querySelector('[role=status]').textContent.match(/[0-9,]+(?= (cells|runs))/)[0]")
    page = open_page(file=file, java_script_enabled=False)
    assert page.locator("button:visible, input:visible, select:visible, [role=search]:visible").count() == 0
    assert page.locator("table[data-view]").first.locator("tbody > tr").count() == int(n)


def test_without_scripts_a_number_of_flips_leads_to_the_first_of_them(open_page):
    page = open_page(java_script_enabled=False)
    page.locator("a[href='#flips--llama_3bit-rtn_none--facts--baseline--gained']").first.click()
    target = page.locator("[id='flips--llama_3bit-rtn_none--facts--baseline--gained']")
    assert target.is_visible()
    assert target.locator(".side").inner_text() == "gained"
    box = target.bounding_box()
    assert 0 <= box["y"] < 900


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
