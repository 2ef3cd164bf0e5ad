"""Tables that sort and filter: by mouse and keyboard, said to who can't see, kept in the address, stable."""

from __future__ import annotations

from itertools import groupby
from urllib.parse import quote

import pytest

pytestmark = pytest.mark.browser

ROWS = """(view) => Array.from(document.querySelectorAll(`table[data-view='${view}'] > tbody > tr:not(.scores)`),
  (row) => Array.from(row.cells, (cell) => cell.textContent.replace(/\\s+/g, ' ').trim()))"""


def rows(page, view="flips"):
    return page.evaluate(ROWS, view)


def said(page, view="flips"):
    return page.locator(f"[data-status='{view}']").text_content()


def fragment(page):
    return page.evaluate("location.hash")


def control(page, name, view="flips"):
    return page.locator(f"[data-for='{view}'] [data-filter='{name}']")


def choose(page, name, value, view="flips"):
    control(page, name, view).select_option(value=value)
    page.wait_for_timeout(30)


def header(page, name, view="flips"):
    return page.locator(f"table[data-view='{view}'] > thead th", has_text=name)


def show_all(page):
    page.locator("[data-more='flips'] [data-all]").click()


def number(text):
    return float(text.replace("\u2212", "-").replace(",", ""))


def test_headings_are_real_buttons_that_turn_three_ways(open_page):
    page = open_page()
    show_all(page)
    before = rows(page)
    head = header(page, "Lead now")
    button = head.get_by_role("button")
    assert head.get_attribute("aria-sort") is None
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    show_all(page)
    up = [number(row[7]) for row in rows(page)]
    assert up == sorted(up)
    assert said(page) == f"All {len(before)} flips, by lead now, lowest first"
    button.click()
    show_all(page)
    assert head.get_attribute("aria-sort") == "descending"
    down = [number(row[7]) for row in rows(page)]
    assert down == sorted(down, reverse=True)
    button.click()
    show_all(page)
    assert head.get_attribute("aria-sort") is None
    assert rows(page) == before
    assert page.locator("table[data-view='flips'] [aria-sort]").count() == 0


@pytest.mark.parametrize("turns", [1, 2])
def test_rows_that_are_equal_keep_the_order_of_the_page_in_both_directions(open_page, turns):
    page = open_page()
    show_all(page)
    before = [tuple(row) for row in rows(page)]
    for _ in range(turns):
        header(page, "Flip").get_by_role("button").click()
    show_all(page)
    after = [tuple(row) for row in rows(page)]
    assert sorted(after) == sorted(before)
    sides = [key for key, _ in groupby(row[2] for row in after)]
    assert sides == (["gained", "lost"] if turns == 1 else ["lost", "gained"])
    for side in sides:
        assert [row for row in after if row[2] == side] == [row for row in before if row[2] == side]


def test_only_one_column_sorts_at_a_time(open_page):
    page = open_page()
    header(page, "Flip").get_by_role("button").click()
    header(page, "Asked").get_by_role("button").click()
    assert page.locator("table[data-view='flips'] [aria-sort]").count() == 1
    assert header(page, "Asked").get_attribute("aria-sort") == "ascending"


def test_undefined_values_stand_last_whichever_way_a_column_sorts(open_page):
    page = open_page()
    for _ in range(2):
        header(page, "Kept of dense", "sizes").get_by_role("button").click()
        kept = [row[8].split(" ")[0] for row in rows(page, "sizes")]
        assert set(kept[-2:]) == {"itself", "unknown"}
        numbers = [float(text) for text in kept[:-2]]
        assert numbers in (sorted(numbers), sorted(numbers, reverse=True))


def test_sizes_sort_by_bytes_and_not_by_their_text(open_page):
    page = open_page()
    header(page, "Size", "sizes").first.get_by_role("button").click()
    sizes = [number(row[3].split(" ")[0]) for row in rows(page, "sizes")]
    assert sizes == sorted(sizes)


def test_the_matrix_sorts_by_loss_worst_first(open_page):
    page = open_page()
    header(page, "all tasks pooled", "matrix").get_by_role("button").click()
    assert rows(page, "matrix")[0][0].startswith("llama · 3bit-rtn")
    assert said(page, "matrix") == "All 8 cells, by all tasks pooled, highest first"


def test_each_filter_keeps_exactly_its_rows_and_says_how_many(open_page):
    page = open_page()
    show_all(page)
    every = rows(page)
    near = page.evaluate("document.querySelectorAll('.items .near').length")
    for name, value, matches in (
        ("cell", "llama_3bit-rtn_none", lambda row: row[1].startswith("llama_3bit-rtn_none ")),
        ("task", "facts-blank", lambda row: " facts-blank, against" in row[1]),
        ("against", "dense model", lambda row: row[1].endswith("against dense model")),
        ("direction", "gained", lambda row: row[2] == "gained"),
        ("relation", "capital", lambda row: "capital · " in row[0]),
    ):
        choose(page, name, value)
        expected = [row for row in every if matches(row)]
        assert 0 < len(expected) < len(every)
        assert rows(page) == expected[:100]
        assert f"{len(expected)} that match, of {len(every)} flips" in said(page)
        choose(page, name, "")
    control(page, "near").check()
    page.wait_for_timeout(30)
    assert said(page) == f"{near} that match, of {len(every)} flips"


def test_filters_add_up_and_reset_takes_all_of_them_back(open_page):
    page = open_page()
    before = said(page)
    choose(page, "cell", "llama_3bit-rtn_none")
    choose(page, "direction", "lost")
    choose(page, "against", "baseline")
    counted = page.locator("a[href='#flips--llama_3bit-rtn_none--facts--baseline--lost']").last.text_content()
    choose(page, "task", "facts")
    assert said(page).startswith(counted.split(" ")[0])
    page.locator("[data-for='flips'] [data-reset]").click()
    assert said(page) == before
    assert fragment(page) == "#flips"


def test_lists_offer_only_what_the_other_filters_leave_with_its_count(open_page):
    page = open_page()
    choose(page, "cell", "llama_8bit-rtn_none")
    texts = control(page, "task").locator("option").all_text_contents()
    assert texts[0] == "all"
    assert not any(text.startswith("numbers") for text in texts)
    total = int(said(page).split(" ")[0])
    assert sum(int(text.split("(")[1].rstrip(")")) for text in texts[1:]) == total


def test_searching_takes_words_in_any_order_case_or_accent(open_page):
    page = open_page()
    show_all(page)
    every = rows(page)
    control(page, "q").fill("IS castra  the")
    page.wait_for_timeout(150)
    expected = [row for row in every if all(word in " ".join(row).lower() for word in ("is", "castra", "the"))]
    assert 0 < len(expected) < len(every)
    assert rows(page) == expected
    control(page, "q").fill("Gálena")
    page.wait_for_timeout(150)
    assert rows(page)
    assert all("Galena" in " ".join(row) for row in rows(page))
    control(page, "q").fill("nothing like this")
    page.wait_for_timeout(150)
    assert rows(page) == []
    assert said(page) == f"None of {len(every)} flips matches."


def test_everything_works_from_the_keyboard_alone(open_page):
    page = open_page()
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('[data-for=flips] [data-filter=q]')"):
            break
    ring = page.evaluate(
        "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth"
    )
    assert ring == "solid2px"
    page.keyboard.type("castra")
    page.wait_for_timeout(150)
    n_castra = int(said(page).split(" ")[0])
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(50)
    assert "cell=llama_4bit-rtn_none" in fragment(page)
    assert 0 < int(said(page).split(" ")[0]) < n_castra
    page.keyboard.press("ArrowUp")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.startsWith('Lead before')"):
            break
    page.keyboard.press("Enter")
    assert header(page, "Lead before").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert header(page, "Lead before").get_attribute("aria-sort") == "ascending"
    assert page.evaluate("document.activeElement.textContent.startsWith('Lead before')"), "the focus stays where it was"
    leads = [number(row[6]) for row in rows(page)]
    assert leads == sorted(leads)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('details.options').open")


def test_what_is_shown_is_said_politely(open_page):
    page = open_page()
    for name in ("matrix", "sizes", "flips"):
        status = page.locator(f"[data-status='{name}']")
        assert status.get_attribute("role") == "status"
        assert status.is_visible()
    assert page.get_by_role("search").count() == 2
    assert page.evaluate("Array.from(document.querySelectorAll('[data-filter]')).every((c) => c.labels.length === 1)")


def test_a_view_can_be_linked_and_comes_back_the_same(open_page):
    page = open_page()
    choose(page, "cell", "llama_3bit-rtn_none")
    choose(page, "direction", "lost")
    control(page, "near").check()
    header(page, "Lead now").get_by_role("button").click()
    choose(page, "verdict", "REGRESSED", "matrix")
    page.wait_for_timeout(50)
    address = fragment(page)
    assert address == "#matrix?verdict=REGRESSED;flips?cell=llama_3bit-rtn_none&direction=lost&near=1&sort=lead-now"
    again = open_page(fragment=address)
    for view in ("flips", "matrix"):
        assert rows(again, view) == rows(page, view)
        assert said(again, view) == said(page, view)
    assert header(again, "Lead now").get_attribute("aria-sort") == "ascending"
    assert again.evaluate("history.length") == page.evaluate("history.length"), "filtering fills no history"


def test_the_browsers_back_button_takes_a_followed_link_back(open_page):
    page = open_page()
    everything = said(page)
    page.locator("a[href='#flips--llama_3bit-rtn_none--facts--baseline--lost']").last.click()
    page.wait_for_timeout(100)
    assert said(page) != everything
    page.evaluate("location.hash = '#flips?direction=gained'")
    page.wait_for_timeout(100)
    n_gained = said(page)
    page.go_back()
    page.wait_for_timeout(100)
    assert said(page) != n_gained
    assert fragment(page) == "#flips?cell=llama_3bit-rtn_none&task=facts&against=baseline&direction=lost"


def test_a_number_of_flips_leads_to_exactly_these(open_page):
    page = open_page()
    link = page.locator("#cells a[href='#flips--llama_3bit-rtn_none--facts--baseline--lost']")
    n = int(link.text_content())
    link.click()
    page.wait_for_timeout(100)
    assert len(rows(page)) == n
    assert all(row[1] == "llama_3bit-rtn_none facts, against baseline" and row[2] == "lost" for row in rows(page))
    top = page.evaluate("document.querySelector('[data-for=flips]').getBoundingClientRect().top")
    assert 0 <= top < 300
    assert page.evaluate("document.activeElement.matches('.scroll.tall')")


@pytest.mark.parametrize(
    "address",
    [
        "#%",
        "#%zz?%",
        "#flips?",
        "#flips?sort=nonsense&cell=nobody&task=%E0%A4%A",
        "#flips?q=" + quote("<img src=x onerror=alert(1)>"),
        "#nothing?a=b;;;?=&&&;flips",
        "#flips?near=1;flips?near=;matrix?sort=-cell",
        "#" + "a" * 5000,
        "#__proto__?constructor=1",
    ],
)
def test_no_address_can_break_the_page(open_page, address):
    page = open_page(fragment=address)
    page.wait_for_timeout(50)
    assert page.complaints == []
    assert said(page)
    page.locator("[data-for='flips'] [data-reset]").click()
    assert said(page).startswith("The first 100 of ")


def test_rows_come_a_hundred_at_a_time_and_the_focus_is_not_lost(open_page):
    page = open_page()
    total = int(said(page).split(" ")[-2])
    assert said(page) == f"The first 100 of {total} flips"
    assert len(rows(page)) == 100
    more = page.locator("[data-more='flips'] [data-step]")
    more.focus()
    page.keyboard.press("Enter")
    assert len(rows(page)) == 200
    assert page.evaluate("document.activeElement.hasAttribute('data-step')")
    page.keyboard.press("Enter")
    assert len(rows(page)) == total
    assert page.locator("[data-more='flips']").is_hidden()
    assert page.evaluate("document.activeElement.matches('.scroll.tall')")


def test_foreign_names_in_lists_and_addresses_are_only_text(open_page, families_file):
    page = open_page(file=families_file)
    texts = control(page, "relation").locator("option").all_text_contents()
    hostile = next(text for text in texts if "onerror" in text)
    assert hostile.startswith("<img src=x onerror=alert(1)> ⟨U+202E⟩general; a=b&c?d#e (")
    choose(page, "relation", hostile.rpartition(" (")[0])
    n = len(rows(page))
    assert 0 < n < 100
    again = open_page(file=families_file, fragment=fragment(page))
    assert len(rows(again)) == n
    assert again.complaints == []
    assert again.evaluate("document.querySelectorAll('img').length") == 0


@pytest.mark.slow
def test_a_page_full_of_flips_can_be_searched_sorted_and_shown_whole(open_page, many_file):
    page = open_page(file=many_file)
    assert said(page) == "The first 100 of 5,000 flips"
    header(page, "Lead now").get_by_role("button").click()
    leads = [number(row[7]) for row in rows(page)]
    assert leads == sorted(leads)
    control(page, "q").fill("number 12 ")
    page.wait_for_timeout(200)
    assert rows(page)
    assert all("number" in row[0] and "12" in "".join(row) for row in rows(page))
    page.locator("[data-for='flips'] [data-reset]").click()
    show_all(page)
    assert len(rows(page)) == 5000
    assert page.complaints == []


def test_the_index_filters_and_sorts_its_runs(open_page, index_file, shots):
    page = open_page(file=index_file)
    page.screenshot(path=shots / "index.png", full_page=True)
    assert said(page, "runs") == "All 5 runs"
    choose(page, "verdict", "REGRESSED", "runs")
    assert said(page, "runs") == "2 that match, of 5 runs"
    header(page, "Started", "runs").get_by_role("button").click()
    started = [row[0] for row in rows(page, "runs")]
    assert started == sorted(started, reverse=True)
    header(page, "Started", "runs").get_by_role("button").click()
    assert [row[0] for row in rows(page, "runs")] == started[::-1]
    again = open_page(file=index_file, fragment=fragment(page))
    assert rows(again, "runs") == rows(page, "runs")
    again.locator("table.runs a").first.click()
    assert again.title().startswith("REGRESSED")
