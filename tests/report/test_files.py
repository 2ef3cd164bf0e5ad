"""report.json, junit.xml, summary.md and the README's table say what the page says."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from harness.core.errors import FileFormatError
from harness.core.records import CellRun
from harness.core.verdicts import Status
from harness.report import NotRun, RunBundle, replace_results, report, summary_table, update_readme, write_report
from harness.report.markdown import escape, table
from harness.report.raw import raw_report
from harness.report.sections import SECTIONS


@pytest.fixture(scope="module")
def plain(files):
    return json.loads(files["report.json"])


def test_report_json_holds_the_page_and_the_raw_records(plain, bundle):
    assert plain["schema_version"] == 1
    assert [section["name"] for section in plain["page"]["sections"]] == list(SECTIONS.table)
    raw = {cell["id"]: cell for cell in plain["run"]["cells"]}
    three = raw["llama_3bit-rtn_none"]
    evidence = three["verdict"]["pooled"]["evidence"]
    assert evidence["loss"]["value"] == bundle.verdict_of("llama_3bit-rtn_none").pooled.evidence.loss.value
    flips = three["flips"]["facts"]["baseline"]
    counts = three["verdict"]["tasks"][0]["evidence"]["counts"]
    assert sum(flip["lost"] for flip in flips) == counts["n_lost"]
    assert sum(not flip["lost"] for flip in flips) == counts["n_gained"]
    assert raw["llama_2bit-rtn_none"]["failure"].startswith("a score is NaN")
    assert plain["run"]["not_run"][1]["reason"].startswith("needs a CUDA device")


def test_report_json_keeps_foreign_text_as_it_was(plain):
    flips = [f for cell in plain["run"]["cells"] for task in cell["flips"].values() for found in task.values() for f in found]
    prompts = {flip["prompt"] for flip in flips}
    assert any("\x00" in prompt for prompt in prompts)
    assert any("\ud83d" in prompt for prompt in prompts)


def test_relations_add_up_to_the_task(plain):
    for cell in plain["run"]["cells"]:
        for name, groups in cell["relations"].items():
            assert sum(group["n_items"] for group in groups) == cell["record"]["tasks"][name]["n_items"]
            n_right = sum(group["n_right_candidate"] for group in groups)
            assert cell["accuracy"][name]["value"] == pytest.approx(n_right / cell["record"]["tasks"][name]["n_items"])


def test_retention_of_the_dense_model_is_its_definition(plain):
    four = next(cell for cell in plain["run"]["cells"] if cell["id"] == "llama_4bit-rtn_none")
    found = four["against_dense"]["facts"]
    assert found["retention"]["value"] == pytest.approx(
        found["accuracy_candidate"]["value"] / found["accuracy_dense"]["value"]
    )
    assert found["loss"]["value"] == pytest.approx(found["accuracy_dense"]["value"] - found["accuracy_candidate"]["value"])


def test_divergence_from_the_dense_model_is_the_mean_over_items_and_that_of_each_flip_its_own(plain, bundle):
    name = "llama_4bit-rtn_none"
    cell = next(cell for cell in plain["run"]["cells"] if cell["id"] == name)
    run = next(run for run in bundle.cells if run.record.cell.id == name).runs["facts"]
    dense = bundle.dense["llama"].outcomes["facts"]
    place = {digest: i for i, digest in enumerate(dense.digests)}
    expected = {
        digest: entropy(softmax(dense.option_logliks_nats[place[digest]]), softmax(run.outcomes.option_logliks_nats[i]))
        for i, digest in enumerate(run.outcomes.digests)
    }
    assert cell["against_dense"]["facts"]["kl_nats"] == pytest.approx(np.mean(list(expected.values())))
    assert cell["against_dense"]["facts"]["kl_nats"] > 0
    assert cell["flips"]["facts"]["dense_model"]
    for flip in cell["flips"]["facts"]["dense_model"]:
        assert flip["kl_nats"] == pytest.approx(expected[flip["digest"]])
    one = next(run for run in bundle.cells if run.record.cell.id == name)
    alone = replace(run, info=replace(run.info, chance=0.0))  # where each answer is right or wrong for itself
    others = tuple(replace(one, runs={**one.runs, "facts": alone}) if cell is one else cell for cell in bundle.cells)
    again = next(cell for cell in raw_report(replace(bundle, cells=others))["cells"] if cell["id"] == name)
    assert again["against_dense"]["facts"]["kl_nats"] is None


def test_junit_has_one_case_a_verdict_with_the_right_outcome(files, bundle):
    root = ET.fromstring(files["junit.xml"])
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert cases["llama_3bit-rtn_none-pooled"].find("failure").get("type") == "REGRESSED"
    assert cases["llama_4bit-rtn_none-pooled"].find("skipped").get("message").startswith("INCONCLUSIVE")
    assert cases["llama_4bit-rtn_none-numbers"].find("skipped").get("message").startswith("UNINFORMATIVE")
    assert cases["llama_30pct-wanda_none-facts"].find("error").get("type") == "INVALID"
    assert cases["llama_2bit-rtn_none-pooled"].find("error").get("message").startswith("a score is NaN")
    assert cases["llama_8bit-rtn_none-numbers"].find("skipped").get("message") == "not run: left out by -k"
    assert cases["llama_8bit-rtn_none-pooled"].find("skipped").get("message").startswith("not run")
    assert len(cases["llama_8bit-rtn_none-facts"].findall("failure")) == 0
    assert int(root.get("tests")) == len(list(root.iter("testcase"))) == sum(int(suite.get("tests")) for suite in root)
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(root.get(name)) == len(list(root.iter(tag)))
    assert {suite.get("name") for suite in root} >= {verdict.cell.id for verdict in bundle.verdicts}


def test_an_inconclusive_verdict_that_the_policy_fails_is_a_failure(bundle):
    verdicts = tuple(
        replace(v, tasks=tuple(replace(t, fails=t.status is not Status.PASS) for t in v.tasks))
        if "4bit-rtn" in v.cell.id
        else v
        for v in bundle.verdicts
    )
    root = ET.fromstring(report(replace(bundle, verdicts=verdicts))["junit.xml"])
    case = next(case for case in root.iter("testcase") if case.get("name") == "llama_4bit-rtn_none-facts")
    assert case.find("failure").get("type") == "INCONCLUSIVE"


def test_characters_that_xml_cannot_hold_are_left_out(bundle):
    left = NotRun(bundle.not_run[0].cell, "numbers", "bad \x00\x1b\ud83d\uffff text & <tag>")
    root = ET.fromstring(report(replace(bundle, not_run=(left,)))["junit.xml"])
    assert "not run: bad  text & <tag>" in [skipped.get("message") for skipped in root.iter("skipped")]


def test_the_summary_names_the_cell_and_shows_what_was_lost(files):
    text = files["summary.md"].decode("utf-8")
    assert text.startswith("## REGRESSED")
    assert "llama_3bit-rtn_none" in text
    assert "### Lost by llama_3bit-rtn_none-facts" in text
    assert "\x00" not in text


def test_markdown_tables_keep_their_columns_whatever_a_cell_holds(files):
    blocks = files["summary.md"].decode("utf-8").split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert tables
    for lines in tables:
        columns = {len(line.replace("\\\\", "").replace("\\|", "").split("|")) for line in lines}
        assert len(columns) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "<img src=x onerror=alert(1)>",
        "**bold** _em_ `code` [a](http://b.c) ![i](x)",
        "back\\slash \\| pipe",
        "&lt;b&gt; $x$ ~~gone~~ @someone",
        "# heading",
        "- item",
        "> quote",
        "<!-- comment -->",
    ],
)
def test_escaped_markdown_shows_the_text_itself(text):
    markdown_it = pytest.importorskip("markdown_it")
    renderer = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    html = renderer.render(table(["head"], [[escape(text)]], [False]))
    from html.parser import HTMLParser

    cells: list[str] = []

    class Cells(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag in ("table", "thead", "tbody", "tr", "th", "td"), f"<{tag}> got through"

        def handle_data(self, data):
            cells.append(data)

    Cells().feed(html)
    assert "".join(cells).split("head", 1)[1].strip() == text


def test_the_result_table_has_a_row_a_cell(plain):
    lines = summary_table(plain).splitlines()
    assert len(lines) == 2 + len(plain["run"]["cells"])
    row = next(line for line in lines if "llama_3bit-rtn_none" in line)
    assert "**REGRESSED**" in row
    assert "81.1" in row
    assert "3.25" in row


def test_the_readme_changes_only_between_its_markers(tmp_path, files):
    (tmp_path / "report.json").write_bytes(files["report.json"])
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n\n<!-- results:begin -->\n<!-- results:end -->\n\nend – ü\n", encoding="utf-8")
    assert update_readme(readme, tmp_path / "report.json")
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\n<!-- results:begin -->\n| Cell |")
    assert text.endswith("|\n<!-- results:end -->\n\nend – ü\n")
    assert not update_readme(readme, tmp_path / "report.json")


@pytest.mark.parametrize(
    "text", ["", "<!-- results:begin -->", "<!-- results:end --> <!-- results:begin -->", "<!-- results:begin -->" * 2]
)
def test_a_readme_without_its_markers_is_refused(text):
    with pytest.raises(FileFormatError, match="results:begin"):
        replace_results(text, "table")


def test_a_broken_report_json_is_refused(tmp_path):
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    (tmp_path / "README.md").write_text("", encoding="utf-8")
    with pytest.raises(FileFormatError, match="not valid JSON"):
        update_readme(tmp_path / "README.md", tmp_path / "report.json")


def test_write_report_writes_all_files(tmp_path, bundle, files):
    page = write_report(tmp_path / "latest", bundle)
    assert page == tmp_path / "latest" / "index.html"
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == files


def test_a_measured_cell_without_a_verdict_is_refused(bundle):
    with pytest.raises(ValueError, match="measured but not judged"):
        replace(bundle, verdicts=())


def test_a_verdict_of_an_unknown_cell_is_refused(bundle):
    with pytest.raises(ValueError, match="judged but neither"):
        replace(bundle, cells=tuple(c for c in bundle.cells if not isinstance(c, CellRun)))


def test_a_run_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="before it started"):
        RunBundle("embedded", "commit", (), (), "2031-01-02T00:00:00Z", "2031-01-01T00:00:00Z", 0, "x")


def test_report_json_is_what_the_json_module_would_write_line_by_line(files):
    """Flips are put together from columns of text: each line must be the canonical text of what it says."""
    lines = [line.strip().rstrip(",") for line in files["report.json"].decode("utf-8").split("\n")]
    objects = [line for line in lines if line.startswith('{"')]
    assert sum('"answer_candidate"' in line for line in objects) > 20
    for line in objects:
        text = json.dumps(json.loads(line), sort_keys=True, ensure_ascii=False)
        assert text.encode("utf-8", errors="backslashreplace").decode("utf-8") == line
