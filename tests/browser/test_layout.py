"""Layout that a reader depends on: contrast, order of focus, narrow screens, paper, drawings that can be read."""

from __future__ import annotations

from itertools import combinations

import pytest

pytestmark = pytest.mark.browser

MANY = pytest.param("many_file", marks=pytest.mark.slow)

PAGES = ["page_file", "families_file", "index_file"]

OPEN = "document.querySelectorAll('details').forEach((part) => { part.open = true; })"

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
  const ratio = (one, other) => {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const found = {};
  let n = 0;
  const look = (e, colour) => {
    n += 1;
    const seen = ratio(rgba(colour), ground(e));
    const name = e.tagName + '.' + (e.getAttribute('class') || '');
    if (seen < 4.5 && !(found[name] < seen)) found[name] = seen;
    for (let p = e; p; p = p.parentElement) if (getComputedStyle(p).opacity !== '1') found[name + ' is translucent'] = 0;
  };
  document.querySelectorAll('main *, header *, footer *').forEach((e) => {
    const own = Array.from(e.childNodes).some((c) => c.nodeType === 3 && c.textContent.trim());
    if (!e.checkVisibility() || e.tagName === 'title') return;
    if (own) look(e, e.closest('svg') ? getComputedStyle(e).fill : getComputedStyle(e).color);
    if (e.placeholder) look(e, getComputedStyle(e, '::placeholder').color);
  });
  return [n, found];
}"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(open_page, request, scheme, name):
    page = open_page(scheme=scheme, file=request.getfixturevalue(name))
    page.evaluate(OPEN)
    n, found = page.evaluate(CONTRASTS)
    assert n > 100
    assert found == {}, "WCAG AA asks for 4.5"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_and_bars_stand_out_from_their_ground(open_page, families_file, scheme):
    page = open_page(scheme=scheme, file=families_file)
    script = CONTRASTS.replace("'main *, header *, footer *'", "'.scatter .whisker, .trend circle, .trend .line, .pair path'")
    script = script.replace(
        "if (own) look(e, e.closest('svg') ? getComputedStyle(e).fill : getComputedStyle(e).color);",
        "const style = getComputedStyle(e); look(e, e.tagName === 'circle' ? style.fill : style.stroke);",
    )
    page.evaluate(OPEN)
    n, found = page.evaluate(script.replace("< 4.5", "< 3"))
    assert n > 20
    assert found == {}, "WCAG asks for 3 where a drawing carries meaning"


FOCUS_ORDER = """() => {
  const within = (x, low, high) => Math.min(Math.max(x, low), high);
  const box = (e) => {
    const own = e.getBoundingClientRect();
    const frame = e.parentElement.closest('.scroll.tall, nav');
    if (!frame) return own;
    const around = frame.getBoundingClientRect();
    return {
      left: within(own.left, around.left, around.right), right: within(own.right, around.left, around.right),
      top: within(own.top, around.top, around.bottom), bottom: within(own.bottom, around.top, around.bottom),
    };
  };
  const usable = Array.from(document.querySelectorAll('a[href], button, input, select, summary, [tabindex]'))
    .filter((e) => e.checkVisibility() && e.tabIndex >= 0 && !e.closest('.skip'));
  const wrong = [];
  if (usable.some((e) => e.tabIndex > 0)) wrong.push('a positive tabindex');
  usable.slice(1).forEach((after, i) => {
    const before = usable[i];
    if (before.contains(after) || before.closest('header') !== after.closest('header')) return;
    const [a, b] = [box(before), box(after)];
    const shared = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    const sameLine = shared > 0.6 * Math.min(a.bottom - a.top, b.bottom - b.top);
    const [from, to] = [before.closest('td, th'), after.closest('td, th')];
    const pair = [before.outerHTML.slice(0, 90), after.outerHTML.slice(0, 90)];
    if (b.bottom <= a.top + 1 && !(from && to && from !== to)) wrong.push(['above', ...pair]);
    else if (sameLine && b.left < a.left - 1) wrong.push(['left of', ...pair]);
  });
  return [usable.length, wrong];
}"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 800, 360])
def test_the_focus_moves_in_reading_order(open_page, request, width, name):
    page = open_page(width, file=request.getfixturevalue(name))
    page.evaluate("document.querySelectorAll('section').forEach((part) => { part.style.contentVisibility = 'visible'; })")
    n, wrong = page.evaluate(FOCUS_ORDER)
    assert n > 10
    assert wrong == []


@pytest.mark.parametrize("name", [*PAGES, MANY])
@pytest.mark.parametrize("width", [360, 768])
def test_only_boxes_scroll_sideways_on_a_narrow_screen(open_page, request, shots, width, name):
    page = open_page(width, file=request.getfixturevalue(name))
    page.evaluate("document.querySelectorAll('section').forEach((part) => { part.style.contentVisibility = 'visible'; })")
    page.evaluate(OPEN)
    page.wait_for_timeout(50)
    page.screenshot(path=shots / f"{name.removesuffix('_file')}-{width}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", PAGES)
def test_what_can_be_touched_is_large_enough(open_page, request, name):
    page = open_page(360, file=request.getfixturevalue(name))
    small = page.evaluate("""() => Array.from(document.querySelectorAll('button, select, input[type=search], label.check'))
      .filter((e) => e.checkVisibility()).filter((e) => e.getBoundingClientRect().height < 24)
      .map((e) => e.outerHTML.slice(0, 80))""")
    assert small == [], "WCAG asks for 24 pixels"


def test_flips_are_cards_on_a_narrow_screen(open_page):
    page = open_page(360)
    box = page.evaluate("""() => {
      const table = document.querySelector('table.items'); const row = table.tBodies[0].rows[0];
      const [first, last] = [row.cells[0], row.cells[7]].map((cell) => cell.getBoundingClientRect().left);
      return [table.getBoundingClientRect().width, first, last, getComputedStyle(row.cells[4], '::before').content];
    }""")
    assert box[0] <= 360
    assert box[1] == box[2]
    assert box[3] == '"Said before"'


PAPER_WIDTH = 1032
"""A4 landscape less its margins, in CSS pixels."""


@pytest.mark.parametrize("name", [*PAGES, MANY])
def test_no_table_is_cut_on_paper(open_page, request, shots, name):
    page = open_page(PAPER_WIDTH, file=request.getfixturevalue(name))
    page.pdf(path=shots / f"print-{name.removesuffix('_file')}.pdf", prefer_css_page_size=True)
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    cut = page.evaluate(
        """(width) => Array.from(document.querySelectorAll('table, figure, pre')).filter((e) => e.checkVisibility())
      .map((e) => [e.className, Math.round(e.getBoundingClientRect().right)]).filter(([, right]) => right > width + 1)""",
        PAPER_WIDTH,
    )
    assert cut == []
    clipped = page.evaluate("""() => Array.from(document.querySelectorAll('.scroll')).filter((e) => e.checkVisibility())
      .filter((e) => getComputedStyle(e).overflowY !== 'visible' || getComputedStyle(e).maxHeight !== 'none').length""")
    assert clipped == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER_WIDTH + 1


def test_paper_gets_the_flips_that_are_shown_and_no_buttons(open_page):
    page = open_page(fragment="#flips?direction=gained")
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("section > details:not([open])").count() == 0
    assert page.locator("button.tool:visible, select:visible, input:visible, nav:visible").count() == 0
    assert "that match" in page.locator("[data-status='flips']").text_content(), "paper says what was left out"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.provenance[open]").count() == 0


@pytest.mark.parametrize("name", ["page_file", "families_file", MANY])
def test_labels_of_a_drawing_are_whole_and_apart(open_page, request, name):
    page = open_page(file=request.getfixturevalue(name))
    panels = page.evaluate("""() => Array.from(document.querySelectorAll('.scatter'), (svg) => [svg.getBoundingClientRect(),
      Array.from(svg.querySelectorAll('text.label, text.middle'), (e) => [e.textContent, e.getBoundingClientRect()])])""")
    assert panels
    for frame, labels in panels:
        for text, box in labels:
            assert box["left"] >= frame["left"], text
            assert box["right"] <= frame["right"], text
        for (one, a), (other, b) in combinations(labels, 2):
            apart = (
                a["right"] <= b["left"]
                or b["right"] <= a["left"]
                or a["bottom"] <= b["top"] + 2
                or b["bottom"] <= a["top"] + 2
            )
            assert apart, (one, other)


def test_a_panel_of_several_fits_a_phone_whole(open_page, families_file):
    page = open_page(360, file=families_file)
    panels = page.evaluate("Array.from(document.querySelectorAll('.panel'), (e) => [e.scrollWidth, e.clientWidth])")
    assert len(panels) > 1
    assert [(needs, has) for needs, has in panels if needs > has] == []


def test_every_drawing_says_what_it_shows(open_page, families_file):
    page = open_page(file=families_file)
    page.evaluate(OPEN)
    silent = page.evaluate("""() => Array.from(document.querySelectorAll('main svg'))
      .filter((e) => !e.getAttribute('aria-label') && e.getAttribute('aria-hidden') !== 'true').length""")
    assert silent == 0
