"""The page is one whole, closed, navigable file, whatever the data set says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from harness.report import report, write_index, write_report

VOID = {"meta", "link", "br", "hr", "img", "input"}
LOADING = {"src", "srcset", "href", "xlink:href", "action", "formaction", "data", "poster", "background", "ping", "style"}


class Page(HTMLParser):
    """Every tag's attributes, the headings, and whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.headings: list[int] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    @property
    def files(self) -> set[str]:
        """Links of an index to the runs beside it."""
        return {attrs["href"] for tag, attrs in self.tags if tag == "a" and attrs.get("href", "").startswith("./")}

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice"
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not self.stack or self.stack[-1] not in ("style", "script"):
            self.text.append(data)


@pytest.fixture(scope="module", params=["full", "green", "empty", "families", "index"])
def page(request, synthetic, files, families_files, tmp_path_factory) -> Page:
    if request.param == "index":
        root = tmp_path_factory.mktemp("runs")
        write_report(root / "one", synthetic.make_bundle(60))
        (root / "<b>bad<b>").mkdir()
        (root / "<b>bad<b>" / "report.json").write_text("{")
        return Page(write_index(root, root / "index.html").read_text(encoding="utf-8"))
    made = {"full": files, "families": families_files}.get(request.param)
    made = made or report({"green": synthetic.make_green_bundle, "empty": synthetic.make_empty_bundle}[request.param]())
    return Page(made["index.html"].decode("utf-8"))


def test_tags_nest_and_all_are_closed(page):
    assert page.stack == []


def test_every_link_has_its_target_and_ids_are_unique(page):
    ids = Counter(attrs["id"] for _, attrs in page.tags if "id" in attrs)
    assert [name for name, n in ids.items() if n > 1] == []
    links = {attrs["href"] for tag, attrs in page.tags if tag in ("a", "use")} - page.files
    assert links
    assert [link for link in links if not link.startswith("#") or link[1:] not in ids] == []
    labels = [attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs]
    assert [name for name in labels if name not in ids] == []


def test_nothing_is_loaded_from_anywhere(page):
    loading = [(tag, k, v) for tag, attrs in page.tags for k, v in attrs.items() if k in LOADING and not v.startswith("#")]
    assert [one for one in loading if one[0] != "a" or one[2] not in page.files] == [("link", "href", "data:,")]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "img", "base", "form"} == set()


def test_the_style_and_script_name_no_address(files):
    own = re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", files["index.html"].decode(), flags=re.DOTALL)
    assert len(own) == 2
    assert not any(word in text for text in own for word in ("://", "url(", "@import", "fetch(", "XMLHttp", "innerHTML"))


def test_a_policy_forbids_what_escaping_should_already_prevent(page):
    policies = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policies[0]


def test_headings_step_down_by_one_and_there_is_one_first(page):
    assert page.headings.count(1) == 1
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))


def test_every_table_has_a_caption_and_every_scrolling_box_a_name(page):
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption")
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    boxes = [attrs for _, attrs in page.tags if attrs.get("class") == "scroll"]
    assert all(attrs.get("tabindex") == "0" and attrs.get("aria-label") for attrs in boxes)
    assert any(tag == "html" and attrs.get("lang") == "en" for tag, attrs in page.tags)


def test_a_command_in_a_sentence_is_code_and_a_lonely_backtick_stays(synthetic, bundle):
    words = 'no baseline: `harness baseline propose X --reason "<b>"` makes one; it\'s 5` long'
    verdicts = (*bundle.verdicts[:-1], synthetic.invalid_verdict(bundle.cells[-2], words))
    text = report(replace(bundle, verdicts=verdicts))["index.html"].decode("utf-8")
    shown = "no baseline: <code>harness baseline propose X --reason &#34;&lt;b&gt;&#34;</code> makes one; it&#39;s 5` long"
    assert text.count(shown) > 2


def test_foreign_text_is_shown_and_never_obeyed(files, page):
    text = files["index.html"].decode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u200f\ufeff]", text)
    assert "<script>alert" not in text
    assert "<b>bold</b>" not in text
    assert "49" not in re.findall(r"and (\S+) of \[Y\]", text)
    assert [tag for tag, _ in page.tags].count("script") == 1


def test_hostile_prompts_reach_the_reader(bundle, files):
    words = " ".join(Page(files["index.html"].decode("utf-8")).text)
    for expected in (
        "<script>alert('pwned')</script>",
        "</details></table></main>",
        "⟨U+202E⟩gnp.exe",
        "NUL ⟨U+0000⟩, ESC ⟨U+001B⟩[31m",
        "👩‍👩‍👧‍👦",
        "⟨U+D83D⟩",
    ):
        assert expected in words
    assert "Llanfairpwll" * 2 not in words
    assert max(map(len, words.split())) < 700


def test_foreign_text_is_isolated_in_its_direction(files):
    text = files["index.html"].decode("utf-8")
    places = [found.start() for found in re.finditer("العاصمة", text)]
    assert places
    assert all(text.rfind("<bdi", 0, place) > text.rfind("</bdi>", 0, place) for place in places)


def test_same_records_give_the_same_bytes(synthetic, files):
    assert report(synthetic.make_bundle(120)) == files


def test_same_records_give_the_same_bytes_in_another_process(files):
    code = (
        "import sys, importlib.util as u, hashlib\n"
        "from pathlib import Path\n"
        "s = u.spec_from_file_location('synthetic', sys.argv[1]); m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "from harness.report import report\n"
        "print(*[hashlib.sha256(data).hexdigest() for data in report(m.make_bundle(120)).values()])\n"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'pytest'} & set(sys.modules)))\n"
    )
    import hashlib
    from pathlib import Path

    path = Path(__file__).with_name("synthetic.py")
    run = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
        cwd=Path.cwd(),
    )
    digests, loaded = run.stdout.splitlines()
    assert digests.split() == [hashlib.sha256(data).hexdigest() for data in files.values()]
    assert loaded == "[]"


def test_an_item_is_matched_by_content_and_never_by_place(synthetic, bundle):
    from dataclasses import replace

    from harness.report.pairs import pair

    cell = bundle.cells[3]
    run, known = cell.runs["facts"], bundle.baselines[cell.record.cell.id]
    baseline = known.outcomes["facts"]
    order = list(reversed(range(len(baseline))))
    turned = replace(
        baseline,
        digests=tuple(baseline.digests[i] for i in order),
        correct=baseline.correct[order],
        answers=baseline.answers[order],
        ranks=baseline.ranks[order],
        margins_nats=baseline.margins_nats[order],
        near_ties=baseline.near_ties[order],
        option_logliks_nats=None,
    )
    assert not np.array_equal(turned.correct, baseline.correct)
    as_known, as_turned = (pair(run, replace(known, outcomes={"facts": one})).was_right for one in (baseline, turned))
    np.testing.assert_array_equal(as_turned, as_known)


def test_another_distribution_can_add_a_section(bundle, tmp_path, monkeypatch):
    from harness.core.shelf import Shelf
    from harness.report import view

    package = tmp_path / "extra_report"
    (package / "sections").mkdir(parents=True)
    (package / "templates").mkdir()
    (package / "__init__.py").touch()
    (package / "sections" / "__init__.py").touch()
    (package / "sections" / "hello.py").write_text(
        "from dataclasses import dataclass\n\n@dataclass\nclass View:\n    title: str\n    words: str\n\n"
        "def view_hello(bundle):\n    return View('Hello', f'<b>{len(bundle.cells)} cells</b>')\n"
    )
    (package / "templates" / "hello.html").write_text('<h2 id="{{ name }}-title">{{ view.title }}</h2><p>{{ view.words }}</p>')
    monkeypatch.syspath_prepend(tmp_path)
    table = {"banner": view.SECTIONS["banner"], "hello": "extra_report.sections.hello:view_hello"}
    monkeypatch.setattr(view, "SECTIONS", Shelf("sections", table))
    # The banner links to the cells' section, which this page lacks: only its own section is looked at.
    text = report(bundle)["index.html"].decode("utf-8")
    assert '<a href="#hello">Hello</a>' in text
    assert "<p>&lt;b&gt;7 cells&lt;/b&gt;</p>" in text
